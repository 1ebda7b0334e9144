//! How often to poll: soon after something happened, seldom while nothing does.

use std::time::Duration;

use tokio::time::Instant;

const FASTEST: Duration = Duration::from_millis(20);
const SLOWEST: Duration = Duration::from_millis(250);
/// After a poll about many, time passes in proportion, so that the store is never asked about more
/// than 50,000 a second.
const PER_QUESTION: Duration = Duration::from_micros(20);
/// All are asked about at every poll while they are few; of more, 5,000 a second.
const FEW: usize = 500;
const PER_SWEPT: Duration = Duration::from_micros(200);

/// The time of the next poll.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
    sweep: Instant,
    /// No poll before this, whatever happens.
    rest: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { interval: FASTEST, next: now + FASTEST, sweep: now, rest: now }
    }

    /// When to poll next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is time.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Whether it is time to ask about all, and not only about those for whom there is a hint.
    pub(super) fn is_sweep_due(&self) -> bool {
        Instant::now() >= self.sweep
    }

    /// Somebody new waits, or something ended: the next poll is soon.
    pub(super) fn quicken(&mut self) {
        self.interval = FASTEST;
        self.next = self.next.min(Instant::now() + FASTEST).max(self.rest);
    }

    /// A poll was made.
    pub(super) fn polled(&mut self, found_something: bool) {
        self.interval =
            if found_something { FASTEST } else { (self.interval * 3 / 2).min(SLOWEST) };
        self.next = Instant::now() + self.interval;
    }

    /// A poll about so many was made, for whom there was a hint.
    pub(super) fn peeked(&mut self, found_something: bool, asked: usize) {
        self.polled(found_something);
        self.rest = Instant::now() + times(PER_QUESTION, asked);
        self.next = self.next.max(self.rest);
    }

    /// A poll about all was made.
    pub(super) fn swept(&mut self, found_something: bool, asked: usize) {
        self.peeked(found_something, asked);
        self.sweep = Instant::now() + times(PER_SWEPT, asked.saturating_sub(FEW));
    }
}

fn times(each: Duration, count: usize) -> Duration {
    each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
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

    #[tokio::test(start_paused = true)]
    async fn many_are_all_asked_about_less_often_than_few() {
        let mut pace = Pace::new();
        assert!(pace.is_sweep_due());
        pace.swept(false, FEW);
        assert!(pace.is_sweep_due());
        pace.swept(false, 10_500);
        assert!(!pace.is_sweep_due());
        pace.quicken();
        assert!(pace.next() - Instant::now() >= Duration::from_millis(210));
        tokio::time::sleep(Duration::from_millis(1_990)).await;
        assert!(!pace.is_sweep_due());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(pace.is_sweep_due());
    }
}
