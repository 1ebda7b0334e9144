//! What the executor needs: loading streams and committing decisions.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;

use super::{
    Hold, LetGo, NewCommand, NewDeadLetter, NewFailure, OwedCallback, SetAside, StoreError,
};
use crate::message::{
    CommandId, Failure, GroupName, MemberId, Metadata, Offset, Outcome, OutcomeStatus, Partition,
    RawJson, ReplyAddress, StreamId, Timestamp, Version,
};

/// The newest snapshot of a stream.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The version it stands for.
    pub version: Version,
    /// The aggregate's `STATE_VERSION` when it was written.
    pub state_version: i16,
    /// The state.
    pub state: Vec<u8>,
}

/// An event of a stream, as replay needs it.
#[derive(Clone, Debug)]
pub struct StreamEvent {
    /// Its place in the stream.
    pub version: Version,
    /// The wire name.
    pub event_type: String,
    /// The schema version of `data`.
    pub schema_version: i16,
    /// The data.
    pub data: RawJson,
}

/// A stream as it was found: snapshot (if it may be used) and the events after it.
#[derive(Clone, Debug)]
pub struct LoadedStream {
    /// The stream.
    pub stream: StreamId,
    /// The newest usable snapshot.
    pub snapshot: Option<Snapshot>,
    /// The events after the snapshot, in order.
    pub events: Vec<StreamEvent>,
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The stream.
    pub stream: StreamId,
    /// Its partition.
    pub partition: Partition,
    /// The version it gets; taken already → [`Fence::StreamVersion`](super::Fence).
    pub version: Version,
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
}

/// An outcome to write.
#[derive(Clone, Debug)]
pub struct NewOutcome {
    /// The command; has an outcome already → [`Fence::Outcome`](super::Fence).
    pub command_id: CommandId,
    /// The partition of its stream.
    pub partition: Partition,
    /// Its entry in the command log, if it came by one; not there →
    /// [`Fence::NotInLog`](super::Fence).
    pub log_offset: Option<Offset>,
    /// How it ended.
    pub status: OutcomeStatus,
    /// The stream on whose state it was decided, at [`Self::version`] if without events; has grown
    /// since → [`Fence::StreamVersion`](super::Fence). `None`: no state was looked at.
    pub decided_on: Option<StreamId>,
    /// How many of the partition's new events are its own. They stand in [`CommandCommit::events`]
    /// in the order of the outcomes.
    pub events: usize,
    /// The stream's version afterwards.
    pub version: Version,
    /// What the aggregate answered.
    pub reply: Option<RawJson>,
    /// Why it did not succeed.
    pub error: Option<Failure>,
    /// How often it was tried.
    pub attempts: i32,
    /// Where a copy of the outcome is sent.
    pub reply_to: Option<ReplyAddress>,
    /// Who is called back.
    pub callback: Option<OwedCallback>,
}

/// An outbox row with events of one partition; the rows of a partition follow its events' order.
#[derive(Clone, Debug)]
pub struct EventMessage {
    /// The partition.
    pub partition: Partition,
    /// How many events it carries.
    pub events: usize,
    /// The encoded batch.
    pub body: Vec<u8>,
}

/// A snapshot to write, replacing the stream's older one.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// The stream.
    pub stream: StreamId,
    /// Its partition.
    pub partition: Partition,
    /// The version it stands for.
    pub version: Version,
    /// The aggregate's `STATE_VERSION`.
    pub state_version: i16,
    /// The state.
    pub state: Vec<u8>,
}

/// Moves a checkpoint by compare-and-set; not at `from` → [`Fence::Checkpoint`](super::Fence).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointMove {
    /// The group.
    pub group: GroupName,
    /// The partition.
    pub partition: Partition,
    /// Where it must be.
    pub from: Offset,
    /// Where it goes.
    pub to: Offset,
}

/// Commands of the immediate lane: the transaction that decides them is also the one that accepts
/// them, or that takes them from the process which held them. Each of them ends in it or is set
/// aside in it.
#[derive(Clone, Debug, Default)]
pub struct Entering {
    /// Accepted here; one that was accepted before → [`Fence::Accepted`](super::Fence).
    pub new: Vec<NewCommand>,
    /// Held since they were accepted; one that is not any more → [`Fence::Held`](super::Fence).
    pub held: Vec<(Partition, CommandId)>,
    /// The streams of strict ones: something of their partitions' command logs is not finished, or
    /// something of them is held → [`Fence::Before`](super::Fence).
    pub strict: Vec<(Partition, StreamId)>,
}

impl Entering {
    /// Whether nothing enters: the commands came by the queue.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.held.is_empty()
    }
}

/// A command that a process of the immediate lane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldCommand {
    /// Its place in the order of acceptance.
    pub place: i64,
    /// The partition of its stream.
    pub partition: Partition,
    /// The command.
    pub id: CommandId,
    /// How long ago it was accepted, by the store's clock, in milliseconds.
    pub age_ms: i64,
}

/// Everything that one transaction of the executor writes.
#[derive(Clone, Debug, Default)]
pub struct CommandCommit {
    /// Commands of the immediate lane that it decides.
    pub entering: Entering,
    /// Events, grouped by nothing, in the order of decision.
    pub events: Vec<NewEvent>,
    /// Outcomes, in the order of decision.
    pub outcomes: Vec<NewOutcome>,
    /// Outbox rows for the events.
    pub messages: Vec<EventMessage>,
    /// Snapshots.
    pub snapshots: Vec<NewSnapshot>,
    /// Commands that come back later; one that has ended meanwhile, or is to wait and has ended →
    /// [`Fence::Outcome`](super::Fence).
    pub set_aside: Vec<SetAside>,
    /// Attempts that failed.
    pub failures: Vec<NewFailure>,
    /// A dead letter for every outcome `dead`.
    pub dead_letters: Vec<NewDeadLetter>,
    /// Commands that end in this transaction by another try than their first: an earlier dead
    /// letter of theirs is resolved.
    pub retried: Vec<(Partition, CommandId)>,
    /// Rows of `holds` to write, over one that is there; nothing holds one that waits →
    /// [`Fence::Holds`](super::Fence).
    pub holds: Vec<Hold>,
    /// Rows of `holds` to remove, before the others are written. What waits for nothing any more
    /// is released: it comes back in order, by the schedule.
    pub let_go: Vec<LetGo>,
    /// Checkpoints of the command group; none in the immediate lane.
    pub checkpoints: Vec<CheckpointMove>,
}

impl CommandCommit {
    /// Whether somebody is to be called back.
    pub(crate) fn owes_callbacks(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.callback.is_some())
    }

    /// Whether the schedule gets rows that are due at once.
    pub(crate) fn schedules_now(&self) -> bool {
        !self.let_go.is_empty() || self.set_aside.iter().any(|aside| aside.delay_ms == 0)
    }

    /// The commands that are to come back or to wait.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(super) fn coming_back(&self) -> impl Iterator<Item = (Partition, CommandId)> + '_ {
        let aside = self.set_aside.iter().map(|aside| (aside.partition, aside.command_id));
        let waits = self.holds.iter().filter(|hold| hold.state == super::HoldState::Waits);
        aside.chain(waits.map(|hold| (hold.partition, hold.command_id)))
    }
}

/// What the transaction fixed.
#[derive(Clone, Debug, Default)]
pub struct CommittedCommands {
    /// For each outcome, in order, the position of its first event (`None`: no events).
    pub first_offsets: Vec<Option<Offset>>,
    /// The time of the events and outcomes, by the store's clock.
    pub recorded_at: Option<Timestamp>,
    /// When the new ones of [`CommandCommit::entering`] were accepted.
    pub accepted_at: Option<Timestamp>,
}

/// Decides on freshly read streams; called under the event-log locks.
pub type DecideAgain<'a> =
    Box<dyn FnOnce(Vec<LoadedStream>) -> Result<CommandCommit, StoreError> + Send + 'a>;

/// Executing.
#[async_trait]
pub trait Execution: Send + Sync {
    /// Loads streams; one that has no event yet is answered empty. Snapshots are returned only if
    /// their state version is the one asked for. Answers in the order of `streams`.
    async fn load_streams(
        &self,
        streams: &[(StreamId, i16)],
    ) -> Result<Vec<LoadedStream>, StoreError>;

    /// Commits decisions that were made on streams as they were loaded or cached.
    async fn commit_commands(&self, commit: CommandCommit)
    -> Result<CommittedCommands, StoreError>;

    /// The second try after [`Fence::StreamVersion`](super::Fence): takes the log locks of all these
    /// partitions (of both logs, for what is decided may change holds), reads the streams, lets
    /// `decide` decide and commits, so that no other writer can come between. What enters must be
    /// known before, for it may wait for others, and log locks come after what can wait (law 4).
    async fn commit_exclusively(
        &self,
        partitions: &BTreeSet<Partition>,
        streams: &[(StreamId, i16)],
        entering: &Entering,
        decide: DecideAgain<'_>,
    ) -> Result<CommittedCommands, StoreError>;

    /// Which of these ids were accepted.
    async fn accepted(&self, commands: &[CommandId]) -> Result<Vec<CommandId>, StoreError>;

    /// What a process of the immediate lane holds for longer than `older_than`, in the order of
    /// acceptance, from behind a place on.
    async fn held_by(
        &self,
        owner: MemberId,
        older_than: Duration,
        after: i64,
        limit: i64,
    ) -> Result<Vec<HeldCommand>, StoreError>;

    /// Lets go of commands that a process holds: they are taken over as those of a process that is
    /// gone.
    async fn let_go_of_held(&self, commands: &[(Partition, CommandId)]) -> Result<(), StoreError>;

    /// Which of these commands a process of the immediate lane holds still.
    async fn held(&self, commands: &[(Partition, CommandId)])
    -> Result<Vec<CommandId>, StoreError>;

    /// The rows of `holds` of these streams.
    async fn holds(&self, streams: &[(Partition, StreamId)]) -> Result<Vec<Hold>, StoreError>;

    /// The outcomes of those commands that have one.
    async fn outcomes(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, Outcome)>, StoreError>;
}
