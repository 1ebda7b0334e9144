//! A command in the log: what was sent, and what all answers together mean.

use std::time::Instant;

use serde_json::Value;

use crate::chaos::clients::Command;

/// By which door a command went in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum Door {
    /// `POST /v1/commands`.
    Http,
    /// The queue of the AMQP intake; accepted means confirmed by the broker.
    Amqp,
}

/// How a command ended, as its resource says.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::chaos) struct Ended {
    /// `succeeded`, `rejected`, ….
    pub status: String,
    /// Where its events stand.
    pub positions: Vec<String>,
    /// The stream's version afterwards.
    pub version: i64,
    /// How many attempts it took.
    pub attempts: i64,
    /// What the aggregate answered; null if there is nothing.
    pub reply: Value,
    /// The code of its error.
    pub code: Option<String>,
}

impl Ended {
    /// Reads a command resource; `None`: it has not ended.
    pub(in crate::chaos) fn of(resource: &Value) -> Option<Self> {
        let outcome = resource.get("outcome")?;
        let positions = outcome["positions"].as_array()?.iter();
        Some(Self {
            status: resource["status"].as_str()?.to_owned(),
            positions: positions.filter_map(|it| it.as_str().map(str::to_owned)).collect(),
            version: outcome["version"].as_i64()?,
            attempts: resource["attempts"].as_i64()?,
            reply: outcome["reply"].clone(),
            code: outcome["error"]["code"].as_str().map(str::to_owned),
        })
    }
}

/// What a client was told about one attempt.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::chaos) enum Told {
    /// It is accepted and will end.
    Accepted,
    /// It has ended, so.
    Ended(Box<Ended>),
    /// Nothing was accepted; why, in the service's words.
    Refused(String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

impl Told {
    /// Whether it is there for good.
    pub(in crate::chaos) fn is_acceptance(&self) -> bool {
        matches!(self, Self::Accepted | Self::Ended(_))
    }
}

/// What all answers together mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum Verdict {
    /// Some attempt was accepted.
    Accepted,
    /// Every attempt was refused.
    Refused,
    /// Neither.
    Unknown,
}

/// A command in the log.
#[derive(Clone, Debug)]
pub(in crate::chaos) struct Entry {
    /// What was sent.
    pub command: Command,
    /// Who sent it.
    pub client: usize,
    /// By which door.
    pub door: Door,
    /// When it was first sent.
    pub sent: Instant,
    /// When it was first told accepted.
    pub accepted: Option<Instant>,
    /// The first answer with an outcome came to whoever sent it.
    pub answered_with_end: bool,
    /// The process that was asked, if it was only one, by its place among the APIs.
    pub asked: Asked,
    pub(super) attempts: u32,
    pub(super) refused: u32,
    /// The endings that answers and lookups showed, and when each was seen first.
    pub shown: Vec<(Instant, Ended)>,
}

/// Who was asked to take a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::chaos) enum Asked {
    /// Nobody yet.
    #[default]
    Nobody,
    /// Always the same.
    One(usize),
    /// One and another.
    Several,
}

impl Asked {
    pub(super) fn and(self, api: usize) -> Self {
        match self {
            Self::Nobody => Self::One(api),
            Self::One(before) if before == api => self,
            _ => Self::Several,
        }
    }
}

impl Entry {
    /// Of a command that nobody was asked to take yet.
    pub(super) fn new(command: Command, client: usize, door: Door) -> Self {
        Self {
            command,
            client,
            door,
            sent: Instant::now(),
            accepted: None,
            answered_with_end: false,
            asked: Asked::default(),
            attempts: 0,
            refused: 0,
            shown: Vec::new(),
        }
    }

    /// What all answers together mean. An attempt without an answer leaves it open.
    pub(in crate::chaos) fn verdict(&self) -> Verdict {
        if self.accepted.is_some() {
            Verdict::Accepted
        } else if self.refused == self.attempts {
            Verdict::Refused
        } else {
            Verdict::Unknown
        }
    }

    /// Somebody saw how it ended.
    pub(super) fn shows(&mut self, ended: Ended) {
        if self.shown.iter().all(|(_, before)| *before != ended) {
            self.shown.push((Instant::now(), ended));
        }
    }
}
