//! How many entries each group finished, by where they came from.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::message::GroupName;

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

    /// `{"entries": {group: {"broker": n, "log": n}}}`.
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
        serde_json::json!({ "entries": entries })
    }
}
