//! What is drawn for a run, from its seed.

use std::{ops::Range, time::Duration};

use crate::load::Random;

/// Numbers that repeat with their seed.
#[derive(Clone, Debug)]
pub(super) struct Draw(Random);

impl Draw {
    /// The numbers of the `n`-th item of one kind of things.
    pub(super) fn of(seed: u64, kind: &str, n: u64) -> Self {
        Self(Random::of(seed ^ xxhash_rust::xxh64::xxh64(kind.as_bytes(), 0), n))
    }

    /// From 0 to `bound` − 1; 0 if there is nothing to choose from.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0.below(u32::try_from(bound).unwrap_or(u32::MAX)) as usize
    }

    /// Whether something happens that happens so many times in a hundred.
    pub(super) fn happens(&mut self, percent: u32) -> bool {
        self.0.below(100) < percent
    }

    /// One of these.
    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    /// So many milliseconds.
    pub(super) fn millis(&mut self, range: Range<u32>) -> Duration {
        let width = range.end.saturating_sub(range.start);
        Duration::from_millis(u64::from(range.start) + u64::from(self.0.below(width)))
    }

    /// Brings these into any order (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}
