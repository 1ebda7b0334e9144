//! Jobs: retrying or discarding all dead letters that match, or cancelling all commands that match, in
//! the background. Whoever has the role ingress runs them; a job whose owner died is taken over and
//! goes on where it was.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CancelFilter, DeadLetterFilter, Page, StoreError, Walk};
use crate::{
    dead_letter::DeadLetterId,
    message::{CommandId, MemberId, Partition, Timestamp},
};

/// Names a job (UUID version 7: newer ones sort behind older ones).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new one.
    pub fn generate() -> Self {
        Self(crate::chance::new_id())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $code:literal $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$word_doc])* $variant,)+ }

        impl $name {
            /// The number that stands in the database.
            pub fn code(self) -> i16 {
                match self { $(Self::$variant => $code),+ }
            }

            /// The one with this number in the database.
            pub fn from_code(code: i16) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|it| it.code() == code)
            }

            /// The word used in HTTP, metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// What a job does.
    JobAction {
        /// Executes dead letters again.
        Retry = 1 "retry",
        /// Gives dead letters up.
        Discard = 2 "discard",
        /// Calls commands off.
        Cancel = 3 "cancel",
    }
}

words! {
    /// Where a job is in its life.
    JobState {
        /// At work, or waiting for a process that takes it up.
        Running = 1 "running",
        /// Everything that matched was acted on.
        Done = 2 "done",
        /// It gave up, because its canary failed.
        Stopped = 3 "stopped",
        /// Somebody called it off.
        Cancelled = 4 "cancelled",
    }
}

/// What a job acts on: what matches when it is made, nothing that comes later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum JobFilter {
    /// Open dead letters.
    DeadLetters(DeadLetterFilter),
    /// Commands that have not ended.
    Commands(CancelFilter),
}

impl JobFilter {
    /// Of a job over dead letters.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(super) fn dead_letters(&self) -> Result<&DeadLetterFilter, StoreError> {
        match self {
            Self::DeadLetters(filter) => Ok(filter),
            Self::Commands(_) => {
                Err(StoreError::Internal("a job over commands has no dead letters".to_owned()))
            }
        }
    }

    /// As it is stored.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(super) fn parse(action: JobAction, text: &str) -> Result<Self, StoreError> {
        let parsed = match action {
            JobAction::Retry | JobAction::Discard => {
                serde_json::from_str(text).map(Self::DeadLetters)
            }
            JobAction::Cancel => serde_json::from_str(text).map(Self::Commands),
        };
        parsed.map_err(|error| StoreError::Corrupt(format!("the filter of a job: {error}")))
    }
}

/// A job to make.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// What to do.
    pub action: JobAction,
    /// With what.
    pub filter: JobFilter,
    /// At most this many a second.
    pub rate: i32,
    /// This many first; what becomes of them decides about the rest. 0: no canary.
    pub canary: i32,
    /// The share of the canary that may die again.
    pub max_failed_share: f64,
    /// Who asked.
    pub who: String,
    /// Why.
    pub reason: Option<String>,
}

/// What became of a job's canary.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// The commands that were retried first.
    pub commands: Vec<(Partition, CommandId)>,
    /// When they were.
    pub since: Timestamp,
    /// Once it is known how they ended: how many died again.
    pub died_again: Option<i32>,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What was asked for.
    pub asked: NewJob,
    /// Where it is in its life.
    pub state: JobState,
    /// Why it stopped.
    pub note: Option<String>,
    /// The newest letter when it was made.
    pub newest: DeadLetterId,
    /// How many matched when it was made. Of commands not all may have been counted: it grows then.
    pub total: i64,
    /// How many it has acted on.
    pub done: i64,
    /// How many it could not act on: somebody else was first, or it is not possible.
    pub failed: i64,
    /// The last letter that it has dealt with.
    pub cursor: Option<DeadLetterId>,
    /// Where it goes on in its walk over the commands that have not ended.
    pub walk: Option<Walk>,
    /// What became of its canary, once it was sent.
    pub canary: Option<Canary>,
    /// Who works on it.
    pub owner: Option<MemberId>,
    /// The owner's last sign of life.
    pub heartbeat_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Job {
    /// Whether its first letters, whose fate decides about the rest, are still to be sent.
    pub fn needs_canary(&self) -> bool {
        self.asked.action == JobAction::Retry && self.asked.canary > 0 && self.canary.is_none()
    }
}

/// How a job goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobMove {
    /// Its owner lives.
    Alive,
    /// This many of its canary died again, and it goes on.
    CanaryPassed(i32),
    /// It ends. `died_again` is the canary's count, if that is why.
    Ended {
        /// How.
        state: JobState,
        /// Why, for people.
        note: Option<String>,
        /// How many of its canary died again.
        died_again: Option<i32>,
    },
}

/// What a cancellation found.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// It is cancelled, by this call.
    Now(Job),
    /// It had ended before.
    Ended(Job),
}

/// Jobs. What its owner writes is fenced: [`super::Fence::Job`] if it is not the owner any more, or the
/// job was cancelled.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Makes a job over dead letters. What matches is counted, and bounded, here and now.
    async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError>;

    /// Makes a job over commands, which begins with this step of its walk. `total`: how many match, as
    /// far as they were counted.
    async fn create_walking_job(
        &self,
        job: &NewJob,
        walk: &Walk,
        total: i64,
    ) -> Result<Job, StoreError>;

    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Jobs, newest first, from a cursor on.
    async fn jobs(&self, after: Option<&str>, limit: i64) -> Result<Page<Job>, StoreError>;

    /// Calls a job off. What it has done stays done.
    async fn cancel_job(&self, id: JobId) -> Result<Option<Cancelled>, StoreError>;

    /// Takes up a job that nobody works on, or whose owner has been silent for `silent`.
    async fn claim_job(&self, owner: MemberId, silent: Duration)
    -> Result<Option<Job>, StoreError>;

    /// The next letters of a job over dead letters, oldest first: open, matching, behind its cursor, and
    /// there when it was made.
    async fn next_of_job(&self, job: &Job, limit: i64) -> Result<Vec<DeadLetterId>, StoreError>;

    /// The owner says how the job goes on.
    async fn move_job(
        &self,
        id: JobId,
        owner: MemberId,
        job_move: &JobMove,
    ) -> Result<(), StoreError>;
}
