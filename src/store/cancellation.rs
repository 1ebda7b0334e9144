//! Cancelling commands that have not ended. A cancellation is an outcome like every other: the key of
//! the outcomes decides whether it or an execution is first, and the other one has no effect.

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{CommandStatus, JobId, StoreError};
use crate::message::{
    CommandId, Failure, MemberId, Offset, OutcomeStatus, Partition, StreamId, Timestamp,
};

/// How many commands one call cancels at most: it holds the log locks of their partitions.
pub const MOST_CANCELLED: usize = 100;

/// Who calls commands off, and why: what their outcomes say, and what is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct CancelledBy {
    /// Who.
    pub who: String,
    /// Why.
    pub reason: Option<String>,
    /// The step of a job that this is.
    pub job: Option<CancelStep>,
}

impl CancelledBy {
    /// The error of the outcomes.
    pub fn failure(&self) -> Failure {
        let message = match &self.reason {
            Some(reason) => format!("called off by {}: {reason}", self.who),
            None => format!("called off by {}", self.who),
        };
        Failure::new("cancelled", message)
    }
}

/// A step of a job: its counts and its walk move in the transaction of what it did, if the job is still
/// this owner's ([`super::Fence::Job`] otherwise).
#[derive(Clone, Debug, PartialEq)]
pub struct CancelStep {
    /// The job.
    pub id: JobId,
    /// Who works on it.
    pub owner: MemberId,
    /// Where it goes on after this step.
    pub walk: Walk,
}

/// What became of the wish to cancel a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It is cancelled, by this call. None of its attempts had an effect, and there will be none.
    Cancelled {
        /// Its wire name.
        command_type: String,
    },
    /// It had ended before, in this way; a dead one, too.
    AlreadyEnded(OutcomeStatus),
    /// There is no such command.
    NotFound,
}

/// Which commands that have not ended. Everything that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CancelFilter {
    /// Only in this status.
    #[serde(serialize_with = "word", deserialize_with = "status")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CommandStatus>,
    /// Only of this type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub command_type: Option<String>,
    /// Only of this stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// Only those that were accepted before.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub accepted_before: Option<Timestamp>,
    /// Only those that were accepted after.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub accepted_after: Option<Timestamp>,
}

impl CancelFilter {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a command fits, but for its status.
    #[cfg(feature = "http")]
    pub(crate) fn fits(&self, command: &Undecided) -> bool {
        self.command_type.as_ref().is_none_or(|name| *name == command.command_type)
            && self.stream.as_ref().is_none_or(|stream| *stream == command.stream)
            && self.accepted_before.is_none_or(|before| command.accepted_at < before)
            && self.accepted_after.is_none_or(|after| command.accepted_at > after)
    }
}

#[expect(clippy::ref_option, reason = "serde asks for a reference")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn word<S: Serializer>(status: &Option<CommandStatus>, serializer: S) -> Result<S::Ok, S::Error> {
    status.map(CommandStatus::as_str).serialize(serializer)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CommandStatus>, D::Error> {
    let word = Option::<String>::deserialize(deserializer)?;
    word.map(|word| word.parse().map_err(serde::de::Error::custom)).transpose()
}

/// Where commands are that have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// With a process of the immediate lane.
    Held,
    /// Behind an earlier strict command.
    Waiting,
    /// In the schedule: delayed, retried, set aside.
    Scheduled,
    /// In the command log.
    Logged,
}

/// A walk over the commands that have not ended, not over all that ever were. None that was there when
/// it began is missed, though they move meanwhile: whatever moves enters the command log on its way,
/// the log is looked at last, and from where it was unfinished when the walk began. But for what a
/// process of the immediate lane claims, once at most: it leaves the schedule for its hands, and may
/// come back to the schedule. So the walk goes to both a second time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// Which partitions, and which entry of their command logs was the last one finished when it began.
    pub logs: Vec<(Partition, Offset)>,
    /// Where it looks next.
    pub at: Whereabouts,
    /// Behind what there: a store's own words.
    pub after: Option<Value>,
    /// Whether it has been in the schedule before. An older release does not know it, and looks once
    /// more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

impl Walk {
    /// A walk through these partitions, whose command logs are finished up to there.
    pub fn through(logs: Vec<(Partition, Offset)>) -> Self {
        Self { logs, at: Whereabouts::Held, after: None, again: false }
    }

    /// The same walk, but it goes nowhere a second time.
    #[cfg(feature = "http")]
    pub(crate) fn without_return(self) -> Self {
        match self.at {
            Whereabouts::Held | Whereabouts::Scheduled if self.again => {
                Self { at: Whereabouts::Logged, after: None, ..self }
            }
            _ => self,
        }
    }

    /// The same walk, further on: behind `last` if there may be more there, else at the next place.
    /// `None`: it is over.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(super) fn further(&self, last: Option<Value>) -> Option<Self> {
        let (at, again) = match (&last, self.at, self.again) {
            (Some(_), at, again) => (at, again),
            (None, Whereabouts::Held, false) => (Whereabouts::Waiting, false),
            (None, Whereabouts::Held, true) => (Whereabouts::Scheduled, true),
            (None, Whereabouts::Waiting, again) => (Whereabouts::Scheduled, again),
            (None, Whereabouts::Scheduled, false) => (Whereabouts::Held, true),
            (None, Whereabouts::Scheduled, true) => (Whereabouts::Logged, true),
            (None, Whereabouts::Logged, _) => return None,
        };
        Some(Self { logs: self.logs.clone(), at, after: last, again })
    }
}

/// A command that has not ended, or had not when the walk began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The partition of its stream.
    pub partition: Partition,
    /// Its id.
    pub id: CommandId,
    /// The wire name.
    pub command_type: String,
    /// The stream.
    pub stream: StreamId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// A page of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedPage {
    /// The commands. One may come twice, and some may have ended.
    pub commands: Vec<Undecided>,
    /// Where the walk goes on; `None`: it is over.
    pub next: Option<Walk>,
}

/// Cancelling.
#[async_trait]
pub trait Cancellation: Send + Sync {
    /// Cancels those of these commands that have not ended, at most [`MOST_CANCELLED`], in one
    /// transaction; answers in the order of `commands`. A command between two attempts is cancelled,
    /// too: nothing of its attempts had an effect. What waits behind it goes on, its reply is sent, and
    /// whoever holds it or executes it just now is fenced.
    async fn cancel_commands(
        &self,
        commands: &[CommandId],
        by: &CancelledBy,
    ) -> Result<Vec<CancelAnswer>, StoreError>;

    /// The next `limit` commands of a walk, at most.
    async fn undecided(&self, walk: &Walk, limit: i64) -> Result<UndecidedPage, StoreError>;
}

/// Refuses what would hold the log locks for too long.
#[cfg(any(feature = "postgres", feature = "embedded"))]
pub(super) fn check_size(commands: usize) -> Result<(), StoreError> {
    if commands <= MOST_CANCELLED {
        return Ok(());
    }
    Err(StoreError::Internal(format!("{commands} commands to cancel; {MOST_CANCELLED} at most")))
}
