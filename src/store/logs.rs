//! The two logs of every partition, and the checkpoints of the groups that read them.

use async_trait::async_trait;

use super::StoreError;
use crate::message::{
    CommandEnvelope, EventEnvelope, GroupName, LogId, Offset, Partition, Timestamp,
};

/// Which of a partition's two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKind {
    /// Executions that the queued lane owes.
    Commands,
    /// Domain events.
    Events,
}

/// An entry of a command log.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandEntry {
    /// Its place.
    pub offset: Offset,
    /// The command.
    pub command: CommandEnvelope,
}

/// An entry of an event log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventEntry {
    /// Its place.
    pub offset: Offset,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The event.
    pub event: EventEnvelope,
}

/// An entry of either log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Of a command log.
    Command(CommandEntry),
    /// Of an event log.
    Event(EventEntry),
}

impl Entry {
    /// Its place in its log.
    pub fn offset(&self) -> Offset {
        match self {
            Self::Command(entry) => entry.offset,
            Self::Event(entry) => entry.offset,
        }
    }
}

/// The newest offset of every log, by partition index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Of the command logs.
    pub commands: Vec<Offset>,
    /// Of the event logs.
    pub events: Vec<Offset>,
}

impl Heads {
    /// The newest offset of one log (0: empty).
    pub fn of(&self, log: LogKind, partition: Partition) -> Offset {
        let heads = match log {
            LogKind::Commands => &self.commands,
            LogKind::Events => &self.events,
        };
        heads.get(partition.index()).copied().unwrap_or_default()
    }
}

/// Messages that arrived on a queue of ours but are not of our log, counted by origin.
#[derive(Clone, Debug)]
pub struct ForeignMessage {
    /// The group whose queue it was on.
    pub group: GroupName,
    /// The partition.
    pub partition: Partition,
    /// The log it names; `None` if its headers are not readable.
    pub log_id: Option<LogId>,
    /// What is wrong with it.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// Reading logs.
#[async_trait]
pub trait Logs: Send + Sync {
    /// Entries from `from` on, in order, at most `limit` (bounded by bytes as well: a page may be
    /// shorter than what is there, but is empty only at the head).
    async fn read_log(
        &self,
        log: LogKind,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// The newest offset of every log.
    async fn heads(&self) -> Result<Heads, StoreError>;

    /// A group's checkpoints, by partition index.
    async fn checkpoints(&self, group: &GroupName) -> Result<Vec<Offset>, StoreError>;

    /// Records messages that are not applied because they are not of this log.
    async fn record_foreign(&self, messages: &[ForeignMessage]) -> Result<(), StoreError>;

    /// Removes checkpoint history that no running compare can refer to any more; returns how many
    /// rows. The newest row of each group and partition stays.
    async fn purge_checkpoints(&self, limit: i64) -> Result<u64, StoreError>;
}
