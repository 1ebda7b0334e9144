//! What people ask about dead letters, and what they do with them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
#[cfg(any(feature = "postgres", feature = "embedded"))]
use uuid::Uuid;

use super::{CommandRecord, FailedAttempt, JobId, Page, StoreError, StoredStreamEvent};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::{
        CommandId, Failure, GroupName, MemberId, Offset, Partition, RawJson, Timestamp, Version,
    },
};

/// Work that a person must look at.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its id; newer ones sort behind older ones.
    pub id: DeadLetterId,
    /// The partition of the log that it is about.
    pub partition: Partition,
    /// What is dead.
    pub kind: DeadLetterKind,
    /// The group in which it died: of commands the executor's, of callbacks [`CALLBACKS`].
    pub group: GroupName,
    /// The stream of the command, the key that is parked, or the host that was to be called back.
    pub key: String,
    /// The wire name of the command, or of the event.
    pub type_name: String,
    /// The command, or the one that caused the event.
    pub command_id: CommandId,
    /// The entry that failed, in its log.
    pub offset: Option<Offset>,
    /// What the last attempt failed with.
    pub error: Failure,
    /// Failures of one cause have one fingerprint.
    pub fingerprint: String,
    /// How many attempts failed.
    pub attempts: i32,
    /// When it died, by the store's clock.
    pub died_at: Timestamp,
    /// What became of it.
    pub state: DeadLetterState,
    /// Since when.
    pub state_at: Timestamp,
}

/// Which dead letters. Everything that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterFilter {
    /// Only of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<DeadLetterKind>,
    /// Only of this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Only of this command or event type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// Only of this stream, parked key or host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only with this error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Only with this fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeadLetterState>,
    /// Only those that died before.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub died_before: Option<Timestamp>,
    /// Only those that died after.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub died_after: Option<Timestamp>,
}

/// Dead letters of one cause.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterGroup {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there are.
    pub letters: i64,
    /// When the first one died.
    pub first_died_at: Timestamp,
    /// When the last one died.
    pub last_died_at: Timestamp,
    /// The newest of them.
    pub example: DeadLetterId,
    /// Its type.
    pub type_name: String,
    /// Its error.
    pub error: Failure,
}

/// An outcome `dead` that a retry took back.
#[derive(Clone, Debug, PartialEq)]
pub struct PastOutcome {
    /// How many attempts there had been.
    pub attempts: i32,
    /// The stream's version then.
    pub version: Version,
    /// Why it was dead.
    pub error: Option<Failure>,
    /// When it died.
    pub completed_at: Timestamp,
    /// When it was retried.
    pub taken_back_at: Timestamp,
}

/// A payload that a person corrected.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandEdit {
    /// Counted 1, 2, 3 …
    pub edit: i32,
    /// The payload.
    pub payload: RawJson,
    /// When.
    pub edited_at: Timestamp,
    /// By whom.
    pub edited_by: String,
}

/// What somebody did with a dead letter. Never changed, never deleted by hand.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// `retry`, `retry_edited` or `discard`.
    pub action: String,
    /// Who.
    pub who: String,
    /// Why.
    pub reason: Option<String>,
    /// The job that did it, if one did.
    pub job: Option<JobId>,
}

/// The group of callbacks' dead letters.
pub const CALLBACKS: &str = "callbacks";

/// A callback that was not taken. Its URL may be a secret, so it is not among what is told.
#[derive(Clone, Debug, PartialEq)]
pub struct CallbackDetails {
    /// `webhook-id`.
    pub id: uuid::Uuid,
    /// Which of the command's ends it tells of: the outcome's attempts.
    pub ended_after: i32,
    /// Since when it is owed.
    pub owed_at: Timestamp,
    /// How often it was tried, over all.
    pub attempts: i32,
    /// What the last try failed with.
    pub error: Option<String>,
}

/// A dead letter with everything that is known of it.
#[derive(Clone, Debug)]
pub struct DeadLetterDetails {
    /// The dead letter.
    pub letter: DeadLetter,
    /// The command as it was accepted; `None`: it is not kept any more.
    pub command: Option<CommandRecord>,
    /// The event that could not be applied, of a parked key.
    pub event: Option<StoredStreamEvent>,
    /// What was to be told, of a callback; `None`: it was delivered or discarded, too.
    pub callback: Option<CallbackDetails>,
    /// The newest payload that a person gave the command.
    pub edit: Option<CommandEdit>,
    /// Attempts that failed, the newest 500, oldest first.
    pub attempts: Vec<FailedAttempt>,
    /// Outcomes that were taken back, the newest 500, oldest first.
    pub past_outcomes: Vec<PastOutcome>,
    /// What people did with it, the newest 500, oldest first.
    pub audit: Vec<AuditEntry>,
}

/// How many rows of each history [`DeadLetterDetails`] holds at most.
#[cfg(any(feature = "postgres", feature = "embedded"))]
pub(super) const MOST_HISTORY: i64 = 500;

/// How many dead letters one call acts on at most.
pub const MOST_ACTED_ON: usize = 500;

/// How many groups are told of at most, the largest ones.
pub const MOST_GROUPS: i64 = 500;

/// A dead command that is to be executed again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRequest {
    /// The dead letter.
    pub id: DeadLetterId,
    /// The payload to execute it with; `None`: the one that it was last executed with.
    pub payload: Option<RawJson>,
}

/// Who acts, and why: what the audit keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct ActedBy {
    /// Who.
    pub who: String,
    /// Why.
    pub reason: Option<String>,
    /// The step of a job that this is; of parked keys and callbacks only the job counts.
    pub job: Option<JobStep>,
}

/// A step of a job: its counts and its cursor move in the transaction of what it did, if the job is
/// still this owner's ([`super::Fence::Job`] otherwise).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobStep {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub owner: MemberId,
    /// The last letter of the step.
    pub cursor: DeadLetterId,
    /// Whether these letters are its canary, whose outcomes it waits for.
    pub canary: bool,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acted {
    /// It was done, now and by this call.
    Done,
    /// There is no such dead letter.
    NotFound,
    /// Somebody was first: it is in this state.
    NotOpen(DeadLetterState),
    /// It is a parked key: its group must be asked, not the command log. Nothing was done.
    ParkedKey,
    /// It is a callback: [`Callbacks`](super::Callbacks) must be asked. Nothing was done.
    Callback,
    /// Its command has no outcome `dead`, or its callback is not kept (any more). Nothing was done.
    NothingToRetry,
}

/// Dead letters. Both actions are compare-and-set on the letter's state: however often, from
/// wherever and by however many they are asked for, one of them is answered with [`Acted::Done`].
/// After [`StoreError::Unknown`] the same may be asked again: what took place is not done twice.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Dead letters, newest first, from a cursor on.
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeadLetter>, StoreError>;

    /// Dead letters by fingerprint, the largest [`MOST_GROUPS`] groups, largest first.
    async fn dead_letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterGroup>, StoreError>;

    /// One, with everything that is known of it.
    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterDetails>, StoreError>;

    /// How many are open, by kind.
    async fn open_dead_letters(&self) -> Result<Vec<(DeadLetterKind, i64)>, StoreError>;

    /// Executes dead commands again: all of it in one transaction, at most [`MOST_ACTED_ON`]. The
    /// outcome `dead` becomes history, the command is due at once, the letter is `retrying`.
    /// Answers in the order of the requests.
    async fn retry_dead_commands(
        &self,
        requests: &[RetryRequest],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError>;

    /// Gives dead commands up: all of it in one transaction, at most [`MOST_ACTED_ON`]. The outcome
    /// stays `dead`, and what waits behind the command goes on. Answers in the order of the ids.
    async fn discard_dead_letters(
        &self,
        ids: &[DeadLetterId],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError>;
}

/// A page of a list in the order of ids, newest first: `{id}` is the cursor.
#[cfg(any(feature = "postgres", feature = "embedded"))]
pub(super) fn id_cursor(after: Option<&str>) -> Result<Uuid, StoreError> {
    let parse = |text: &str| {
        let parsed = text.parse::<Uuid>();
        parsed.map_err(|_| StoreError::Unstorable(format!("`{text}` is no cursor of this list")))
    };
    after.map_or(Ok(Uuid::max()), parse)
}

/// Refuses more than one transaction should do.
#[cfg(any(feature = "postgres", feature = "embedded"))]
pub(super) fn check_size(asked: usize) -> Result<(), StoreError> {
    if asked > MOST_ACTED_ON {
        let text = format!("{asked} dead letters in one call; at most {MOST_ACTED_ON} are allowed");
        return Err(StoreError::Internal(text));
    }
    Ok(())
}
