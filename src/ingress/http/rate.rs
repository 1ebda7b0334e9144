//! How fast a caller may send: the generic cell rate algorithm (ITU-T I.371), without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// A burst this large always fits, so that a full batch can be sent at any rate.
const SMALLEST_BURST: u64 = 1_000;

/// A rate in commands a second, with bursts of a second (at least one full batch).
pub(super) struct RateLimit {
    per_second: u32,
    nanos_each: u64,
    burst_nanos: u64,
    started: Instant,
    /// When the caller's account is even again, in nanoseconds since `started`.
    even_at: AtomicU64,
}

impl RateLimit {
    pub(super) fn new(per_second: u32) -> Self {
        let nanos_each = 1_000_000_000 / u64::from(per_second.max(1));
        Self {
            per_second,
            nanos_each,
            burst_nanos: (nanos_each * SMALLEST_BURST).max(1_000_000_000),
            started: Instant::now(),
            even_at: AtomicU64::new(0),
        }
    }

    pub(super) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes `n`, or says after how many seconds they would fit.
    pub(super) fn take(&self, n: usize) -> Result<(), u32> {
        let now = nanos(self.started.elapsed());
        let cost = self.nanos_each.saturating_mul(n as u64);
        let taken = self.even_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |even_at| {
            let next = even_at.max(now).saturating_add(cost);
            (next - now <= self.burst_nanos).then_some(next)
        });
        taken.map(drop).map_err(|even_at| {
            let over = (even_at.max(now).saturating_add(cost) - now) - self.burst_nanos;
            u32::try_from(over.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_the_rate_holds() {
        let rate = RateLimit::new(2_000);
        assert_eq!(rate.take(1_500), Ok(()));
        assert_eq!(rate.take(500), Ok(()));
        assert_eq!(rate.take(1), Err(1));
        assert_eq!(rate.take(2_000), Err(1));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(rate.take(500), Ok(()));
        assert_eq!(rate.take(1), Err(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_fits_even_a_small_rate() {
        let rate = RateLimit::new(10);
        assert_eq!(rate.take(1_000), Ok(()));
        assert_eq!(rate.take(10), Err(1));
        assert_eq!(rate.take(1_000), Err(100));
    }
}
