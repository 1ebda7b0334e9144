//! Parked keys: what a group sets aside so that everything else can go on, and how it catches up.
//!
//! A key is parked in the transaction in which the checkpoint passes the event that failed. From
//! then on its events wait: those of a stream in the log, those of a shared document as references.
//! A replay applies them in order and moves the key's cursor by compare-and-set in the same
//! transaction (law 3); the transaction that leaves nothing waiting unparks the key
//! (`docs/adr/0004-parking.md`).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ActedBy, DocumentWrite, EventEntry, FoldDocuments, StoreError};
use crate::{
    dead_letter::DeadLetterId,
    message::{
        CommandId, Failure, GroupName, MemberId, Offset, Partition, Position, StreamId, Timestamp,
        Version,
    },
};

/// Which build of what a group maintains: 1, and one more for each rebuild beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i32);

impl Generation {
    /// The first one.
    pub const FIRST: Self = Self(1);
}

/// What a parked key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyScope {
    /// A stream: its events wait in the log.
    Stream,
    /// A document that several streams feed.
    Document,
    /// An instance of a saga.
    Instance,
}

impl KeyScope {
    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Stream => 1,
            Self::Document => 2,
            Self::Instance => 3,
        }
    }

    /// The scope with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Stream, Self::Document, Self::Instance].into_iter().find(|it| it.code() == code)
    }

    /// The word used in HTTP, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Document => "document",
            Self::Instance => "instance",
        }
    }
}

/// Names a key of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// The group.
    pub group: GroupName,
    /// Which build of what it maintains.
    pub generation: Generation,
    /// What the key is.
    pub scope: KeyScope,
    /// The stream, the document's key, or the instance.
    pub key: String,
}

/// What a person asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// All events that wait, from the one that failed on.
    Retry,
    /// The same without the one that failed: it waits no longer, and is never applied to this key.
    Discard,
}

impl Replay {
    /// The word that stands in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Discard => "discard",
        }
    }
}

/// What became of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayAsked {
    /// It was the first time; the replay will happen.
    Accepted,
    /// Somebody asked before: nothing was changed.
    AlreadyAsked,
    /// No parked key has this dead letter.
    NotFound,
}

/// A key that is parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedKey {
    /// Its name.
    pub name: KeyName,
    /// The event that failed.
    pub failed: Position,
    /// Stream: the last offset applied to it. Else: how many references have been replayed.
    pub cursor: i64,
    /// Stream: the version at the cursor.
    pub cursor_version: Version,
    /// What was asked for, if a replay is under way.
    pub replay: Option<Replay>,
    /// Its dead letter.
    pub dead_letter: DeadLetterId,
    /// How often the event that failed was tried.
    pub attempts: i32,
    /// Since when.
    pub parked_at: Timestamp,
    /// How many processes began the next step of its replay: unless one of them is still at it, they
    /// vanished or were interrupted.
    pub begun: i32,
}

/// The failure of an event, as its dead letter keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventFailure {
    /// The dead letter that is opened.
    pub dead_letter: DeadLetterId,
    /// The event.
    pub position: Position,
    /// Its place in its stream.
    pub version: Version,
    /// Its wire name.
    pub event_type: String,
    /// The command that caused it.
    pub command_id: CommandId,
    /// What is wrong.
    pub error: Failure,
    /// How often it was tried.
    pub attempts: i32,
}

impl EventFailure {
    /// Failures of one cause have one fingerprint.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(crate) fn fingerprint(&self) -> String {
        crate::dead_letter::fingerprint(&self.event_type, &self.error.code, &self.error.message)
    }
}

/// A key that is to be parked. Parked already → [`Fence::Parked`](super::Fence).
#[derive(Clone, Debug, PartialEq)]
pub struct NewParkedKey {
    /// What it is.
    pub scope: KeyScope,
    /// Which.
    pub key: String,
    /// The documents that are to be marked: they lag behind from here on.
    pub documents: Vec<String>,
    /// Why.
    pub failure: EventFailure,
}

/// An event that waits for a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkedReference {
    /// The document.
    pub key: String,
    /// The event.
    pub position: Position,
}

/// What folding locked documents gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// The documents that changed.
    pub documents: Vec<DocumentWrite>,
    /// Events that wait for a document that is parked.
    pub references: Vec<ParkedReference>,
    /// Keys that are parked with this.
    pub parked: Vec<NewParkedKey>,
}

impl From<Vec<DocumentWrite>> for Folded {
    fn from(documents: Vec<DocumentWrite>) -> Self {
        Self { documents, ..Self::default() }
    }
}

/// A step of a replay: some of the events that wait, from the first one on.
#[derive(Clone, Debug)]
pub struct ReplayStep {
    /// The key as it was read: another cursor, another dead letter or none to replay →
    /// [`Fence::Parked`](super::Fence).
    pub key: ParkedKey,
    /// The view.
    pub view: String,
    /// The documents to lock and fold, sorted, each once.
    pub documents: Vec<String>,
    /// The only partition that may feed them (scope `Stream`); `None`: any.
    pub fed_by: Option<Partition>,
    /// The events that are finished with this.
    pub finished: Vec<Position>,
    /// Of a stream: the version of the last of them.
    pub reached: Version,
}

impl ReplayStep {
    /// Where the key's cursor stands afterwards.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(crate) fn cursor(&self) -> i64 {
        match self.key.name.scope {
            KeyScope::Stream => self.finished.last().map_or(self.key.cursor, |last| last.offset.0),
            KeyScope::Document | KeyScope::Instance => {
                self.key.cursor.saturating_add(self.finished.len() as i64)
            }
        }
    }
}

/// What a step of a replay left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayProgress {
    /// More events wait.
    Waiting,
    /// Nothing waits: the key is parked no longer.
    Unparked,
}

/// An event that waits for a parked key.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingEvent {
    /// Its partition.
    pub partition: Partition,
    /// The event.
    pub entry: EventEntry,
}

/// How many keys of a group are parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedCount {
    /// The group.
    pub group: GroupName,
    /// How many.
    pub keys: i64,
}

/// How far a group is in an event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventProgress {
    /// The last offset that the group has finished.
    pub checkpoint: Offset,
    /// The newest offset there is.
    pub head: Offset,
    /// When the first event behind the checkpoint was recorded, if there is one.
    pub waiting_since: Option<Timestamp>,
}

/// Parking, replaying, and looking at what is parked.
#[async_trait]
pub trait ParkedKeys: Send + Sync {
    /// The streams of a partition that are parked in a group, in order; at most `limit`.
    async fn parked_streams(
        &self,
        group: &GroupName,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<StreamId>, StoreError>;

    /// Those of these streams that are parked in a group.
    async fn which_are_parked(
        &self,
        group: &GroupName,
        streams: &[StreamId],
    ) -> Result<Vec<StreamId>, StoreError>;

    /// The parked keys of a group by scope and key, after one of them; at most `limit`.
    async fn parked_keys(
        &self,
        group: &GroupName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError>;

    /// How many keys are parked, by group; groups without any are left out.
    async fn parked_counts(&self) -> Result<Vec<ParkedCount>, StoreError>;

    /// Asks for a replay of the key that a dead letter is about: it is then retrying, what was done
    /// is in the audit, and the group's owner replays. Once only, however many ask.
    async fn ask_for_replay(
        &self,
        dead_letter: DeadLetterId,
        replay: Replay,
        by: &ActedBy,
    ) -> Result<ReplayAsked, StoreError>;

    /// Keys of these groups' partitions whose replay was asked for and has not ended, those that were
    /// parked first in front; at most `limit` of each.
    async fn keys_to_replay(
        &self,
        owned: &[(GroupName, Partition)],
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError>;

    /// Counts in advance that this member begins the next step of a replay; a member counts once in a
    /// row. Answers how many began it before: every step that takes place starts at none. Need not
    /// be on disk when it returns: it must outlive the process, not the machine. A key that is
    /// elsewhere by now → [`Fence::Parked`](super::Fence).
    async fn begin_replay(&self, key: &ParkedKey, member: MemberId) -> Result<i32, StoreError>;

    /// The first events that wait for a parked key, in order; at most `limit`, and bounded by bytes.
    async fn waiting_events(
        &self,
        key: &ParkedKey,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError>;

    /// Folds events that wait into their documents and moves the key's cursor, in one transaction
    /// that holds the key; if nothing waits afterwards, it unparks the key and closes its dead
    /// letter.
    async fn replay(
        &self,
        step: ReplayStep,
        fold: FoldDocuments<'_>,
    ) -> Result<ReplayProgress, StoreError>;

    /// A replay failed: its dead letter is closed, another one is opened, and the key waits for a
    /// person again. A key that is elsewhere by now → [`Fence::Parked`](super::Fence).
    async fn park_again(&self, key: &ParkedKey, failure: EventFailure) -> Result<(), StoreError>;

    /// How far a group is in every partition's event log, and the store's time.
    async fn event_progress(
        &self,
        group: &GroupName,
    ) -> Result<(Timestamp, Vec<EventProgress>), StoreError>;
}
