//! What `GET /v1/lanes` and the metrics show.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the latency buckets, in milliseconds; above the last: one more bucket.
const BOUNDS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000];

/// How a lane stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStats {
    /// Commands that are being executed.
    pub running: usize,
    /// Commands that wait to be executed.
    pub waiting: usize,
    /// Commands that there was no room for, since the process started.
    pub refused: u64,
    /// Bytes that waiting and running commands hold, roughly.
    pub bytes: usize,
    /// Commands that were executed, since the process started.
    pub executed: u64,
    /// From arrival to end.
    pub latency: Vec<LatencyBucket>,
}

/// How many commands took at most so long (and longer than the bucket before).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyBucket {
    /// The bound; `None`: longer than any.
    pub at_most: Option<Duration>,
    /// How many.
    pub count: u64,
}

/// A histogram with fixed buckets.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    counts: [AtomicU64; BOUNDS.len() + 1],
}

impl Latencies {
    pub(crate) fn record(&self, took: Duration) {
        let millis = took.as_secs_f64() * 1e3;
        let bucket = BOUNDS.iter().position(|bound| millis <= *bound as f64);
        self.counts[bucket.unwrap_or(BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Vec<LatencyBucket> {
        let bounds = BOUNDS.iter().map(|ms| Some(Duration::from_millis(*ms))).chain([None]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        bounds.zip(counts).map(|(at_most, count)| LatencyBucket { at_most, count }).collect()
    }
}

/// Counters of the immediate lane.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) refused: AtomicU64,
    pub(super) executed: AtomicU64,
    pub(super) latencies: Latencies,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_into_the_bucket_of_its_bound() {
        let latencies = Latencies::default();
        for millis in [0, 1, 2, 3, 60_000, 60_001] {
            latencies.record(Duration::from_millis(millis));
        }
        let read = latencies.read();
        assert_eq!(read.iter().map(|bucket| bucket.count).sum::<u64>(), 6);
        assert_eq!((read[0].count, read[1].count, read[2].count), (2, 1, 1));
        assert_eq!(read[13], LatencyBucket { at_most: Some(Duration::from_mins(1)), count: 1 });
        assert_eq!(read[14], LatencyBucket { at_most: None, count: 1 });
    }
}
