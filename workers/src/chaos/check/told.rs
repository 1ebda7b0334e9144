//! What clients were told: accepted commands are there and have exactly one outcome, which is one
//! that their kind can have, and the one that was answered or looked up; refused ones are not there; of
//! the others, those that are there have ended. Nobody else's commands are there.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    Violations,
    dead_letters::DeadLetters,
    failed::Failed,
    stored::{Outcome, Record, Stored},
};
use crate::chaos::{
    clients::Expected,
    log::{Door, Ended, Entry, Verdict},
};

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    dead_letters: &DeadLetters,
    violations: &mut Violations,
) {
    for entry in entries {
        let id = entry.command.id;
        let in_words =
            || format!("{id} ({} for {})", entry.command.kind.name(), entry.command.stream());
        if entry.command.kind.expected() == Expected::Refusal {
            poison(entry, stored, dead_letters, violations, in_words);
            continue;
        }
        if let Some(reason) = dead_letters.reason(id) {
            violations.found("dead letter without poison", || {
                format!("{} is in the intake's dead letters: {reason}", in_words())
            });
        }
        match (entry.verdict(), stored.get(id)) {
            (Verdict::Accepted, None) => violations.found("accepted command lost", || {
                let by = match entry.door {
                    Door::Http => "by the API",
                    Door::Amqp => "by the broker's confirmation for the intake",
                };
                format!("{} was told accepted ({by}) and is not there", in_words())
            }),
            (Verdict::Refused, Some(_)) => violations.found("refused command executed", || {
                format!("{} was refused, every time, and is there", in_words())
            }),
            (_, Some(record)) => ended(entry, record, failed, violations, in_words),
            (Verdict::Refused | Verdict::Unknown, None) => {}
        }
    }
    strangers(entries, stored, violations);
}

/// By HTTP poison is refused; what the broker took for the intake is among its dead letters.
fn poison(
    entry: &Entry,
    stored: &Stored,
    dead_letters: &DeadLetters,
    violations: &mut Violations,
    in_words: impl Fn() -> String,
) {
    let id = entry.command.id;
    if stored.get(id).is_some() {
        violations.found("poison accepted", || format!("{} is there", in_words()));
    }
    match (entry.door, entry.verdict()) {
        (Door::Http, Verdict::Accepted) => {
            violations.found("poison accepted", || format!("{} was told accepted", in_words()));
        }
        (Door::Amqp, Verdict::Accepted) if dead_letters.reason(id).is_none() => {
            violations.found("poison vanished", || {
                format!("{} was confirmed and is not among the intake's dead letters", in_words())
            });
        }
        _ => {}
    }
}

/// It ended once, as its kind can, with the content that was sent, and as lookups said.
fn ended(
    entry: &Entry,
    record: &Record,
    failed: &Failed,
    violations: &mut Violations,
    in_words: impl Fn() -> String,
) {
    let [outcome] = record.outcomes[..] else {
        return violations.found("not exactly one outcome", || {
            format!("{} has {} outcomes", in_words(), record.outcomes.len())
        });
    };
    let command = &entry.command;
    let came_back = failed.came_back(command.id);
    let fits = match (command.kind.expected(), outcome.status) {
        (Expected::Success | Expected::Either, 1) => outcome.events == 1,
        (Expected::Death, 1) => outcome.events == 1 && came_back,
        (Expected::Death, 3) | (Expected::Rejection | Expected::Either, 2) => outcome.events == 0,
        // Whether somebody called it off, or it was late, is looked at elsewhere.
        (_, 4) => true,
        _ => false,
    };
    if !fits {
        violations.found("wrong outcome", || {
            format!("{}: {} with {} events", in_words(), outcome.word(), outcome.events)
        });
    }
    let times = command.times;
    if record.kind != command.kind.name()
        || record.stream != command.stream()
        || record.payload != command.payload()
        || (record.not_before, record.not_after) != (times.not_before, times.not_after)
    {
        violations.found("other content", || format!("{} is there as {record:?}", in_words()));
    }
    for (_, shown) in &entry.shown {
        // A person may have brought it back since.
        let may_differ = shown.status == "dead" && came_back;
        if !may_differ && !is_same(shown, outcome, record) {
            violations.found("outcome replaced", || {
                format!("{} was shown as {shown:?}, the tables say {record:?}", in_words())
            });
        }
    }
}

/// Whether an ending that was shown is the one that is stored.
fn is_same(shown: &Ended, outcome: Outcome, record: &Record) -> bool {
    let Ended { status, positions, version, attempts, reply, code } = shown;
    status == outcome.word()
        && *version == outcome.version
        && *attempts == i64::from(outcome.attempts)
        && (positions, reply, code)
            == (&record.says.positions, &record.says.reply, &record.says.code)
}

fn strangers(entries: &[Entry], stored: &Stored, violations: &mut Violations) {
    let sent: HashSet<Uuid> = entries.iter().map(|entry| entry.command.id).collect();
    for id in stored.ids().filter(|id| !sent.contains(id)) {
        violations.found("command of nobody", || format!("{id} is there and nobody sent it"));
    }
}
