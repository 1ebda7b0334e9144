//! The executor that both lanes share: decides commands on cached or loaded streams and commits
//! events, outcomes, outbox rows and checkpoints in one transaction.

mod arrivals;
mod batch;
pub mod breaker;
mod breakers;
mod cache;
mod clock;
mod decide;
mod decider;
mod executor;
mod failing;
mod holds;
pub mod retry;
mod schedule;
mod settings;

pub use arrivals::{Arrival, ArrivalEnd, Enters};
pub use breaker::{Breaker, BreakerSettings, BreakerState};
pub use cache::{AggregateCache, CacheStats};
pub use clock::StoreClock;
pub use executor::{Executor, Run, RunEnd};
pub use retry::{Retries, RetryPolicy};
pub use schedule::{PerType, RetrySchedule};
pub use settings::ExecutorSettings;
