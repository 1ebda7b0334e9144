//! Attempts: they have no gap, each failed for a reason that its command has, and what succeeded
//! took exactly as many as it wanted. A crash burns none. The machine may be slow, or a process
//! stopped in the middle: an attempt that took too long is one more, and says so.

use super::{
    Violations,
    failed::{Attempt, Failed},
    stored::Stored,
};
use crate::chaos::{
    clients::{Command, Kind},
    log::Entry,
};

/// The code of an attempt that took too long.
const TIMED_OUT: &str = "timed_out";

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    for entry in entries {
        let command = &entry.command;
        let Some(outcome) = stored.outcome(command.id) else { continue };
        let attempts = failed.attempts.get(&command.id).map(Vec::as_slice).unwrap_or_default();
        // Dead or cancelled: every attempt that was made failed.
        let all_failed = matches!(outcome.status, 3 | 4);
        let count = outcome.attempts - i32::from(!all_failed);
        let in_words = || {
            format!(
                "{} ({:?} {}) is {} after {} attempts; failed: {attempts:?}",
                command.id,
                command.kind,
                command.amount,
                outcome.word(),
                outcome.attempts,
            )
        };
        if !attempts.iter().map(|attempt| attempt.number).eq(1..=count) {
            violations.found("attempts with a gap", in_words);
        }
        if attempts.iter().any(|attempt| !fits(command, attempt)) {
            violations.found("failed for a wrong reason", in_words);
        }
        let wanted = i64::from(count) >= fails(command);
        if !all_failed && !wanted && !failed.came_back(command.id) {
            violations.found("succeeded too early", in_words);
        }
    }
}

/// How many attempts of it must fail.
fn fails(command: &Command) -> i64 {
    match command.kind {
        Kind::Flaky | Kind::InOrderFlaky | Kind::Exhausted => command.amount,
        Kind::Fatal | Kind::InOrderFatal | Kind::Aborts => i64::MAX,
        _ => 0,
    }
}

fn fits(command: &Command, attempt: &Attempt) -> bool {
    let code = attempt.code.as_deref().unwrap_or_default();
    let own = match command.kind {
        Kind::Fatal | Kind::InOrderFatal => "drill_fatal",
        Kind::Aborts => "crashed",
        _ if i64::from(attempt.number) <= fails(command) => "drill_fails",
        _ => TIMED_OUT,
    };
    code == own || code == TIMED_OUT
}
