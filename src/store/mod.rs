//! The truth. A store keeps commands, logs, outcomes, views and checkpoints, and changes them in
//! coarse transactions: every method is one transaction that either took place or did not, and an
//! error says which of the two, if it is known.
//!
//! The traits are grouped by who uses them; [`Store`] is all of them together.

mod callbacks;
mod cancellation;
mod dead_letters;
mod error;
mod execution;
mod failures;
mod housekeeping;
mod intake;
mod jobs;
mod logs;
mod members;
mod notices;
mod outbox;
#[cfg(any(feature = "postgres", feature = "embedded"))]
mod paging;
mod parking;
mod queries;
mod recurring;
#[cfg(any(feature = "postgres", feature = "embedded"))]
mod stored;
mod suspects;
mod views;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "embedded")]
pub mod sqlite;

pub use callbacks::{
    CallbackAction, CallbackBacklog, CallbackEnd, CallbackHost, Callbacks, ClaimedCallback,
    DeadCallback, MOST_COUNTED, OwedCallback,
};
pub use cancellation::{
    CancelAnswer, CancelFilter, CancelStep, Cancellation, CancelledBy, MOST_CANCELLED, Undecided,
    UndecidedPage, Walk, Whereabouts,
};
pub use dead_letters::{
    Acted, ActedBy, AuditEntry, CALLBACKS, CallbackDetails, CommandEdit, DeadLetter,
    DeadLetterDetails, DeadLetterFilter, DeadLetterGroup, DeadLetters, JobStep, MOST_ACTED_ON,
    MOST_GROUPS, PastOutcome, RetryRequest,
};
pub use error::{Fence, StoreError};
pub use execution::{
    CheckpointMove, CommandCommit, CommittedCommands, DecideAgain, Entering, EventMessage,
    Execution, HeldCommand, LoadedStream, NewEvent, NewOutcome, NewSnapshot, Snapshot, StreamEvent,
};
pub use failures::{FailedAttempt, Hold, HoldState, LetGo, NewDeadLetter, NewFailure, SetAside};
pub use housekeeping::{CommandCursor, EndedRemoved, Housekeeping, Leftover};
pub use intake::{
    Accepted, ClaimedCommand, Intake, NewCommand, Occupied, RejectedMessage, WhenDue,
};
pub use jobs::{
    Canary, Cancelled, Job, JobAction, JobFilter, JobId, JobMove, JobState, Jobs, NewJob,
};
pub use logs::{CommandEntry, Entry, EventEntry, ForeignMessage, Heads, LogKind, Logs};
pub use members::{Heartbeat, Member, Members, Role};
pub use notices::{
    ClaimedNotification, ConditionChange, ConditionReport, ConditionState, DeadLetterCount,
    GroupLag, Notices, NotificationEnd, SeenCondition,
};
pub use outbox::{Outbox, OutboxPage, OutboxRow};
pub use parking::{
    EventFailure, EventProgress, Folded, Generation, KeyName, KeyScope, NewParkedKey, ParkedCount,
    ParkedKey, ParkedKeys, ParkedReference, Replay, ReplayAsked, ReplayProgress, ReplayStep,
    WaitingEvent,
};
pub use queries::{
    CommandFilter, CommandProgress, CommandRecord, CommandStatus, MOST_FAILURES, Page, Queries,
    StoredStreamEvent, UnknownStatus, ViewAt, ViewRecord,
};
pub use recurring::{
    CommandTemplate, DecidedRuns, DueRecurring, InvalidRecurringName, MissedRuns, NextDue,
    Recurring, RecurringCommand, RecurringName, RecurringState, RecurringTerms, SettledRuns, Turn,
};
pub use suspects::{Suspects, Taken};
pub use views::{
    DocumentRow, DocumentWrite, FoldDocuments, FoldRequest, ViewCommit, ViewDocuments, Views,
};

use std::sync::{Arc, atomic::AtomicBool};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    message::{LogId, PartitionCount, Timestamp},
    signals::Signals,
};

/// What hints between processes need.
pub struct HintParts {
    /// The hints of this process.
    pub signals: Signals,
    /// Rings when another process joins, drains or leaves.
    pub members_changed: Arc<Notify>,
    /// Whether another process relays and wants to hear of new outbox rows.
    pub relay_elsewhere: Arc<AtomicBool>,
    /// Ends the passing on.
    pub stop: CancellationToken,
}

/// What was fixed when the database was initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the log; messages of another one are never applied.
    pub log_id: LogId,
    /// How many partitions there are.
    pub partitions: PartitionCount,
}

/// A store: the union of what ingress, executor, relay, workers and operators need.
#[async_trait::async_trait]
pub trait Store:
    Intake
    + Execution
    + Logs
    + Views
    + Outbox
    + Members
    + Queries
    + Suspects
    + DeadLetters
    + Jobs
    + Cancellation
    + ParkedKeys
    + Notices
    + Callbacks
    + Housekeeping
    + Recurring
{
    /// What was fixed when the database was initialised.
    fn identity(&self) -> Identity;

    /// Starts to pass hints between processes, if this store can; nothing depends on them.
    fn pass_hints(self: Arc<Self>, _: HintParts) -> Vec<tokio::task::JoinHandle<()>> {
        Vec::new()
    }

    /// The store's clock. Also the cheapest question that shows that the store answers.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}
