//! The executor that both lanes share: decides commands on cached or loaded streams and commits
//! events, outcomes, outbox rows and checkpoints in one transaction.

mod batch;
mod cache;
mod clock;
mod decide;
mod executor;
pub mod retry;

pub use cache::{AggregateCache, CacheStats};
pub use clock::StoreClock;
pub use executor::{Executor, ExecutorSettings, Run, RunEnd};
pub use retry::{Retries, RetryPolicy};
