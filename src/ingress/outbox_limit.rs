//! The limit up to which commands are accepted while the broker takes none: PostgreSQL holds what
//! waits, but not without end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{observe::names, store::Store};

/// Whether the outbox is full, as of about a second ago. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OutboxLimit {
    full: Arc<AtomicBool>,
}

impl OutboxLimit {
    /// Looks every second until `shutdown`; `limit` rows are full.
    pub fn watch(store: Arc<dyn Store>, limit: i64, shutdown: CancellationToken) -> Self {
        let this = Self::default();
        let full = this.full.clone();
        tokio::spawn(async move {
            let look = look_every_second(store.as_ref(), limit, &full);
            let _ = shutdown.run_until_cancelled(look).await;
        });
        this
    }

    /// Whether commands are refused at the moment.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

async fn look_every_second(store: &dyn Store, limit: i64, full: &AtomicBool) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A store that does not answer says nothing of the outbox: what was known stays.
        let Ok((rows, oldest_ms)) = store.outbox_depth(limit).await else { continue };
        let is_full = rows >= limit;
        if full.swap(is_full, Ordering::Relaxed) != is_full {
            if is_full {
                tracing::warn!(rows, "the outbox is full: commands are refused");
            } else {
                tracing::info!(rows, "the outbox has room again");
            }
        }
        metrics::gauge!(names::OUTBOX_ROWS).set(rows as f64);
        metrics::gauge!(names::OUTBOX_OLDEST_SECONDS).set(oldest_ms as f64 / 1e3);
    }
}
