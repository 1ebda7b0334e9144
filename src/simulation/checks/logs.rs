//! Law 4: offsets and versions are 1, 2, 3 … without a gap.

use std::collections::BTreeMap;

use super::super::Evidence;

pub(super) fn check(evidence: &Evidence, violations: &mut Vec<String>) {
    let commands = evidence.command_log.iter().map(|entry| (entry.partition, entry.offset));
    gapless("command log", commands, violations);
    let events = evidence.events.iter().map(|event| (event.partition, event.offset));
    gapless("event log", events, violations);
    // Within a partition the log's order is the streams' order, too.
    let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
    for event in &evidence.events {
        let last = versions.entry(&event.stream).or_default();
        if event.version != *last + 1 {
            violations.push(format!("{}: version {} follows {last}", event.stream, event.version));
        }
        *last = event.version;
    }
}

/// Rows come sorted by partition and offset.
fn gapless(log: &str, rows: impl Iterator<Item = (i16, i64)>, violations: &mut Vec<String>) {
    let mut last = (i16::MIN, 0);
    for (partition, offset) in rows {
        if partition != last.0 {
            last = (partition, 0);
        }
        if offset != last.1 + 1 {
            violations.push(format!("{log} {partition}: offset {offset} follows {}", last.1));
        }
        last.1 = offset;
    }
}
