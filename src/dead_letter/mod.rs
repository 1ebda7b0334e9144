//! Work that a person must look at: a command that is dead, a key that is parked in a group, or a
//! callback that was never taken. What the stores keep of it, and the fingerprint by which failures
//! of one cause are found together.

#[cfg(feature = "http")]
pub(crate) mod act;
mod fingerprint;

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use fingerprint::fingerprint;

/// Names a dead letter (UUID version 7, RFC 9562: newer ones sort behind older ones).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeadLetterId(pub Uuid);

impl DeadLetterId {
    /// A new one.
    pub fn generate() -> Self {
        Self(crate::chance::new_id())
    }
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for DeadLetterId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterKind {
    /// A command: its outcome is `dead`.
    Command,
    /// A key of a group: its events wait from the failing one on.
    ParkedKey,
    /// A callback: it was never taken.
    Callback,
}

impl DeadLetterKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Command, Self::ParkedKey, Self::Callback];

    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Command => 1,
            Self::ParkedKey => 2,
            Self::Callback => 3,
        }
    }

    /// The kind with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The word used in HTTP, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::ParkedKey => "parked_key",
            Self::Callback => "callback",
        }
    }
}

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterState {
    /// Nobody has acted on it yet.
    Open,
    /// A retry was asked for and has not ended.
    Retrying,
    /// A retry has ended, well or not; if it died again, another dead letter says so.
    Resolved,
    /// A person decided that it is not to be done.
    Discarded,
}

impl DeadLetterState {
    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Open => 1,
            Self::Retrying => 2,
            Self::Resolved => 3,
            Self::Discarded => 4,
        }
    }

    /// The state with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Open, Self::Retrying, Self::Resolved, Self::Discarded]
            .into_iter()
            .find(|state| state.code() == code)
    }

    /// The word used in HTTP, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retrying => "retrying",
            Self::Resolved => "resolved",
            Self::Discarded => "discarded",
        }
    }
}
