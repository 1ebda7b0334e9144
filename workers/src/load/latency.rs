//! Latencies in a histogram of microseconds, three digits exact (Gil Tene's HdrHistogram).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Records latencies from many tasks.
#[derive(Debug, Default)]
pub struct Latency {
    histogram: Mutex<Option<Histogram<u64>>>,
}

/// The usual percentiles, in milliseconds; 0 if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// 95 of 100 are faster.
    pub p95: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
    /// How many were recorded.
    pub samples: u64,
}

impl Latency {
    /// Records one.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        if histogram.is_none() {
            // Three digits are within what the crate supports; it grows with what it records.
            *histogram = Histogram::new(3).ok();
        }
        if let Some(histogram) = histogram.as_mut() {
            // Fails only for what the histogram cannot grow to: 2⁶³ µs.
            let _ = histogram.record(micros);
        }
    }

    /// What was recorded so far.
    pub fn percentiles(&self) -> Percentiles {
        let histogram = self.histogram.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(histogram) = histogram.as_ref() else { return Percentiles::default() };
        let millis = |micros: u64| micros as f64 / 1_000.0;
        Percentiles {
            p50: millis(histogram.value_at_quantile(0.50)),
            p95: millis(histogram.value_at_quantile(0.95)),
            p99: millis(histogram.value_at_quantile(0.99)),
            max: millis(histogram.max()),
            samples: histogram.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let latency = Latency::default();
        assert_eq!(latency.percentiles().samples, 0);
        (1..=100).for_each(|millis| latency.record(Duration::from_millis(millis)));
        let found = latency.percentiles();
        assert!((49.9..50.2).contains(&found.p50), "{found:?}");
        assert!((98.8..99.3).contains(&found.p99), "{found:?}");
    }
}
