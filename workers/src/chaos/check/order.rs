//! Order: what a client sent to a stream after it was told that something before was accepted ran
//! later. Each outcome names the stream's version, which counts what ran. The AMQP intake promises
//! no order between its messages, so only what came by HTTP is compared. Of drills only strict ones
//! keep their order, among themselves; those that succeeded ran as they stand in the command log,
//! whichever door they came by.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Violations, failed::Failed, stored::Stored};
use crate::chaos::log::{Door, Entry};

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    // Entries stand in the order in which they were first sent, and an account belongs to one
    // client, which has its answer before it sends again.
    let mut reached: HashMap<String, (i64, &Entry)> = HashMap::new();
    let by_http = entries.iter().filter(|entry| entry.door == Door::Http);
    for entry in by_http.filter(|entry| entry.command.kind.keeps_order()) {
        let Some(outcome) = stored.outcome(entry.command.id) else { continue };
        // An attempt took too long, on a slow machine: what is not strict may be overtaken then.
        if !entry.command.kind.is_drill() && failed.attempts.contains_key(&entry.command.id) {
            continue;
        }
        // A dead or cancelled command saw no version.
        if !matches!(outcome.status, 1 | 2) {
            continue;
        }
        let found_at = outcome.version - i64::from(outcome.events);
        let stream = entry.command.stream();
        if let Some((version, before)) = reached.get(&stream)
            && before.accepted.is_some_and(|accepted| accepted <= entry.sent)
            && found_at < *version
        {
            violations.found("order broken", || {
                format!(
                    "{} for {stream} found version {found_at}, although {} was accepted before \
                     it was sent and left version {version}",
                    entry.command.id, before.command.id
                )
            });
        }
        let is_later = reached.get(&stream).is_none_or(|(version, _)| outcome.version >= *version);
        if entry.accepted.is_some() && is_later {
            reached.insert(stream, (outcome.version, entry));
        }
    }
}

/// In the order of their first entries.
pub(super) fn check_strict(entries: &[Entry], stored: &Stored, violations: &mut Violations) {
    let mut streams: BTreeMap<String, Vec<(i64, i64, Uuid)>> = BTreeMap::new();
    for entry in entries {
        let command = &entry.command;
        let is_strict = command.kind.is_drill() && command.kind.keeps_order();
        let record = stored.get(command.id).filter(|_| is_strict);
        let Some(offset) = record.and_then(|record| record.first_offset) else { continue };
        if let Some(outcome) = stored.outcome(command.id).filter(|outcome| outcome.status == 1) {
            let ran = (offset, outcome.version, command.id);
            streams.entry(command.stream()).or_default().push(ran);
        }
    }
    for (stream, mut ran) in streams {
        ran.sort_unstable();
        for pair in ran.windows(2) {
            let [(before, first, one), (after, second, other)] = pair else { continue };
            if second <= first {
                violations.found("strict order broken", || {
                    format!(
                        "{other} of {stream} (first entry {after}) left version {second}, {one} \
                         (first entry {before}) left version {first}"
                    )
                });
            }
        }
    }
}
