//! What notification needs: facts about the whole service, the conditions that follow from them, and
//! the messages that tell of them.

use std::time::Duration;

use async_trait::async_trait;

use super::{LogKind, Member, StoreError};
use crate::message::{GroupName, RawJson, Timestamp};

/// The open dead letters of one kind of error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterCount {
    /// Names the kind of error.
    pub fingerprint: String,
    /// How many are open.
    pub count: i64,
    /// The group of one of them.
    pub group: String,
    /// The error code of one of them.
    pub code: String,
}

/// How far a group is behind its log, over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLag {
    /// How many entries it has not finished.
    pub entries: i64,
    /// How old the oldest of them is, by the store's clock.
    pub oldest: Duration,
}

/// A condition that a process sees now.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenCondition {
    /// What it is: `group_lag`, ….
    pub condition: String,
    /// What has it: the group, ….
    pub subject: String,
    /// A sentence for people.
    pub summary: String,
    /// The figures.
    pub detail: RawJson,
}

/// What a process reports of one look at everything.
#[derive(Clone, Debug, Default)]
pub struct ConditionReport {
    /// What it saw.
    pub seen: Vec<SeenCondition>,
    /// The conditions that it could look at; of others it says nothing.
    pub looked_at: Vec<String>,
    /// A condition that nobody has seen for this long is over.
    pub resolve_after: Duration,
    /// One that lasts is told again after this long; `None`: never.
    pub remind_after: Option<Duration>,
    /// Who is told: names of webhooks.
    pub webhooks: Vec<String>,
    /// How long a message gathers changes of one condition before it is due.
    pub gather: Duration,
    /// How far apart messages of one condition to one webhook are due.
    pub apart: Duration,
    /// The most changes that a message carries; more are counted.
    pub most_alerts: i32,
}

/// Whether a condition is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionState {
    /// It is.
    Firing,
    /// It was.
    Resolved,
}

impl ConditionState {
    /// The word used in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// A change that a report brought about; each change is found by one report.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionChange {
    /// What it is.
    pub condition: String,
    /// What has it.
    pub subject: String,
    /// What it is now.
    pub state: ConditionState,
    /// A sentence for people.
    pub summary: String,
    /// The figures.
    pub detail: RawJson,
    /// Since when it fires, or fired.
    pub since: Timestamp,
    /// It was firing and still is; people are reminded.
    pub reminder: bool,
}

/// A message to a webhook, claimed by this process.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedNotification {
    /// Its id, the same at each try.
    pub id: uuid::Uuid,
    /// The condition it tells of.
    pub condition: String,
    /// What it tells: a JSON array of changes.
    pub alerts: RawJson,
    /// How many changes there were; more than in the array if they did not fit.
    pub alert_count: i32,
    /// Which try this is, from 1.
    pub attempts: i32,
    /// The time of the first try.
    pub first_tried_at: Timestamp,
    /// The store's time.
    pub now: Timestamp,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotificationEnd {
    /// It arrived.
    Sent,
    /// It did not; it is due again after this long.
    Again(Duration, String),
    /// It did not, and is not tried any more.
    GivenUp(String),
}

/// Notification.
#[async_trait]
pub trait Notices: Send + Sync {
    /// The open dead letters by fingerprint, most first; at most `limit` fingerprints, of the first
    /// 10,000 dead letters.
    async fn dead_letter_counts(&self, limit: i64) -> Result<Vec<DeadLetterCount>, StoreError>;

    /// How far a group is behind its log.
    async fn group_lag(&self, group: &GroupName, log: LogKind) -> Result<GroupLag, StoreError>;

    /// Members whose last sign of life is at least `silent` and at most `until` ago and that did
    /// not say that they were stopping, the newest first; at most `limit`.
    async fn lost_members(
        &self,
        silent: Duration,
        until: Duration,
        limit: i64,
    ) -> Result<Vec<Member>, StoreError>;

    /// Writes down what a process saw, and, in the same transaction, messages to every webhook of
    /// what changed by it. Returns the changes; no two reports return the same one.
    async fn report_conditions(
        &self,
        report: &ConditionReport,
    ) -> Result<Vec<ConditionChange>, StoreError>;

    /// How many subjects have each condition that is firing.
    async fn firing_conditions(&self) -> Result<Vec<(String, i64)>, StoreError>;

    /// The next message to a webhook that is due, if any, and no more than `per_minute` were tried
    /// in the last minute. It is due again, for anybody, when the lease ends first.
    async fn claim_notification(
        &self,
        webhook: &str,
        per_minute: i32,
        lease: Duration,
    ) -> Result<Option<ClaimedNotification>, StoreError>;

    /// Says how a try ended. `false`: the lease had ended, and another process has taken over.
    async fn end_notification(
        &self,
        id: uuid::Uuid,
        attempt: i32,
        end: NotificationEnd,
    ) -> Result<bool, StoreError>;
}
