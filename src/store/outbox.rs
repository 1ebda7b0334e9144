//! What relays need: rows to publish, and schedule rows that fell due.

use std::time::Duration;

use async_trait::async_trait;

use super::{ClaimedCommand, StoreError};
use crate::message::{MemberId, Offset, Partition, Route, Timestamp};

/// An outbox row: what the broker is to be told, and where.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Its id; rows of one partition are in log order when sorted by it.
    pub id: i64,
    /// The transaction that wrote it (`xid8`), for the lower bound of reads.
    pub transaction: u64,
    /// The partition it belongs to.
    pub partition: Partition,
    /// Where it goes.
    pub route: Route,
    /// The offset of its first entry, if it carries log entries.
    pub first_offset: Option<Offset>,
    /// How many entries it carries.
    pub entries: i32,
    /// When it was written, by the store's clock.
    pub recorded_at: Timestamp,
    /// How long ago that was, by the store's clock, in milliseconds.
    pub age_ms: i64,
    /// AMQP `correlation-id`.
    pub correlation_id: Option<String>,
    /// MIME type of the body.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Rows, and from where to read on.
#[derive(Clone, Debug, Default)]
pub struct OutboxPage {
    /// The rows, by id.
    pub rows: Vec<OutboxRow>,
    /// Transactions before this one can bring no further rows (`pg_snapshot_xmin`): the exact
    /// lower bound of the next read, once all rows of this page are taken.
    pub next_bound: u64,
}

/// Relaying.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Rows of these partitions from the bound on, without those in `known`, at most `limit`.
    async fn read_outbox(
        &self,
        partitions: &[Partition],
        bound: u64,
        known: &[i64],
        limit: i64,
    ) -> Result<OutboxPage, StoreError>;

    /// Deletes, for an outage of the broker, rows of these partitions that carry log offsets and
    /// are older than `age_ms`: their groups read the log. At most `limit`; returns how many.
    async fn drop_aged(
        &self,
        partitions: &[Partition],
        age_ms: i64,
        limit: i64,
    ) -> Result<u64, StoreError>;

    /// Deletes rows that were published. Deleting one twice changes nothing.
    async fn delete_outbox(&self, ids: &[i64]) -> Result<(), StoreError>;

    /// How many rows wait, counted up to `limit`, and the age of the oldest in milliseconds.
    async fn outbox_depth(&self, limit: i64) -> Result<(i64, i64), StoreError>;

    /// Moves due schedule rows of these partitions into the command log and the outbox, at most
    /// `limit`, in one transaction; returns how many it took. Those that an immediate lane may claim
    /// are left to it until they have been due for `lane_grace`. Orphans among them (the command is
    /// gone, or has ended) leave the schedule and enter no log.
    async fn promote_due(
        &self,
        partitions: &[Partition],
        lane_grace: Duration,
        limit: i64,
    ) -> Result<usize, StoreError>;

    /// Takes schedule rows of these partitions that fell due for the immediate lane, by due time
    /// within a partition, at most `limit`, in one transaction: from then on `owner` holds their
    /// commands, as if it had accepted them. Orphans among them leave the schedule, and nobody holds
    /// them.
    async fn claim_due(
        &self,
        partitions: &[Partition],
        owner: MemberId,
        limit: i64,
    ) -> Result<Vec<ClaimedCommand>, StoreError>;

    /// Moves commands of these partitions into the command log and the outbox that a process of the
    /// immediate lane holds which has not sent a heartbeat for `ttl`, in the order in which they were
    /// accepted, at most `limit`, in one transaction; returns how many. That process, if it comes
    /// back, finds that it does not hold them any more.
    async fn take_over(
        &self,
        partitions: &[Partition],
        ttl: Duration,
        limit: i64,
    ) -> Result<usize, StoreError>;
}

/// Schedule rows that had nothing to run.
#[cfg(any(feature = "postgres", feature = "embedded"))]
pub(crate) fn count_orphans(orphans: u64) {
    if orphans > 0 {
        metrics::counter!(crate::observe::names::SCHEDULE_ORPHANS_TOTAL).increment(orphans);
        tracing::warn!(orphans, "schedule rows whose command is gone or has ended were removed");
    }
}
