//! The conditions that every service is watched for, read from the store.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{ConditionSource, NotifySettings, Seen};
use crate::{
    message::GroupName,
    store::{LogKind, Store},
    worker::{BreakerOf, ProcessBreakers},
};

/// How long a member that vanished is told of; its partitions are long taken over by then.
const LOST_UNTIL: Duration = Duration::from_mins(10);
/// The most subjects of one condition.
pub(super) const MOST: i64 = 100;

/// All of them, for these groups. A member is lost after `silent` without a sign of life.
pub fn of_the_store(
    store: &Arc<dyn Store>,
    groups: &[GroupName],
    silent: Duration,
    settings: &NotifySettings,
) -> Vec<Arc<dyn ConditionSource>> {
    vec![
        Arc::new(NewDeadLetters(store.clone())),
        Arc::new(RelayStuck { store: store.clone(), limit: settings.outbox_age }),
        Arc::new(Lag {
            store: store.clone(),
            groups: groups.to_vec(),
            entries: settings.lag_entries,
            age: settings.lag_age,
        }),
        Arc::new(MemberLost { store: store.clone(), silent }),
    ]
}

/// The breakers of this process that let nothing through.
pub struct OpenBreakers {
    /// Those of its command types and of its groups.
    pub breakers: ProcessBreakers,
    /// How the process is called: another one's breakers may be closed.
    pub process: String,
}

#[async_trait]
impl ConditionSource for OpenBreakers {
    fn condition(&self) -> &'static str {
        "breaker_open"
    }

    async fn look(&self) -> Result<Vec<Seen>, String> {
        let process = &self.process;
        let seen = self.breakers.open().into_iter().map(|(of, state)| Seen {
            subject: format!("{of} in {process}"),
            summary: match &of {
                BreakerOf::Type(name) => format!(
                    "commands of type {name} fail for one reason and are suspended in {process}"
                ),
                BreakerOf::Group(group) => format!(
                    "the events of most keys fail for one reason, and group {group} pauses in \
                     {process}"
                ),
            },
            detail: match &of {
                BreakerOf::Type(name) => {
                    json!({ "type": name, "process": process, "state": state.as_str() })
                }
                BreakerOf::Group(group) => {
                    json!({ "group": group, "process": process, "state": state.as_str() })
                }
            },
        });
        Ok(seen.collect())
    }
}

struct NewDeadLetters(Arc<dyn Store>);

#[async_trait]
impl ConditionSource for NewDeadLetters {
    fn condition(&self) -> &'static str {
        "dead_letters"
    }

    async fn look(&self) -> Result<Vec<Seen>, String> {
        let counts = self.0.dead_letter_counts(MOST).await.map_err(|error| error.to_string())?;
        let seen = counts.into_iter().map(|found| Seen {
            summary: format!(
                "{} open dead letters of {}: {}",
                found.count, found.group, found.code
            ),
            detail: json!({ "open": found.count, "group": found.group, "code": found.code }),
            subject: found.fingerprint,
        });
        Ok(seen.collect())
    }
}

struct RelayStuck {
    store: Arc<dyn Store>,
    limit: Duration,
}

#[async_trait]
impl ConditionSource for RelayStuck {
    fn condition(&self) -> &'static str {
        "relay_stuck"
    }

    async fn look(&self) -> Result<Vec<Seen>, String> {
        // One page of rows tells their age as well as all of them.
        let depth = self.store.outbox_depth(1_000).await.map_err(|error| error.to_string())?;
        let age = Duration::from_millis(depth.1.max(0).unsigned_abs());
        if depth.0 == 0 || age <= self.limit {
            return Ok(Vec::new());
        }
        Ok(vec![Seen {
            subject: "outbox".to_owned(),
            summary: format!(
                "the oldest message in the outbox has waited for {} s; no relay runs, or the \
                 broker does not take messages",
                age.as_secs()
            ),
            detail: json!({ "oldest_seconds": age.as_secs(), "limit_seconds": self.limit.as_secs() }),
        }])
    }
}

struct Lag {
    store: Arc<dyn Store>,
    groups: Vec<GroupName>,
    entries: i64,
    age: Duration,
}

#[async_trait]
impl ConditionSource for Lag {
    fn condition(&self) -> &'static str {
        "group_lag"
    }

    async fn look(&self) -> Result<Vec<Seen>, String> {
        let mut seen = Vec::new();
        for group in &self.groups {
            let is_commands = *group == GroupName::commands();
            let log = if is_commands { LogKind::Commands } else { LogKind::Events };
            let lag = self.store.group_lag(group, log).await.map_err(|error| error.to_string())?;
            if lag.entries > self.entries || lag.oldest > self.age {
                seen.push(Seen {
                    subject: group.to_string(),
                    summary: format!(
                        "group {group} is {} entries behind, the oldest of them is {} s old",
                        lag.entries,
                        lag.oldest.as_secs()
                    ),
                    detail: json!({
                        "entries": lag.entries,
                        "oldest_seconds": lag.oldest.as_secs(),
                        "limit_entries": self.entries,
                        "limit_seconds": self.age.as_secs(),
                    }),
                });
            }
        }
        Ok(seen)
    }
}

struct MemberLost {
    store: Arc<dyn Store>,
    silent: Duration,
}

#[async_trait]
impl ConditionSource for MemberLost {
    fn condition(&self) -> &'static str {
        "member_lost"
    }

    async fn look(&self) -> Result<Vec<Seen>, String> {
        let lost = self.store.lost_members(self.silent, LOST_UNTIL, MOST).await;
        let lost = lost.map_err(|error| error.to_string())?;
        let seen = lost.into_iter().map(|member| {
            let roles: Vec<_> = member.roles.iter().map(|role| role.as_str()).collect();
            Seen {
                subject: member.id.to_string(),
                summary: format!(
                    "member {} ({}) vanished without stopping; others take its partitions over",
                    member.name,
                    roles.join(", ")
                ),
                detail: json!({ "name": member.name, "roles": roles, "release": member.release }),
            }
        });
        Ok(seen.collect())
    }
}
