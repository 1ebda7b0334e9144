//! The simulation's randomness: everything that is drawn comes from one seed.

use std::time::Duration;

/// Draws at random, the same for the same seed.
pub struct Dice(fastrand::Rng);

impl Dice {
    pub(super) fn with(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number from 0 up to and without `end` (0 if that is 0).
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.u64(..end) }
    }

    /// Whether something happens that does so this often in 10,000 times.
    pub fn happens(&mut self, in_ten_thousand: u64) -> bool {
        self.below(10_000) < in_ten_thousand
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let i = usize::try_from(self.below(from.len() as u64)).unwrap_or_default();
        from.get(i)
    }

    /// A time between two others, in milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to.saturating_sub(from) + 1))
    }

    /// The seed of further dice.
    pub(super) fn fork(&mut self) -> u64 {
        self.0.u64(..)
    }
}
