//! What the executor writes besides outcomes and events when something of a batch failed, came
//! back, or waits.

use crate::{
    dead_letter::DeadLetterId,
    message::{Attempt, CommandId, Failure, Offset, Partition, StreamId, Timestamp},
};

/// A command that is not executed now: it comes back as a new log entry when due.
#[derive(Clone, Debug)]
pub struct SetAside {
    /// The command.
    pub command_id: CommandId,
    /// The partition of its stream.
    pub partition: Partition,
    /// After how many milliseconds, by the store's clock.
    pub delay_ms: i64,
    /// Why: `retry`, `type_unknown_here` …
    pub reason: &'static str,
    /// Which try it comes back for.
    pub attempt: Attempt,
    /// The offset of its first log entry.
    pub first_offset: Option<Offset>,
    /// Which correction of its payload is executed (0: the payload as it was accepted).
    pub edit: i32,
}

/// An attempt that failed.
#[derive(Clone, Debug)]
pub struct NewFailure {
    /// The command.
    pub command_id: CommandId,
    /// The partition of its stream.
    pub partition: Partition,
    /// Which try it was.
    pub attempt: Attempt,
    /// What went wrong.
    pub error: Failure,
    /// After how many milliseconds the next one is due; `None`: there is none.
    pub next_due_ms: Option<i64>,
}

/// A failed attempt, as people see it.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedAttempt {
    /// Which try it was.
    pub attempt: Attempt,
    /// What went wrong.
    pub error: Failure,
    /// When, by the store's clock.
    pub failed_at: Timestamp,
    /// When the next one was due; `None`: there was none.
    pub next_due_at: Option<Timestamp>,
}

/// A command that died, as a dead letter.
#[derive(Clone, Debug)]
pub struct NewDeadLetter {
    /// Names it.
    pub id: DeadLetterId,
    /// The partition of the command's stream.
    pub partition: Partition,
    /// The stream.
    pub stream: StreamId,
    /// The command's wire name.
    pub command_type: String,
    /// The command.
    pub command_id: CommandId,
    /// Its entry in the command log, if it came by one.
    pub offset: Option<Offset>,
    /// What went wrong.
    pub error: Failure,
    /// Finds failures of one cause together.
    pub fingerprint: String,
    /// How often it was tried.
    pub attempts: Attempt,
}

/// What a row of `holds` says of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// It is being retried, was set aside, or is dead: later strict ones of its stream wait.
    Holds,
    /// It waits behind such a one.
    Waits,
    /// It has waited and comes back; until it has ended nothing overtakes it.
    Released,
}

impl HoldState {
    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Holds => 1,
            Self::Waits => 2,
            Self::Released => 3,
        }
    }

    /// The state with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Holds, Self::Waits, Self::Released].into_iter().find(|state| state.code() == code)
    }
}

/// A row of `holds`: a strict command waits while its stream has one with a lower first offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The partition of the stream.
    pub partition: Partition,
    /// The stream.
    pub stream: StreamId,
    /// The offset of the command's first log entry.
    pub first_offset: Offset,
    /// The command.
    pub command_id: CommandId,
    /// What it does.
    pub state: HoldState,
    /// Its next try.
    pub attempt: Attempt,
    /// Which correction of its payload is executed.
    pub edit: i32,
}

/// A row of `holds` that is removed: its command has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LetGo {
    /// The partition of the stream.
    pub partition: Partition,
    /// The stream.
    pub stream: StreamId,
    /// The offset of the command's first log entry.
    pub first_offset: Offset,
}
