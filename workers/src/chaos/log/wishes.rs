//! What people and clients asked for besides commands, and were told about it: dead letters that
//! were acted on, commands that were called off.

use std::time::Instant;

use uuid::Uuid;

/// What a person did about a dead letter, and was told about it.
#[derive(Clone, Debug)]
pub(in crate::chaos) struct Acted {
    /// The letter.
    pub letter: Uuid,
    /// `retry` or `discard`.
    pub action: &'static str,
    /// The reason that was given, which is nobody else's.
    pub reason: String,
    /// It was told done.
    pub done: bool,
    /// It was told that somebody was first.
    pub taken: bool,
}

/// What whoever called a command off was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum CancelTold {
    /// It is cancelled, by this wish.
    Cancelled,
    /// It was cancelled before.
    AlreadyCancelled,
    /// It has ended otherwise.
    AlreadyEnded,
    /// There is no such command.
    NotThere,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// Somebody called a command off.
#[derive(Clone, Debug)]
pub(in crate::chaos) struct CalledOff {
    /// The command.
    pub command: Uuid,
    /// The reason that was given, which is no other wish's.
    pub reason: String,
    /// The last answer.
    pub told: CancelTold,
}

/// Somebody called off all commands of a stream that had not ended.
#[derive(Clone, Debug)]
pub(in crate::chaos) struct CalledOffAll {
    /// When.
    pub asked: Instant,
    /// The stream.
    pub stream: String,
    /// The reason that was given, which is no other wish's.
    pub reason: String,
    /// The job, if there was an answer.
    pub job: Option<Uuid>,
}
