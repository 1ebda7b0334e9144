//! How many entries each group finished, by where they came from.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::GroupBreaker;
use crate::{execute::BreakerState, message::GroupName};

/// Under which name the groups stand that pause in the process.
const SUSPENDED: &str = "suspended";

/// How a group's breaker stands in the process of a member, by what that one said of itself; `None`:
/// it is closed.
pub fn suspension<'a>(stats: &'a serde_json::Value, group: &GroupName) -> Option<&'a str> {
    stats.get(SUSPENDED)?.get(group.as_str())?.as_str()
}

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntrySource {
    /// By the road.
    Broker,
    /// Read from the log: a hole, a lost message, or no turn as the active consumer yet.
    Log,
}

/// Counters of one process, shown in its member row. Cheap to clone.
#[derive(Clone, Default)]
pub struct EntryStats {
    groups: Arc<Mutex<BTreeMap<GroupName, Arc<Counts>>>>,
    breakers: Arc<Mutex<Vec<Arc<GroupBreaker>>>>,
}

/// Counters of one group.
#[derive(Default)]
pub(super) struct Counts {
    broker: AtomicU64,
    log: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, source: EntrySource, entries: u64) {
        let count = match source {
            EntrySource::Broker => &self.broker,
            EntrySource::Log => &self.log,
        };
        count.fetch_add(entries, Ordering::Relaxed);
    }
}

impl EntryStats {
    pub(super) fn of(&self, group: &GroupName) -> Arc<Counts> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.entry(group.clone()).or_default().clone()
    }

    /// From now on it is shown when this group pauses.
    pub(crate) fn watch(&self, breaker: Arc<GroupBreaker>) {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner).push(breaker);
    }

    /// `{"entries": {group: {"broker": n, "log": n}}, "suspended": {group: "open"}}`; only groups
    /// that pause are among the latter.
    pub fn to_json(&self) -> serde_json::Value {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let entries: serde_json::Map<_, _> = groups
            .iter()
            .map(|(group, counts)| {
                let broker = counts.broker.load(Ordering::Relaxed);
                let log = counts.log.load(Ordering::Relaxed);
                (group.to_string(), serde_json::json!({ "broker": broker, "log": log }))
            })
            .collect();
        serde_json::json!({ "entries": entries, SUSPENDED: self.suspended() })
    }

    fn suspended(&self) -> serde_json::Map<String, serde_json::Value> {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = breakers.iter().map(|it| (it.group().to_string(), it.state()));
        let paused = standing.filter(|(_, state)| *state != BreakerState::Closed);
        paused.map(|(group, state)| (group, state.as_str().into())).collect()
    }
}
