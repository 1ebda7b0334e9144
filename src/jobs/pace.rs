//! The rate of a job: what was late is not made up for.

use std::time::Duration;

use tokio::time::Instant;

/// Keeps to a rate.
pub(super) struct Pace {
    per_second: f64,
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: i32) -> Self {
        Self { per_second: f64::from(rate.max(1)), next: Instant::now() }
    }

    /// How many at a time: a batch a quarter of a second, up to the most that a transaction takes.
    pub(super) fn batch(&self, most: usize) -> usize {
        ((self.per_second / 4.0) as usize).clamp(1, most)
    }

    /// Waits after so many were acted on.
    pub(super) async fn wait_after(&mut self, items: usize) {
        let takes = Duration::from_secs_f64(items as f64 / self.per_second);
        self.next = self.next.max(Instant::now().checked_sub(takes).unwrap_or(self.next)) + takes;
        tokio::time::sleep_until(self.next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_lateness_is_not_made_up_for() {
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.batch(500), 250);
        let started = Instant::now();
        for _ in 0..8 {
            pace.wait_after(250).await;
        }
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let late = Instant::now();
        for _ in 0..9 {
            pace.wait_after(250).await;
        }
        assert!(late.elapsed() >= Duration::from_secs(2), "{:?}", late.elapsed());
        assert_eq!((Pace::new(1).batch(500), Pace::new(10_000).batch(500)), (1, 500));
    }
}
