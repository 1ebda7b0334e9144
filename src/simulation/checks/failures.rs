//! What failed was tried, counted and kept: attempts have no gap, every death has one dead letter,
//! what a person did was done once, and nothing waits for nobody.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{super::Evidence, Heard};

pub(super) fn check(evidence: &Evidence, heard: &Heard, violations: &mut Vec<String>) {
    attempts(evidence, violations);
    deaths(evidence, violations);
    actions(evidence, heard, violations);
    for hold in &evidence.holds {
        violations.push(format!("{} is held at the end: {hold:?}", hold.stream));
    }
}

fn attempts(evidence: &Evidence, violations: &mut Vec<String>) {
    let mut failed: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for attempt in &evidence.attempts {
        failed.entry(attempt.command).or_default().push(attempt.attempt);
    }
    for outcome in &evidence.outcomes {
        let failed = failed.remove(&outcome.command).unwrap_or_default();
        // The last attempt of what is dead failed, too; what is cancelled has no other.
        let all_failed = matches!(outcome.status, 3 | 4);
        let count = outcome.attempts - i32::from(!all_failed);
        if failed != (1..=count).collect::<Vec<_>>() {
            violations.push(format!(
                "{}: its outcome (status {}) counts {} attempts; {failed:?} failed",
                outcome.command, outcome.status, outcome.attempts
            ));
        }
    }
    for (command, failed) in failed {
        violations.push(format!("{command} failed ({failed:?}), but has no outcome"));
    }
}

/// A dead letter a death: those that were taken back, and those that still are outcomes.
fn deaths(evidence: &Evidence, violations: &mut Vec<String>) {
    let mut deaths: BTreeMap<(Uuid, i32), u32> = BTreeMap::new();
    for past in &evidence.past_outcomes {
        *deaths.entry((past.command, past.attempts)).or_default() += 1;
    }
    for outcome in evidence.outcomes.iter().filter(|outcome| outcome.status == 3) {
        *deaths.entry((outcome.command, outcome.attempts)).or_default() += 1;
    }
    for letter in evidence.dead_letters.iter().filter(|letter| letter.kind == 1) {
        match deaths.get_mut(&(letter.command, letter.attempts)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => violations.push(format!("dead letter {} is of no death: {letter:?}", letter.id)),
        }
    }
    for ((command, attempts), count) in deaths {
        if count > 0 {
            let text = format!("{command} died after {attempts} attempts without a dead letter");
            violations.push(text);
        }
    }
}

/// Whoever acted on a dead letter did so once, and those who were told so are in the audit.
fn actions(evidence: &Evidence, heard: &Heard, violations: &mut Vec<String>) {
    let mut acted: BTreeMap<Uuid, Vec<&super::super::AuditFact>> = BTreeMap::new();
    for action in &evidence.audit {
        acted.entry(action.dead_letter).or_default().push(action);
    }
    for letter in &evidence.dead_letters {
        let actions = acted.get(&letter.id).map(Vec::as_slice).unwrap_or_default();
        let fits = match (letter.state, actions) {
            // The second one is said below.
            (1, []) | (2, [_]) => true,
            (3, [action]) => action.action.starts_with("retry"),
            (4, [action]) => action.action == "discard",
            _ => false,
        };
        if !fits {
            violations.push(format!("{letter:?} does not fit what was done with it: {actions:?}"));
        }
        if matches!(letter.state, 1 | 2) {
            violations.push(format!("{letter:?} is left at the end"));
        }
    }
    for (letter, who) in &heard.done {
        let actions = acted.get(letter).map(Vec::as_slice).unwrap_or_default();
        if !actions.iter().any(|action| action.who == *who) {
            violations.push(format!("{who} was told to have acted on {letter}: {actions:?}"));
        }
    }
}
