//! Who should consume what: heartbeats by the database's clock, and rendezvous hashing over live
//! members (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998).
//! Adding or losing a member moves only the partitions that must move. Ownership is a hint: what
//! decides who can write are the fences of the store (law 5).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use xxhash_rust::xxh64::xxh64;

use super::EntryStats;
use crate::{
    execute::StoreClock,
    latest,
    message::{GroupName, MemberId, Partition},
    store::{Heartbeat, Member, Role, Store},
};

/// How long the last heartbeat may take when a member leaves.
const LAST_BEAT: Duration = Duration::from_secs(2);

/// Timing of membership.
#[derive(Clone, Copy, Debug)]
pub struct MembershipSettings {
    /// How often a member gives a sign of life.
    pub heartbeat: Duration,
    /// After which silence it counts as gone.
    pub ttl: Duration,
}

impl Default for MembershipSettings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(1), ttl: Duration::from_secs(5) }
    }
}

/// What this process should consume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The partitions whose outbox rows it relays.
    pub relay: Vec<Partition>,
    /// The partitions of each group.
    pub groups: BTreeMap<GroupName, Vec<Partition>>,
    /// The partitions for which it claims what fell due for the immediate lane.
    pub lanes: Vec<Partition>,
    /// Whether another process relays, too (and wants to be told of new rows).
    pub relay_elsewhere: bool,
    /// It is stopping: it consumes nothing any more, but still relays what it had.
    pub draining: bool,
}

/// The partitions for which a process claims what falls due for its immediate lane, as they change:
/// none without an ingress, and none while it drains.
#[derive(Clone)]
pub struct LanePartitions {
    ownership: latest::Receiver<Ownership>,
}

impl LanePartitions {
    /// As they are now.
    pub fn now(&mut self) -> Vec<Partition> {
        self.ownership.take().lanes
    }
}

/// The member of a group that should own a partition: the one with the highest hash.
pub fn owner<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    group: &str,
    partition: Partition,
) -> Option<MemberId> {
    let score = |member: &Member| xxh64(format!("{}/{group}/{partition}", member.id).as_bytes(), 0);
    members.into_iter().max_by_key(|member| (score(member), member.id)).map(|member| member.id)
}

/// The members that can own partitions of a group.
pub fn able_members<'a>(
    members: impl IntoIterator<Item = &'a Member>,
    group: &GroupName,
) -> Vec<&'a Member> {
    let role =
        if *group == GroupName::commands() { Role::CommandWorker } else { Role::ProjectionWorker };
    members
        .into_iter()
        .filter(|member| !member.draining)
        .filter(|member| member.roles.contains(&role) && member.groups.contains(group))
        .collect()
}

/// A running membership.
pub struct Membership {
    ownership: latest::Receiver<Ownership>,
    draining: Arc<Notify>,
    ended: CancellationToken,
    task: AbortOnDropHandle<()>,
    store: Arc<dyn Store>,
    id: MemberId,
}

/// What a membership needs.
pub struct MembershipParts {
    /// Where members meet.
    pub store: Arc<dyn Store>,
    /// This incarnation.
    pub id: MemberId,
    /// Host name and process id.
    pub name: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// The groups it can run.
    pub groups: Vec<GroupName>,
    /// Learns the store's time from every heartbeat.
    pub clock: StoreClock,
    /// Counters to show.
    pub stats: EntryStats,
    /// Rings when other members change.
    pub members_changed: Arc<Notify>,
    /// Timing.
    pub settings: MembershipSettings,
}

impl Membership {
    /// Joins: returns after the first heartbeat, with ownership known.
    pub async fn join(parts: MembershipParts) -> Result<Self, crate::store::StoreError> {
        let (sender, ownership) = latest::channel(Ownership::default());
        let draining = Arc::new(Notify::new());
        let (store, id) = (parts.store.clone(), parts.id);
        let mut member =
            Joined { beat: first_beat(&parts), parts, ownership: sender, told_of_draining: false };
        member.beat().await?;
        member.tell_others().await;
        let drain = draining.clone();
        let ended = CancellationToken::new();
        let end = ended.clone();
        let run = async move { member.run(&drain, &end).await };
        let task = AbortOnDropHandle::new(tokio::spawn(run));
        Ok(Self { ownership, draining, ended, task, store, id })
    }

    /// This incarnation.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// What this process should consume, as it changes.
    pub fn ownership(&self) -> latest::Receiver<Ownership> {
        self.ownership.clone()
    }

    /// Of these, the partitions of its immediate lane.
    pub fn lanes(&self) -> LanePartitions {
        LanePartitions { ownership: self.ownership() }
    }

    /// Tells the others to take over at once; from then on this process owns nothing.
    pub fn drain(&self) {
        self.draining.notify_one();
    }

    /// Leaves: the row is removed.
    pub async fn leave(mut self, stop: &CancellationToken) {
        stop.cancel();
        self.ended.cancel();
        // A heartbeat that is under way would bring the row back behind its removal.
        if tokio::time::timeout(LAST_BEAT, &mut self.task).await.is_err() {
            self.task.abort();
        }
        if let Err(error) = self.store.leave(self.id).await {
            tracing::warn!(%error, "could not leave; the others will notice");
        }
    }
}

fn first_beat(parts: &MembershipParts) -> Heartbeat {
    Heartbeat {
        id: parts.id,
        name: parts.name.clone(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        roles: parts.roles.clone(),
        groups: parts.groups.clone(),
        draining: false,
        stats: parts.stats.to_json(),
    }
}

struct Joined {
    parts: MembershipParts,
    beat: Heartbeat,
    ownership: latest::Sender<Ownership>,
    told_of_draining: bool,
}

impl Joined {
    async fn run(&mut self, drain: &Notify, ended: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                () = drain.notified() => {
                    self.beat.draining = true;
                    self.ownership.send_replace(Ownership { draining: true, ..Ownership::default() });
                }
                () = self.parts.members_changed.notified() => {}
                () = tokio::time::sleep(self.parts.settings.heartbeat) => {}
            }
            let was_told_to_drain = self.beat.draining && !self.told_of_draining;
            if let Err(error) = self.beat().await {
                // Nobody can tell us who lives: go on as before, the fences protect the rest.
                tracing::warn!(%error, "heartbeat failed");
                metrics::counter!("adjutant_heartbeats_failed_total").increment(1);
            } else if was_told_to_drain {
                self.told_of_draining = true;
                self.tell_others().await;
            }
        }
    }

    /// Without this hint the others see it at their next heartbeat.
    async fn tell_others(&self) {
        if let Err(error) = self.parts.store.notify_members().await {
            tracing::debug!(%error, "the other members were not told");
        }
    }

    async fn beat(&mut self) -> Result<(), crate::store::StoreError> {
        self.beat.stats = self.parts.stats.to_json();
        let (now, members) =
            self.parts.store.heartbeat(&self.beat, self.parts.settings.ttl).await?;
        self.parts.clock.observe(now);
        metrics::gauge!("adjutant_members").set(members.len() as f64);
        let owned = self.owned(&members);
        self.ownership.send_if_modified(|current| {
            let changed = *current != owned;
            *current = owned;
            changed
        });
        Ok(())
    }

    fn owned(&self, members: &[Member]) -> Ownership {
        if self.beat.draining {
            return Ownership { draining: true, ..Ownership::default() };
        }
        let mine = |able: &[&Member], name: &str| -> Vec<Partition> {
            let all = self.parts.store.identity().partitions.all();
            let is_mine = |partition: &Partition| {
                owner(able.iter().copied(), name, *partition) == Some(self.parts.id)
            };
            all.filter(is_mine).collect()
        };
        let groups = self
            .parts
            .groups
            .iter()
            .map(|group| (group.clone(), mine(&able_members(members, group), group.as_str())));
        let with_role = |role: Role| -> Vec<&Member> {
            let has_it = |member: &&Member| !member.draining && member.roles.contains(&role);
            members.iter().filter(has_it).collect()
        };
        let relays = with_role(Role::Relay);
        Ownership {
            groups: groups.collect(),
            draining: false,
            relay: mine(&relays, "relay"),
            lanes: mine(&with_role(Role::Ingress), "lanes"),
            relay_elsewhere: relays.iter().any(|member| member.id != self.parts.id),
        }
    }
}
