//! People: whoever was told that it is done finds it in the audit, once; nobody was told that
//! somebody was first when nobody was; in the end every letter is resolved or discarded, as was
//! asked, and what was brought back ended once more.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    Violations,
    failed::{Action, Failed},
    stored::Stored,
};
use crate::chaos::log::Acted;

pub(super) fn check(
    acted: &[Acted],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    let mut actions: HashMap<Uuid, Vec<&Action>> = HashMap::new();
    for action in &failed.actions {
        actions.entry(action.letter).or_default().push(action);
    }
    let of = |letter: Uuid| actions.get(&letter).map(Vec::as_slice).unwrap_or_default();
    for letter in &failed.letters {
        let done = of(letter.id);
        let fits = match (letter.state, done) {
            (3, [action]) => action.word.starts_with("retry"),
            (4, [action]) => action.word == "discard",
            _ => false,
        };
        if !fits {
            violations.found("dead letter not done with once", || format!("{letter:?}: {done:?}"));
        }
        let status = stored.outcome(letter.command).map(|outcome| outcome.status);
        if letter.state == 4 && !letter.is_parked_key() && status != Some(3) {
            violations.found("discarded and not dead", || format!("{letter:?}: {status:?}"));
        }
    }
    for told in acted {
        let done = of(told.letter);
        let is_there = |action: &&&Action| action.reason.as_deref() == Some(&told.reason);
        let fits = if told.done { done.iter().any(|it| is_there(&it)) } else { !done.is_empty() };
        if !fits {
            violations.found("a person was told something else", || format!("{told:?}: {done:?}"));
        }
    }
}
