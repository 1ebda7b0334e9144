//! Workers: one partition loop serves every kind of group. It brings the entries of a log in order
//! (by the road, or from the log where the road has a hole) to the group's handler, which finishes
//! them and moves the checkpoint.

mod breakers;
mod combine;
mod command;
mod group;
mod group_breaker;
mod heads;
mod membership;
mod partition_loop;
mod projection;
mod replays;
mod road;
mod source;
mod stats;
mod suspects;
mod taking;

pub use breakers::{BreakerOf, ProcessBreakers};
pub use combine::{GroupHandler, HandlerRun, Pace};
pub use command::CommandHandler;
pub use group::{GroupParts, GroupSettings, run_group};
pub use group_breaker::GroupBreaker;
pub use heads::HeadWatch;
pub use membership::{
    LanePartitions, Membership, MembershipParts, MembershipSettings, Ownership, able_members, owner,
};
pub use projection::{ParkingSettings, ProjectionHandler};
pub use replays::{ReplayParts, run_replays};
pub use stats::{EntrySource, EntryStats, suspension};
pub use suspects::OneSuspect;
