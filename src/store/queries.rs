//! What people ask: the read side.

use async_trait::async_trait;

use super::{DocumentRow, FailedAttempt, StoreError};
use crate::message::{
    CommandId, ContentHash, Lane, Metadata, Offset, Outcome, OutcomeStatus, Partition, Position,
    RawJson, StreamId, Timestamp, Version,
};

/// Where a command is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandStatus {
    /// Not due yet.
    Scheduled,
    /// Durable, not executed yet.
    Accepted,
    /// Behind an earlier strict command of its stream.
    Waiting,
    /// A try failed; another one is due, or under way.
    Retrying,
    /// Ended.
    Ended(OutcomeStatus),
}

impl CommandStatus {
    /// The word used in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Accepted => "accepted",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Ended(status) => status.as_str(),
        }
    }
}

impl std::str::FromStr for CommandStatus {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Ok(match word {
            "scheduled" => Self::Scheduled,
            "accepted" => Self::Accepted,
            "waiting" => Self::Waiting,
            "retrying" => Self::Retrying,
            "succeeded" => Self::Ended(OutcomeStatus::Succeeded),
            "rejected" => Self::Ended(OutcomeStatus::Rejected),
            "dead" => Self::Ended(OutcomeStatus::Dead),
            "cancelled" => Self::Ended(OutcomeStatus::Cancelled),
            _ => return Err(UnknownStatus(word.to_owned())),
        })
    }
}

/// A word that is no status of commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no status")]
pub struct UnknownStatus(pub String);

/// The facts that a command's status follows from, and nothing else: cheap to ask for many. While
/// they stay the same, so does the status, whichever statuses there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandProgress {
    /// Whether it still waits for its time.
    pub scheduled: bool,
    /// Whether it waits behind an earlier strict command of its stream.
    pub waiting: bool,
    /// The number of the last attempt that failed; 0: none did.
    pub failed_attempt: i32,
    /// How it ended, and after how many attempts, if it did.
    pub ended: Option<(OutcomeStatus, i32)>,
}

impl CommandProgress {
    /// Where the command is in its life.
    pub fn status(self) -> CommandStatus {
        match self.ended {
            Some((status, _)) => CommandStatus::Ended(status),
            None if self.scheduled => CommandStatus::Scheduled,
            None if self.waiting => CommandStatus::Waiting,
            None if self.failed_attempt > 0 => CommandStatus::Retrying,
            None => CommandStatus::Accepted,
        }
    }
}

/// A command with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandRecord {
    /// Its id.
    pub id: CommandId,
    /// The wire name.
    pub command_type: String,
    /// The stream.
    pub stream: StreamId,
    /// The partition of the stream.
    pub partition: Partition,
    /// Where it is executed.
    pub lane: Lane,
    /// The payload.
    pub payload: RawJson,
    /// Who asked.
    pub metadata: Metadata,
    /// Not to be started before.
    pub not_before: Option<Timestamp>,
    /// Not to be started after.
    pub not_after: Option<Timestamp>,
    /// What a repetition must repeat.
    pub content_hash: ContentHash,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Whether it still waits for its time.
    pub scheduled: bool,
    /// Whether it waits behind an earlier strict command of its stream.
    pub waiting: bool,
    /// How many tries have failed.
    pub failed_attempts: i32,
    /// The newest of them, newest first, at most [`MOST_FAILURES`]; in a list: none.
    pub failures: Vec<FailedAttempt>,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
}

/// How many failed attempts are shown of a command.
pub const MOST_FAILURES: i64 = 50;

impl CommandRecord {
    /// The facts that its status follows from, as far as this record has them.
    pub fn progress(&self) -> CommandProgress {
        CommandProgress {
            scheduled: self.scheduled,
            waiting: self.waiting,
            failed_attempt: self.failed_attempts,
            ended: self.outcome.as_ref().map(|outcome| (outcome.status, outcome.attempts)),
        }
    }

    /// Where it is in its life.
    pub fn status(&self) -> CommandStatus {
        self.progress().status()
    }
}

/// Which commands to list.
#[derive(Clone, Debug, Default)]
pub struct CommandFilter {
    /// Only this status.
    pub status: Option<CommandStatus>,
    /// Only this type.
    pub command_type: Option<String>,
    /// Only this stream.
    pub stream: Option<StreamId>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page starts; `None` at the end. A page may be short of its limit and still
    /// have a next one: what a filter leaves out counts against the rows read for a page.
    pub next: Option<String>,
}

/// An event of a stream, as people see it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredStreamEvent {
    /// Its place in the stream.
    pub version: Version,
    /// Its place in the event log.
    pub offset: Offset,
    /// The wire name.
    pub event_type: String,
    /// The schema version of `data`.
    pub schema_version: i16,
    /// The data.
    pub data: RawJson,
    /// The command that caused it.
    pub command_id: CommandId,
    /// Copied from the command.
    pub metadata: Metadata,
    /// When it was recorded.
    pub recorded_at: Timestamp,
}

/// A document, as people see it.
pub type ViewRecord = DocumentRow;

/// A document as somebody sees it who waits for a position.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewAt {
    /// The document; `None` if it is not there or deleted.
    pub record: Option<ViewRecord>,
    /// Whether an event at or before the position waits, because its key is parked.
    pub parked: bool,
}

/// Questions.
#[async_trait]
pub trait Queries: Send + Sync {
    /// One command.
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError>;

    /// How far each of these commands is. One that there is not (any more) is as if nothing had
    /// happened to it.
    async fn statuses(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, CommandProgress)>, StoreError>;

    /// Those of these commands that there are, in no particular order. They come with their
    /// payloads: ask for few at a time.
    async fn commands_with_ids(&self, ids: &[CommandId]) -> Result<Vec<CommandRecord>, StoreError>;

    /// Commands, newest first, from a cursor on.
    async fn commands(
        &self,
        filter: &CommandFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<CommandRecord>, StoreError>;

    /// Events of a stream after a version, in order.
    async fn stream_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: i64,
    ) -> Result<Vec<StoredStreamEvent>, StoreError>;

    /// One document; `None` if it is not there or deleted.
    async fn view(&self, view: &str, key: &str) -> Result<Option<ViewRecord>, StoreError>;

    /// One document, and whether the position lies in a parked part of it: the position's stream, or
    /// the document, waits from there or from before. For views whose group has passed the position.
    async fn view_at(
        &self,
        view: &str,
        key: &str,
        position: Position,
    ) -> Result<ViewAt, StoreError>;

    /// Documents whose key has the prefix, after a key, in key order.
    async fn views(
        &self,
        view: &str,
        prefix: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ViewRecord>, StoreError>;
}
