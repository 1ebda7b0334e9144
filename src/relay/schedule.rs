//! Moves schedule rows that fell due into the command log and the outbox, with commands of the
//! immediate lane whose process is gone, and keeps the history of checkpoints short.

use std::time::Duration;

use tokio::time::Instant;

use super::RelayParts;
use crate::{message::Partition, observe::names};

/// How many rows move in one transaction.
const BATCH: i64 = 500;
/// How often the history of checkpoints is shortened, and by how many rows at most.
const PURGE_EVERY: Duration = Duration::from_secs(5);
const PURGE_ROWS: i64 = 20_000;

pub(super) async fn run(parts: RelayParts) {
    let mut next_purge = Instant::now() + PURGE_EVERY;
    // After an outage, what fell due meanwhile is long over its grace: nobody could claim it.
    let lanes_had_time = Instant::now() + parts.settings.lane_grace;
    loop {
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = parts.signals.schedule_hint() => {}
            () = tokio::time::sleep(parts.settings.schedule_poll) => {}
        }
        let partitions = parts.partitions.borrow().clone();
        if partitions.is_empty() {
            continue;
        }
        let is_over = Instant::now() >= lanes_had_time;
        let grace = if is_over { parts.settings.lane_grace } else { Duration::MAX };
        promote(&parts, &partitions, grace).await;
        if partitions.contains(&Partition(0)) && Instant::now() >= next_purge {
            next_purge = Instant::now() + PURGE_EVERY;
            if let Err(error) = parts.store.purge_checkpoints(PURGE_ROWS).await {
                tracing::warn!(%error, "the history of checkpoints could not be shortened");
            }
        }
    }
}

async fn promote(parts: &RelayParts, partitions: &[Partition], lane_grace: Duration) {
    loop {
        match parts.store.promote_due(partitions, lane_grace, BATCH).await {
            Ok(0) => return,
            Ok(moved) => {
                metrics::counter!("adjutant_schedule_promoted_total").increment(moved as u64);
                parts.signals.outbox_written();
                if (moved as i64) < BATCH {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "due commands could not be moved; trying again");
                return;
            }
        }
    }
}

/// In a task of its own: what is due does not wait for it.
pub(super) async fn take_over_what_is_held(parts: RelayParts) {
    loop {
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = tokio::time::sleep(parts.settings.take_over_every) => {}
        }
        let partitions = parts.partitions.borrow().clone();
        if !partitions.is_empty() {
            take_over(&parts, &partitions).await;
        }
    }
}

async fn take_over(parts: &RelayParts, partitions: &[Partition]) {
    loop {
        match parts.store.take_over(partitions, parts.member_ttl, BATCH).await {
            Ok(0) => return,
            Ok(moved) => {
                failpoint!(TakeOverAfter);
                metrics::counter!(names::IMMEDIATE_TAKEN_OVER_TOTAL).increment(moved as u64);
                tracing::warn!(
                    moved,
                    "commands that no process holds any more go through the queue"
                );
                parts.signals.outbox_written();
                if (moved as i64) < BATCH {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "commands of processes that are gone could not be moved");
                return;
            }
        }
    }
}
