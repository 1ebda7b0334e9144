//! How long to wait before a failed step is tried again: exponential with jitter, bounded in time.
//! The clock is tokio's, so that a test under a paused clock repeats exactly; the jitter is the only
//! randomness and can be switched off.

use std::time::{Duration, Instant};

use backoff::{backoff::Backoff as _, exponential::ExponentialBackoff};

use crate::chance;

/// How often and for how long a step is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The wait before the second try.
    pub initial: Duration,
    /// What each further wait is multiplied by (at least 1).
    pub multiplier: f64,
    /// The longest wait.
    pub max_interval: Duration,
    /// How far a wait is spread at random, as a share of itself (0 to 1): 0.5 is ±50 %.
    pub jitter: f64,
    /// After this time no further try is begun; `None`: never give up.
    pub max_elapsed: Option<Duration>,
}

impl RetryPolicy {
    /// For a step whose caller waits: 20 ms, doubling up to 1 s, for `max_elapsed` in all.
    pub fn within(max_elapsed: Duration) -> Self {
        Self { max_elapsed: Some(max_elapsed), ..Self::forever() }
    }

    /// For a loop that goes on until it succeeds: 20 ms, doubling up to 1 s.
    pub fn forever() -> Self {
        Self {
            initial: Duration::from_millis(20),
            multiplier: 2.0,
            max_interval: Duration::from_secs(1),
            jitter: 0.5,
            max_elapsed: None,
        }
    }

    /// The same waits, spread by this share of themselves.
    #[must_use]
    pub fn with_jitter(self, jitter: f64) -> Self {
        Self { jitter, ..self }
    }

    /// The wait after so many failed tries (1, 2, 3 …), for steps whose tries are counted in the
    /// store. A process that takes over goes on where another was.
    pub fn nth_delay(&self, tries: i32) -> Duration {
        let mut delays = Self { max_elapsed: None, ..*self }.start();
        let nth = usize::try_from(tries.clamp(1, 64)).unwrap_or(1);
        let waits = std::iter::from_fn(|| delays.next_delay());
        waits.take(nth).last().unwrap_or(self.max_interval)
    }

    /// Starts to count: call it when the first try has failed.
    pub fn start(&self) -> Retries {
        let clock = TokioClock;
        let jitter = self.jitter.clamp(0.0, 1.0);
        let mut inner = ExponentialBackoff {
            current_interval: self.initial,
            initial_interval: self.initial,
            randomization_factor: if chance::is_seeded() { 0.0 } else { jitter },
            multiplier: self.multiplier.max(1.0),
            max_interval: self.max_interval,
            start_time: backoff::Clock::now(&clock),
            max_elapsed_time: self.max_elapsed,
            clock,
        };
        inner.reset();
        Retries { inner, jitter }
    }
}

/// The waits of one step, from its first failure on.
#[derive(Debug)]
pub struct Retries {
    inner: ExponentialBackoff<TokioClock>,
    jitter: f64,
}

impl Retries {
    /// How long to wait before the next try; `None` when the time is up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        let wait = self.inner.next_backoff()?;
        Some(chance::seeded_spread(wait, self.jitter).unwrap_or(wait))
    }

    /// Waits before the next try; `false` when the time is up.
    pub async fn wait(&mut self) -> bool {
        match self.next_delay() {
            Some(delay) => {
                tokio::time::sleep(delay).await;
                true
            }
            None => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct TokioClock;

impl backoff::Clock for TokioClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(max_elapsed: Option<u64>) -> RetryPolicy {
        RetryPolicy {
            max_elapsed: max_elapsed.map(Duration::from_millis),
            ..RetryPolicy::forever().with_jitter(0.0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest() {
        let mut retries = plain(None).start();
        let waits: Vec<_> =
            (0..8).filter_map(|_| retries.next_delay()).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn the_nth_wait_is_the_nth_of_those_that_follow_each_other() {
        let waits = [1, 3, 7, 64, 1_000].map(|n| plain(Some(1)).nth_delay(n).as_millis());
        assert_eq!(waits, [20, 80, 1000, 1000, 1000]);
        assert_eq!(plain(None).nth_delay(0).as_millis(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_when_its_time_is_over() {
        let mut retries = plain(Some(500)).start();
        let started = tokio::time::Instant::now();
        let mut tries = 0;
        while retries.wait().await {
            tries += 1;
        }
        assert_eq!(tries, 4);
        assert!(started.elapsed() <= Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_spreads_a_wait_around_its_middle() {
        for _ in 0..200 {
            let wait = RetryPolicy::forever().start().next_delay().unwrap();
            assert!((10..=30).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
