//! How many commands and events came by the broker, and how many were read from the log, by what
//! the members say of themselves. The largest number of each member counts, so that members that
//! were killed meanwhile count as well (up to their last heartbeat).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::task::JoinHandle;

use super::{Connection, Target};

/// How often members are asked. Their numbers change with each heartbeat.
const PACE: Duration = Duration::from_millis(500);
/// How long the last heartbeats are waited for.
const LAST_HEARTBEATS: Duration = Duration::from_secs(6);

/// Entries of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// By the broker.
    #[serde(rename(serialize = "from_broker"))]
    pub broker: u64,
    /// Read from the log.
    #[serde(rename(serialize = "from_log"))]
    pub log: u64,
}

type ByGroup = BTreeMap<String, Entries>;

#[derive(Deserialize)]
struct Members {
    items: Vec<Member>,
}

/// The part of a member that is needed.
#[derive(Deserialize)]
struct Member {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(with = "time::serde::rfc3339")]
    heartbeat_at: OffsetDateTime,
    #[serde(default)]
    stats: Stats,
}

#[derive(Default, Deserialize)]
struct Stats {
    #[serde(default)]
    entries: ByGroup,
}

/// Watches what members say.
#[derive(Debug)]
pub struct Sources {
    seen: Arc<Mutex<Seen>>,
    connection: Connection,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    first: HashMap<String, ByGroup>,
    most: HashMap<String, ByGroup>,
    names: HashMap<String, String>,
    began: bool,
}

impl Sources {
    /// Begins to count: what members did before `since` (by the database's clock) does not. Waits
    /// until each has told what that is.
    pub async fn watch(target: &Target, since: OffsetDateTime) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut connection = Connection::new(target);
        let began = Instant::now();
        while look(&mut connection, &seen).await.is_none_or(|oldest| oldest <= since)
            && began.elapsed() < LAST_HEARTBEATS
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lock(&seen).began = true;
        let (watched, mut own) = (seen.clone(), Connection::new(target));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PACE).await;
                look(&mut own, &watched).await;
            }
        });
        Self { seen, connection, task }
    }

    /// Process ids of members on this machine, as far as their names tell (`host/pid`).
    pub fn process_ids(&self) -> Vec<u32> {
        let seen = lock(&self.seen);
        let digits = |name: &String| {
            name.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        seen.names.values().filter_map(digits).collect()
    }

    /// What each group has done since the beginning. Waits for the heartbeats that tell of the last
    /// entries, but not for ever: members that were killed took some numbers with them.
    pub async fn finish(mut self, commands: u64, events: u64) -> ByGroup {
        let began = Instant::now();
        loop {
            look(&mut self.connection, &self.seen).await;
            let entries = lock(&self.seen).entries();
            let told = |group: &str, expected: u64| {
                entries.get(group).is_some_and(|of| of.broker + of.log >= expected)
            };
            let all = told("commands", commands)
                && told("projection.balances", events)
                && told("projection.statements", events);
            if all || began.elapsed() > LAST_HEARTBEATS {
                self.task.abort();
                return entries;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Seen {
    fn member(&mut self, member: Member) {
        if !self.began {
            self.first.insert(member.id.clone(), member.stats.entries.clone());
        }
        let most = self.most.entry(member.id.clone()).or_default();
        for (group, entries) in member.stats.entries {
            let known = most.entry(group).or_default();
            known.broker = known.broker.max(entries.broker);
            known.log = known.log.max(entries.log);
        }
        self.names.insert(member.id, member.name);
    }

    fn entries(&self) -> ByGroup {
        let mut sums = ByGroup::new();
        for (id, groups) in &self.most {
            let first = self.first.get(id);
            for (group, most) in groups {
                let before = first.and_then(|first| first.get(group)).copied().unwrap_or_default();
                let sum = sums.entry(group.clone()).or_default();
                sum.broker += most.broker.saturating_sub(before.broker);
                sum.log += most.log.saturating_sub(before.log);
            }
        }
        sums
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks once; answers the oldest heartbeat. An API that does not answer now does so later, or these
/// numbers stay behind.
async fn look(connection: &mut Connection, seen: &Mutex<Seen>) -> Option<OffsetDateTime> {
    let answer = connection.get("/v1/members").await.ok()?;
    let members = serde_json::from_slice::<Members>(&answer.body).ok()?;
    let oldest = members.items.iter().map(|member| member.heartbeat_at).min();
    let mut seen = lock(seen);
    for member in members.items {
        seen.member(member);
    }
    oldest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, broker: u64) -> Member {
        let entries = ByGroup::from([("commands".to_owned(), Entries { broker, log: 1 })]);
        let heartbeat_at = OffsetDateTime::UNIX_EPOCH;
        let name = format!("host/{broker}");
        Member { id: id.into(), name, heartbeat_at, stats: Stats { entries } }
    }

    #[test]
    fn members_count_from_where_they_were_and_stay_when_they_are_gone() {
        let mut seen = Seen::default();
        seen.member(member("old", 100));
        seen.began = true;
        seen.member(member("old", 130));
        seen.member(member("new", 7)); // gone afterwards
        assert_eq!(seen.entries()["commands"], Entries { broker: 37, log: 1 });
    }
}
