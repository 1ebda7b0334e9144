//! How long to wait before trying again. The crate `backoff` does the arithmetic behind this type.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};

/// Exponential backoff with full jitter around each interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// How much longer each wait is than the one before.
    pub factor: f64,
    /// Each wait is drawn from `interval × (1 ± jitter)`.
    pub jitter: f64,
    /// After how long to give up; `None`: never.
    pub give_up_after: Option<Duration>,
}

impl RetryPolicy {
    /// For transactions that were rolled back or never began: 5 ms to 1 s, without end.
    pub const TRANSIENT: Self = Self {
        initial: Duration::from_millis(5),
        longest: Duration::from_secs(1),
        factor: 2.0,
        jitter: 0.5,
        give_up_after: None,
    };

    /// The same, but giving up after `limit`.
    pub const fn give_up_after(mut self, limit: Duration) -> Self {
        self.give_up_after = Some(limit);
        self
    }

    /// The waits of one operation, in order; the end means: give up.
    pub fn delays(&self) -> Delays {
        Delays {
            backoff: ExponentialBackoffBuilder::new()
                .with_initial_interval(self.initial)
                .with_max_interval(self.longest)
                .with_multiplier(self.factor)
                .with_randomization_factor(self.jitter)
                .with_max_elapsed_time(self.give_up_after)
                .build(),
        }
    }
}

/// The waits of one operation.
#[derive(Debug)]
pub struct Delays {
    backoff: ExponentialBackoff,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.backoff.next_backoff()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_stay_within_the_jitter() {
        let delays: Vec<_> = RetryPolicy::TRANSIENT.delays().take(20).collect();
        assert_eq!(delays.len(), 20, "without a limit it never gives up");
        assert!(
            delays[0] >= Duration::from_micros(2_500) && delays[0] <= Duration::from_micros(7_500)
        );
        assert!(
            delays[19] >= Duration::from_millis(500) && delays[19] <= Duration::from_millis(1_500)
        );
    }

    #[test]
    fn a_limit_ends_the_waits() {
        let policy = RetryPolicy::TRANSIENT.give_up_after(Duration::ZERO);
        assert_eq!(policy.delays().count(), 0);
    }
}
