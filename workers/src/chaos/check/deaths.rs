//! Deaths: what must die did, of its own cause and when its time had come; every death has one
//! dead letter; what must not die has none, whatever was killed around it.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{
    Violations,
    failed::{Failed, Letter},
    stored::Stored,
};
use crate::chaos::{
    clients::{Expected, Kind},
    fleet::MOST_ATTEMPTS,
    log::Entry,
};

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    one_letter_each(stored, failed, violations);
    let kinds: HashMap<Uuid, Kind> =
        entries.iter().map(|entry| (entry.command.id, entry.command.kind)).collect();
    let mut first: HashMap<Uuid, &Letter> = HashMap::new();
    for letter in failed.letters.iter().filter(|letter| !letter.is_parked_key()) {
        let kind = kinds.get(&letter.command).copied();
        if !kind.is_some_and(|kind| kind.expected() == Expected::Death) {
            violations.found("died without being meant to", || format!("{kind:?}: {letter:?}"));
        }
        first.entry(letter.command).or_insert(letter);
    }
    for (id, kind) in kinds.iter().filter(|(_, kind)| kind.expected() == Expected::Death) {
        let letter = first.get(id);
        let Some(outcome) = stored.outcome(*id) else { continue };
        // It was called off, or expired, before it could die.
        let was_early = outcome.is_cancelled() && letter.is_none();
        if !was_early && !letter.is_some_and(|letter| is_due(*kind, letter)) {
            violations.found("did not die as it must", || format!("{id} ({kind:?}): {letter:?}"));
        }
    }
}

/// The first death of a command.
fn is_due(kind: Kind, letter: &Letter) -> bool {
    let code = letter.code.as_deref().unwrap_or_default();
    match kind {
        Kind::Fatal | Kind::InOrderFatal => {
            code == "drill_fatal" && letter.attempts <= MOST_ATTEMPTS
        }
        Kind::Aborts => code == "crashed",
        _ => letter.attempts == MOST_ATTEMPTS,
    }
}

/// Those that were taken back, and those that still are outcomes.
fn one_letter_each(stored: &Stored, failed: &Failed, violations: &mut Violations) {
    let mut deaths: BTreeMap<(Uuid, i32), i32> = BTreeMap::new();
    let past = failed.past_deaths.values().flatten().map(|death| (death.command, death.attempts));
    let last = stored.ids().filter_map(|id| {
        stored.outcome(id).filter(|it| it.status == 3).map(|outcome| (id, outcome.attempts))
    });
    for death in past.chain(last) {
        *deaths.entry(death).or_default() += 1;
    }
    for letter in failed.letters.iter().filter(|letter| !letter.is_parked_key()) {
        let left = deaths.entry((letter.command, letter.attempts)).or_default();
        *left -= 1;
        if *left < 0 {
            violations.found("dead letter of no death", || format!("{letter:?}"));
        }
    }
    for ((command, attempts), left) in deaths.into_iter().filter(|(_, left)| *left > 0) {
        violations.found("death without a dead letter", || {
            format!("{command} died after {attempts} attempts: {left} letters are missing")
        });
    }
}
