//! What recurring commands need: each is a row that says what is sent, when next, and what was
//! decided and is not sent yet.
//!
//! Whoever fires them decides first, by compare-and-set, which runs are owed, then accepts those
//! commands, then settles. So what is sent never depends on who looked when: a process that stops in
//! between leaves what is owed to the next one, and a run's id makes sending it twice harmless.

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;

use super::{Page, StoreError};
use crate::message::{CommandId, Lane, Metadata, RawJson, StreamId, Timestamp, Version};

/// Names a recurring command: `[a-z0-9][a-z0-9_.-]*`, at most 100 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecurringName(Arc<str>);

/// A text that names no recurring command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a recurring command is named by 1 to 100 of a-z, 0-9, `_`, `.` and `-`, the first a letter or \
     a digit"
)]
pub struct InvalidRecurringName;

impl RecurringName {
    /// The longest, in bytes.
    pub const MAX: usize = 100;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RecurringName {
    type Err = InvalidRecurringName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = text.bytes().all(|b| plain(b) || b"_.-".contains(&b))
            && text.bytes().next().is_some_and(plain)
            && text.len() <= Self::MAX;
        if fits { Ok(Self(text.into())) } else { Err(InvalidRecurringName) }
    }
}

impl fmt::Display for RecurringName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of runs that could not be sent when they were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MissedRuns {
    /// They are left out.
    Skip,
    /// One run, the newest, stands for all of them.
    Once,
    /// Each is sent, up to a limit.
    All,
}

impl MissedRuns {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Once, Self::All];

    /// The word used in HTTP, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }

    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Skip => 1,
            Self::Once => 2,
            Self::All => 3,
        }
    }

    /// The one with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.code() == code)
    }
}

/// Whether a recurring command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecurringState {
    /// It is, when it is due.
    Active,
    /// A person has stopped it. What falls due meanwhile is not made up for.
    Paused,
}

impl RecurringState {
    /// The word used in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
        }
    }

    /// The number that stands in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Active => 1,
            Self::Paused => 2,
        }
    }

    /// The one with this number in the database.
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Active, Self::Paused].into_iter().find(|state| state.code() == code)
    }
}

/// The command that every run sends; it was checked as any command is.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandTemplate {
    /// The wire name.
    pub command_type: String,
    /// The stream.
    pub stream: StreamId,
    /// The payload.
    pub payload: RawJson,
    /// Who asks. Each run adds what caused it.
    pub metadata: Metadata,
    /// Where it is executed.
    pub lane: Lane,
    /// The version that the stream must have.
    pub expected_version: Option<Version>,
}

/// What a person sets.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurringTerms {
    /// When it is due.
    pub cron: String,
    /// By the clocks of which time zone.
    pub time_zone: String,
    /// What becomes of missed runs.
    pub missed_runs: MissedRuns,
    /// What is sent.
    pub command: CommandTemplate,
    /// Whether it is.
    pub state: RecurringState,
}

/// When it is due next, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextDue {
    /// As it was.
    Keep,
    /// Then (`None`: not any more).
    At(Option<Timestamp>),
}

/// Names a recurring command as it was looked at; what is written about another one, or after
/// somebody else has written, has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its name.
    pub name: RecurringName,
    /// When it was made: one that is removed and made again is another one.
    pub created_at: Timestamp,
    /// How often it had been written.
    pub turn: i64,
}

impl Turn {
    /// As it is after the caller has written it.
    #[must_use]
    pub fn next(self) -> Self {
        Self { turn: self.turn + 1, ..self }
    }
}

/// A recurring command.
#[derive(Clone, Debug, PartialEq)]
pub struct RecurringCommand {
    /// Its name, when it was made, and how often it was written.
    pub turn: Turn,
    /// What a person has set.
    pub terms: RecurringTerms,
    /// How often a person has changed it, from 1.
    pub revision: i64,
    /// When it is due next.
    pub next_due_at: Option<Timestamp>,
    /// Runs that were decided and perhaps not sent yet, in order.
    pub owed: Vec<Timestamp>,
    /// How many runs were sent.
    pub runs: i64,
    /// How many due times passed without a run of their own.
    pub missed: i64,
    /// When the newest run was due.
    pub last_due_at: Option<Timestamp>,
    /// Its command.
    pub last_command_id: Option<CommandId>,
    /// Who made it.
    pub created_by: String,
    /// When a person has changed it.
    pub changed_at: Timestamp,
    /// Who has.
    pub changed_by: String,
}

impl RecurringCommand {
    /// Its name.
    pub fn name(&self) -> &RecurringName {
        &self.turn.name
    }
}

/// Those that are due.
#[derive(Clone, Debug, PartialEq)]
pub struct DueRecurring {
    /// The store's time.
    pub now: Timestamp,
    /// The first ones, longest due first.
    pub due: Vec<RecurringCommand>,
    /// When the next one is due that is not yet.
    pub next: Option<Timestamp>,
}

/// What is to be sent of what is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedRuns {
    /// Of whom.
    pub turn: Turn,
    /// The due times of the runs that are owed, in order.
    pub owed: Vec<Timestamp>,
    /// How many due times get no run of their own.
    pub missed: i64,
    /// When it is due next.
    pub next_due_at: Option<Timestamp>,
}

/// Everything that was owed is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRuns {
    /// Of whom.
    pub turn: Turn,
    /// How many runs were sent, now or by whoever was at it before.
    pub runs: i64,
    /// How many could not be.
    pub missed: i64,
    /// The newest run, and its command.
    pub last: Option<(Timestamp, CommandId)>,
}

/// Recurring commands.
#[async_trait]
pub trait Recurring: Send + Sync {
    /// One of them.
    async fn recurring(&self, name: &RecurringName)
    -> Result<Option<RecurringCommand>, StoreError>;

    /// All of them, by name, from a cursor on.
    async fn all_recurring(
        &self,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<RecurringCommand>, StoreError>;

    /// Makes or changes one. `revision` is what the caller has seen: `None`, that there is none.
    /// If that is not so (any more), nothing takes place and the answer is `None`. One that is not
    /// active owes nothing.
    async fn put_recurring(
        &self,
        name: &RecurringName,
        terms: &RecurringTerms,
        next_due: NextDue,
        revision: Option<i64>,
        by: &str,
    ) -> Result<Option<RecurringCommand>, StoreError>;

    /// Removes one (if a revision is named, only at that); answers what it was.
    async fn remove_recurring(
        &self,
        name: &RecurringName,
        revision: Option<i64>,
    ) -> Result<Option<RecurringCommand>, StoreError>;

    /// Active ones that are due or owe a run, but those that the caller passes over.
    async fn due_recurring(
        &self,
        passed_over: &[RecurringName],
        limit: i64,
    ) -> Result<DueRecurring, StoreError>;

    /// Writes down what is owed and when each is due next; whether it was the first to do so. What
    /// is paused or was changed meanwhile stays as it is.
    async fn decide_runs(&self, decided: &[DecidedRuns]) -> Result<Vec<bool>, StoreError>;

    /// Writes down that what was owed is sent; whether it was the first to do so.
    async fn settle_runs(&self, settled: &[SettledRuns]) -> Result<Vec<bool>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_short() {
        let long = "x".repeat(RecurringName::MAX);
        for good in ["a", "0", "nightly", "billing.monthly-eu_1", &long] {
            assert_eq!(good.parse::<RecurringName>().map(|name| name.to_string()), Ok(good.into()));
        }
        for bad in ["", "A", ".a", "-a", "_a", "a b", "a/b", "ä", "a\0", &format!("{long}x")] {
            assert_eq!(bad.parse::<RecurringName>(), Err(InvalidRecurringName), "{bad}");
        }
    }
}
