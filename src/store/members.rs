//! Who runs: the `members` table and its heartbeats, by the store's clock.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::message::{GroupName, MemberId, Timestamp};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Accepts commands and answers queries.
    Ingress,
    /// Publishes the outbox and promotes the schedule.
    Relay,
    /// Executes commands.
    CommandWorker,
    /// Maintains views.
    ProjectionWorker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] =
        [Self::Ingress, Self::Relay, Self::CommandWorker, Self::ProjectionWorker];

    /// The word used in configuration, SQL and HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Relay => "relay",
            Self::CommandWorker => "command-worker",
            Self::ProjectionWorker => "projection-worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no role: use ingress, relay, command-worker, projection-worker or all")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A live process.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its incarnation.
    pub id: MemberId,
    /// Host name and process id, for people.
    pub name: String,
    /// The release it runs.
    pub release: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// The groups it can run (a member of an older release may lack some).
    pub groups: Vec<GroupName>,
    /// It is stopping: it owns nothing any more.
    pub draining: bool,
    /// When it started, by the store's clock.
    pub started_at: Timestamp,
    /// Its last sign of life, by the store's clock.
    pub heartbeat_at: Timestamp,
    /// Counters for people: entries applied by group and source.
    pub stats: serde_json::Value,
}

/// What a member says of itself.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Its incarnation.
    pub id: MemberId,
    /// Host name and process id.
    pub name: String,
    /// The release it runs.
    pub release: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// The groups it can run.
    pub groups: Vec<GroupName>,
    /// It is stopping.
    pub draining: bool,
    /// Counters for people.
    pub stats: serde_json::Value,
}

/// Membership.
#[async_trait]
pub trait Members: Send + Sync {
    /// Writes the heartbeat and answers who is live: all whose heartbeat is younger than `ttl`,
    /// with the store's time.
    async fn heartbeat(
        &self,
        beat: &Heartbeat,
        ttl: Duration,
    ) -> Result<(Timestamp, Vec<Member>), StoreError>;

    /// Who is live, without a heartbeat of one's own.
    async fn live_members(&self, ttl: Duration) -> Result<Vec<Member>, StoreError>;

    /// Tells the other members, by a hint, that something changed.
    async fn notify_members(&self) -> Result<(), StoreError>;

    /// Removes a member that stopped, and those that have been silent for an hour.
    async fn leave(&self, id: MemberId) -> Result<(), StoreError>;
}
