//! Strict commands of a stream end in the order in which they entered the log, whatever failed on
//! the way; only what a person discarded is left out.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::Evidence;
use crate::domain::Service;

pub(super) fn check(service: &Service, evidence: &Evidence, violations: &mut Vec<String>) {
    let commands: BTreeMap<Uuid, _> = evidence.commands.iter().map(|it| (it.id, it)).collect();
    let outcomes: BTreeMap<Uuid, _> = evidence.outcomes.iter().map(|it| (it.command, it)).collect();
    let mut first: BTreeMap<Uuid, i64> = BTreeMap::new();
    for entry in &evidence.command_log {
        first.entry(entry.command).or_insert(entry.offset);
    }
    let mut streams: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (id, offset) in &first {
        let (Some(command), Some(outcome)) = (commands.get(id), outcomes.get(id)) else { continue };
        let ended = matches!(outcome.status, 1 | 2);
        if ended && service.registry().is_strict(&command.command_type) {
            streams.entry(&command.stream).or_default().push((*offset, *outcome));
        }
    }
    for (stream, mut ended) in streams {
        ended.sort_by_key(|(offset, _)| *offset);
        for pair in ended.windows(2) {
            let [(before, earlier), (after, later)] = pair else { continue };
            let in_order =
                earlier.version <= later.version && earlier.completed_at <= later.completed_at;
            if !in_order {
                violations.push(format!(
                    "{stream}: strict command {} (first entry {after}) ended before {} (first \
                     entry {before})",
                    later.command, earlier.command
                ));
            }
        }
    }
}
