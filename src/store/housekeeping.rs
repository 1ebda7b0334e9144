//! Removing what has served its time. Every method is one small transaction.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::message::{CommandId, GroupName, Partition, Timestamp};

/// What is removed by age alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Dead letters that were resolved or discarded, by the time when that happened.
    DeadLetters,
    /// What was done to dead letters.
    DeadLetterAudit,
    /// Who cancelled commands.
    Cancellations,
    /// Members that gave no sign of life.
    Members,
    /// Notifications that were sent or given up, and conditions that are over.
    Notifications,
}

impl Leftover {
    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead_letters",
            Self::DeadLetterAudit => "dead_letter_audit",
            Self::Cancellations => "cancellations",
            Self::Members => "members",
            Self::Notifications => "notifications",
        }
    }
}

/// How far a walk over the commands has come: the time and id of the last one that was looked at.
pub type CommandCursor = (Timestamp, CommandId);

/// What one step of that walk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedRemoved {
    /// How many commands were removed with their outcomes.
    pub removed: u64,
    /// From where to go on; `None`: every command that is old enough was looked at.
    pub next: Option<CommandCursor>,
}

/// Housekeeping. Event logs, views, snapshots and undecided commands are never removed.
#[async_trait]
pub trait Housekeeping: Send + Sync {
    /// Removes the oldest entries of a partition's command log, in order, up to the first one that
    /// must stay: it is younger than `age`, or its command has no outcome of that age, or it is not
    /// behind the checkpoint, or it is the newest one (the next offset is counted from it). Looks
    /// at `limit` entries at most; returns how many were removed.
    async fn remove_log_entries(
        &self,
        partition: Partition,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError>;

    /// Looks at the next `limit` commands that were accepted longer than `age` ago, and removes
    /// those that ended longer ago than that, with their outcomes. A command stays while it has an
    /// entry in the log or in the schedule, or a dead letter that a person must look at.
    async fn remove_ended_commands(
        &self,
        age: Duration,
        from: Option<CommandCursor>,
        limit: i64,
    ) -> Result<EndedRemoved, StoreError>;

    /// Removes outbox rows older than `age` whose log entries all groups have finished, among the
    /// oldest `limit` rows; `events` are the groups that read the event log. Returns how many.
    async fn remove_finished_outbox(
        &self,
        events: &[GroupName],
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError>;

    /// Removes what is older than `age`, at most `limit`; returns how many.
    async fn remove_leftovers(
        &self,
        what: Leftover,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError>;

    /// Keeps the newest `keep` rows of counted foreign messages; removes at most `limit` of the
    /// others and returns how many.
    async fn bound_foreign(&self, keep: i64, limit: i64) -> Result<u64, StoreError>;
}
