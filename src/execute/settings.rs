//! How an executor works.

use std::time::Duration;

use super::{BreakerSettings, PerType, RetrySchedule};

/// How the executor works.
#[derive(Clone, Debug)]
pub struct ExecutorSettings {
    /// How many events there are between two snapshots of a stream.
    pub snapshot_every: i64,
    /// The most bytes of aggregates held in memory.
    pub cache_bytes: u64,
    /// After how long a command that no worker here can execute comes back.
    pub set_aside: Duration,
    /// How commands that failed are tried again, by type.
    pub retry: PerType<RetrySchedule>,
    /// How long one decision may take, by type, up to an eighth more. One that takes longer is a
    /// failed attempt (`timed_out`), and what it decides is not used. Time in which the process or
    /// the machine stood still does not count. There is no limit under a simulation.
    pub time_limit: PerType<Duration>,
    /// How many decisions may hang at once, each on a thread that was given up. With so many,
    /// nothing more is executed until one of them comes back.
    pub most_hanging: usize,
    /// When trying commands of a type is suspended, by type.
    pub breaker: PerType<BreakerSettings>,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            snapshot_every: 100,
            cache_bytes: 32 * 1024 * 1024,
            set_aside: Duration::from_secs(5),
            retry: PerType::default(),
            time_limit: PerType::all(Duration::from_secs(1)),
            most_hanging: 8,
            breaker: PerType::default(),
        }
    }
}
