//! The view of drills: what poisons it is parked, and nothing else; a person went on without each of
//! them, so that it shows how often everything else ran.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::{Violations, failed::Failed, stored::Stored};
use crate::chaos::{clients::Kind, log::Entry};

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    let poisons: HashMap<Uuid, &str> = entries
        .iter()
        .map(|entry| &entry.command)
        .filter(|command| command.kind == Kind::Poisons)
        .map(|command| (command.id, command.account.as_str()))
        .collect();
    let mut parked = HashSet::new();
    for letter in failed.letters.iter().filter(|letter| letter.is_parked_key()) {
        parked.insert(letter.command);
        let is_of_it = poisons.get(&letter.command).is_some_and(|name| letter.key.ends_with(name));
        if !is_of_it {
            violations.found("parked without poison", || format!("{letter:?}"));
        }
    }
    let mut ran: BTreeMap<String, i64> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.command.kind.is_drill()) {
        let command = &entry.command;
        if stored.outcome(command.id).is_none_or(|outcome| outcome.status != 1) {
            continue;
        }
        if command.kind != Kind::Poisons {
            *ran.entry(command.account.clone()).or_default() += 1;
        } else if !parked.contains(&command.id) {
            violations.found("poison was not parked", || format!("{}", command.id));
        }
    }
    let names: HashSet<&String> = ran.keys().chain(failed.drills.keys()).collect();
    for name in names {
        let (ran, shown) = (ran.get(name), failed.drills.get(name));
        if ran != shown {
            violations.found("the view of drills is wrong", || {
                format!("{name}: {ran:?} ran, the view shows {shown:?}")
            });
        }
    }
}
