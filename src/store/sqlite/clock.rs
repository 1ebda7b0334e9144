//! The store's clock: injected, so that a simulation owns it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::{message::Timestamp, store::StoreError};

/// Tells the store's time. All stored times and due times come from it.
#[derive(Clone)]
pub struct ClockSource(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl ClockSource {
    /// Asks `now` every time. It must not go backwards.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The machine's clock in UTC; when that is set back, the time stands still until it has
    /// caught up.
    pub fn system() -> Self {
        let latest = AtomicI64::new(i64::MIN);
        Self::new(move || {
            let wall = Timestamp::now_utc();
            let micros = to_micros(wall);
            let before = latest.fetch_max(micros, Ordering::Relaxed);
            if before > micros { from_micros(before).unwrap_or(wall) } else { wall }
        })
    }

    pub(super) fn micros(&self) -> i64 {
        to_micros((self.0)())
    }
}

impl Default for ClockSource {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for ClockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockSource")
    }
}

/// Microseconds since 1970, as the file keeps them.
pub(super) fn to_micros(time: Timestamp) -> i64 {
    // Every time that `OffsetDateTime` can hold fits.
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX)
}

pub(super) fn from_micros(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .map_err(|_| StoreError::Corrupt(format!("{micros} is no time in microseconds")))
}
