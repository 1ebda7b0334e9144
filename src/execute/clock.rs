//! The store's clock, as far as a process knows it: the last time the store told, plus what the
//! process's own monotonic clock has counted since. A jump of the machine's wall clock changes
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::message::Timestamp;

/// Estimates the store's time between its answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreClock {
    last: Arc<Mutex<(Timestamp, Instant)>>,
}

impl StoreClock {
    /// Starts at a time that the store told just now.
    pub fn starting_at(now: Timestamp) -> Self {
        Self { last: Arc::new(Mutex::new((now, Instant::now()))) }
    }

    /// The store told its time just now.
    pub fn observe(&self, now: Timestamp) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (now, Instant::now());
    }

    /// The store's time, as well as this process knows it.
    pub fn now(&self) -> Timestamp {
        let (told, at) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        told + at.elapsed()
    }
}
