//! Deletes confirmed rows in batches, off the path.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use crate::{execute::RetryPolicy, store::Store};

/// As many rows go in one statement.
const BATCH: usize = 1_000;

/// Takes the ids of rows to delete and tells which are gone. Bounded by the rows in flight. When it
/// is dropped, its task still deletes what it was given: fewer duplicates.
pub(super) struct Clearer {
    to_delete: Option<mpsc::UnboundedSender<i64>>,
    deleted: mpsc::UnboundedReceiver<Vec<i64>>,
}

impl Clearer {
    pub(super) fn start(store: Arc<dyn Store>, within: Duration) -> Self {
        let (to_delete, ids) = mpsc::unbounded_channel();
        let (done, deleted) = mpsc::unbounded_channel();
        tokio::spawn(run(store, within, ids, done));
        Self { to_delete: Some(to_delete), deleted }
    }

    /// Deletes these rows soon.
    pub(super) fn delete(&self, ids: &[i64]) {
        if let Some(to_delete) = &self.to_delete {
            for id in ids {
                // The task ends only after this sender is dropped.
                let _ = to_delete.send(*id);
            }
        }
    }

    /// Rows that are gone. Safe to cancel.
    pub(super) async fn deleted(&mut self) -> Option<Vec<i64>> {
        self.deleted.recv().await
    }

    /// Waits until everything is deleted.
    pub(super) async fn finish(&mut self) {
        self.to_delete = None;
        while self.deleted.recv().await.is_some() {}
    }
}

async fn run(
    store: Arc<dyn Store>,
    within: Duration,
    mut ids: mpsc::UnboundedReceiver<i64>,
    done: mpsc::UnboundedSender<Vec<i64>>,
) {
    while let Some(first) = ids.recv().await {
        let batch = gather(first, &mut ids, within).await;
        let policy = RetryPolicy::forever();
        let mut delays = policy.start();
        while let Err(error) = store.delete_outbox(&batch).await {
            tracing::debug!(%error, "published rows cannot be deleted yet");
            tokio::time::sleep(delays.next_delay().unwrap_or(policy.max_interval)).await;
            // The relay is gone: whoever comes next publishes these rows again, and nothing is lost.
            if done.is_closed() {
                return;
            }
        }
        let _nobody_waits = done.send(batch);
    }
}

async fn gather(first: i64, ids: &mut mpsc::UnboundedReceiver<i64>, within: Duration) -> Vec<i64> {
    let deadline = Instant::now() + within;
    let mut batch = vec![first];
    while batch.len() < BATCH {
        tokio::select! {
            biased;
            id = ids.recv() => match id {
                Some(id) => batch.push(id),
                None => break,
            },
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    batch
}
