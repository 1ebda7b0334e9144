//! Order: what a client sent to a stream after it was told that something before was accepted ran
//! later, if both took the queue, or were executed by the process that both were sent to. What it saw
//! end, everything that it sent afterwards came behind. The intake's queue promises no order, so that
//! only what came by HTTP is compared. Strict drills keep their order whatever their lanes; those that
//! succeeded ran as they stand in the command log, whichever door they came by.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use uuid::Uuid;

use super::{
    Violations,
    failed::Failed,
    stored::{Outcome, Record, Stored},
};
use crate::chaos::{
    clients::Lane,
    log::{Asked, Door, Entry},
};

/// Among whom order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Group {
    /// Strict ones.
    Strict,
    /// What took the queue.
    Queued,
    /// What one process executed for itself.
    Process(usize),
}

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    // Entries stand in the order in which they were first sent, and an account belongs to one
    // client, which has its answer before it sends again.
    let mut reached: HashMap<(String, Group), (i64, &Entry)> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.door == Door::Http) {
        let Some((record, outcome)) = decided(entry, stored) else { continue };
        let Some(group) = group(entry, record, failed) else { continue };
        let found_at = outcome.version - i64::from(outcome.events);
        let place = (entry.command.stream(), group);
        if let Some((version, before)) = reached.get(&place)
            && before.accepted.is_some_and(|accepted| accepted <= entry.sent)
            && found_at < *version
        {
            violations.found("order broken", || {
                format!(
                    "{} for {} ({group:?}) found version {found_at}, although {} was accepted \
                     before it was sent and left version {version}",
                    entry.command.id, place.0, before.command.id
                )
            });
        }
        let is_later = reached.get(&place).is_none_or(|(version, _)| outcome.version >= *version);
        // What was not due yet is overtaken.
        let is_due = entry.command.times.not_before.is_none();
        if entry.accepted.is_some() && is_later && is_due {
            reached.insert(place, (outcome.version, entry));
        }
    }
}

/// A dead or cancelled command saw no version.
fn decided<'a>(entry: &Entry, stored: &'a Stored) -> Option<(&'a Record, Outcome)> {
    let outcome = stored.outcome(entry.command.id)?;
    stored.get(entry.command.id).filter(|_| outcome.saw_a_version()).map(|it| (it, outcome))
}

fn group(entry: &Entry, record: &Record, failed: &Failed) -> Option<Group> {
    let (kind, way) = (entry.command.kind, entry.command.way);
    if kind.is_drill() && kind.keeps_order() {
        return Some(Group::Strict);
    }
    // What is not strict is overtaken when an attempt fails, and one may take too long.
    if way.on_both || failed.attempts.contains_key(&entry.command.id) {
        return None;
    }
    match (way.lane, entry.asked) {
        (Lane::Queued, _) if kind.keeps_order() => Some(Group::Queued),
        // What left its process is in the command log.
        (Lane::Immediate | Lane::ImmediateOrQueued, Asked::One(api))
            if record.first_offset.is_none() =>
        {
            Some(Group::Process(api))
        }
        _ => None,
    }
}

/// Whoever saw how a command ended sees everything that he sends afterwards come behind it.
pub(super) fn check_seen(entries: &[Entry], stored: &Stored, violations: &mut Violations) {
    let mut seen: HashMap<String, Vec<(Instant, i64, Uuid)>> = HashMap::new();
    for entry in entries {
        for (at, ended) in &entry.shown {
            if matches!(ended.status.as_str(), "succeeded" | "rejected") {
                let shown = (*at, ended.version, entry.command.id);
                seen.entry(entry.command.stream()).or_default().push(shown);
            }
        }
    }
    for entry in entries {
        let Some((_, outcome)) = decided(entry, stored) else { continue };
        let found_at = outcome.version - i64::from(outcome.events);
        let before = seen.get(&entry.command.stream()).into_iter().flatten();
        let newest = before.filter(|(at, ..)| *at <= entry.sent).max_by_key(|(_, it, _)| *it);
        if let Some((_, version, first)) = newest.filter(|(_, version, _)| found_at < *version) {
            violations.found("decided on an old state", || {
                format!(
                    "{} for {} found version {found_at}, although {first} had been seen to end at \
                     version {version} before it was sent",
                    entry.command.id,
                    entry.command.stream()
                )
            });
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
