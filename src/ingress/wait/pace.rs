//! How often to poll: soon after something happened, seldom while nothing does.

use std::time::Duration;

use tokio::time::Instant;

const FASTEST: Duration = Duration::from_millis(20);
const SLOWEST: Duration = Duration::from_millis(250);

/// The time of the next poll.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { interval: FASTEST, next: Instant::now() + FASTEST }
    }

    /// When to poll next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is time.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Somebody new waits, or something ended: the next poll is soon.
    pub(super) fn quicken(&mut self) {
        self.interval = FASTEST;
        self.next = self.next.min(Instant::now() + FASTEST);
    }

    /// A poll was made.
    pub(super) fn polled(&mut self, found_something: bool) {
        self.interval =
            if found_something { FASTEST } else { (self.interval * 3 / 2).min(SLOWEST) };
        self.next = Instant::now() + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn polls_grow_rare_while_nothing_happens_and_frequent_when_something_does() {
        let mut pace = Pace::new();
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push((pace.next() - Instant::now()).as_millis());
            tokio::time::sleep_until(pace.next()).await;
            assert!(pace.is_due());
            pace.polled(false);
        }
        let expected = [20_u128, 30, 45, 67, 101, 151, 227, 250, 250];
        assert!(waits.iter().zip(expected).all(|(w, e)| w.abs_diff(e) <= 1), "{waits:?}");
        pace.quicken();
        assert!(pace.next() - Instant::now() <= FASTEST);
    }
}
