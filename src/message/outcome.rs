//! How a command ended.

use serde::{Deserialize, Serialize};

use super::{Position, RawJson, Timestamp, Version};

/// The four ways in which a command ends. It ends exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeStatus {
    /// The aggregate decided; the events, if any, are in the stream.
    Succeeded,
    /// The aggregate refused: a domain answer, never retried.
    Rejected,
    /// It could not be executed; a person must look at it.
    Dead,
    /// It was called off before it started.
    Cancelled,
}

impl OutcomeStatus {
    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Succeeded => 1,
            Self::Rejected => 2,
            Self::Dead => 3,
            Self::Cancelled => 4,
        }
    }

    /// The status with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Succeeded, Self::Rejected, Self::Dead, Self::Cancelled]
            .into_iter()
            .find(|status| status.code() == code)
    }

    /// The word used in HTTP, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a command was rejected, failed or died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable code for programs, for example `insufficient_funds`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// What caused it, outermost first; empty if nothing is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

impl Failure {
    /// A failure of which no cause is known.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), sources: Vec::new() }
    }
}

/// The end of a command: one row, written in the transaction of its effects.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: OutcomeStatus,
    /// Where its events stand in the event log; empty if it caused none.
    pub positions: Vec<Position>,
    /// The stream's version afterwards.
    pub version: Version,
    /// What the aggregate answered.
    pub reply: Option<RawJson>,
    /// Why it did not succeed.
    pub error: Option<Failure>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it ended, by the store's clock.
    pub completed_at: Timestamp,
}
