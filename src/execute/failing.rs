//! What a batch does with commands that have no outcome now: they are retried, set aside, or wait;
//! and with those that die. The schedule is the only way back (docs/adr/0005).

use std::time::Duration;

use super::batch::{Batch, Looked, Place};
use crate::{
    dead_letter::{DeadLetterId, fingerprint},
    message::{Attempt, Failure, OutcomeStatus},
    store::{Hold, HoldState, LetGo, NewDeadLetter, NewFailure, SetAside},
};

/// The most bytes of a failure's message, and of each of its sources, that are kept.
const MOST_BYTES: usize = 2_000;
/// The most sources that are kept.
const MOST_SOURCES: usize = 10;

impl Batch<'_> {
    /// It failed, and may succeed later: another attempt is scheduled, if there are any left.
    pub(super) fn retry_or_die(&mut self, place: &Place<'_>, failure: Failure) {
        if self.falls_back(place) {
            return;
        }
        let failure = bounded(failure);
        let command = place.command;
        self.tries.push((command.command_type.clone(), Some(fingerprint_of(place, &failure))));
        let schedule = self.known.settings.retry.of(&command.command_type);
        let Some(delay) = schedule.delay_after(command.attempt) else {
            self.die(place, failure, Looked::AtState);
            return;
        };
        tracing::warn!(
            command = %command.id, command_type = command.command_type, stream = %command.stream,
            attempt = command.attempt.0, code = failure.code, ?delay,
            trace_id = command.metadata.trace_id(), "attempt failed: {}", failure.message
        );
        metrics::counter!("adjutant_commands_retried_total", "type" => command.command_type.clone())
            .increment(1);
        self.record(place, failure, Some(millis(delay)));
        let next = command.attempt.next();
        if !planted!(RetryForgotten) {
            self.set_aside(place, "retry", delay, next);
        }
        if self.is_strict(place) {
            self.hold(place, HoldState::Holds, next);
        } else {
            self.let_go(place);
        }
    }

    /// It is dead, by whatever way.
    pub(super) fn die(&mut self, place: &Place<'_>, failure: Failure, looked: Looked) {
        if self.falls_back(place) {
            return;
        }
        let failure = bounded(failure);
        let command = place.command;
        tracing::error!(
            command = %command.id, command_type = command.command_type, stream = %command.stream,
            attempt = command.attempt.0, code = failure.code,
            trace_id = command.metadata.trace_id(), "command is dead: {}", failure.message
        );
        metrics::counter!("adjutant_commands_dead_total", "type" => command.command_type.clone())
            .increment(1);
        self.record(place, failure.clone(), None);
        let letter = NewDeadLetter {
            id: DeadLetterId::generate(),
            partition: place.partition,
            stream: command.stream.clone(),
            command_type: command.command_type.clone(),
            command_id: command.id,
            offset: place.log_offset,
            fingerprint: fingerprint_of(place, &failure),
            error: failure.clone(),
            attempts: command.attempt,
        };
        if !planted!(DeathWithoutLetter) {
            self.commit.dead_letters.push(letter);
        }
        self.end(place, OutcomeStatus::Dead, failure, looked);
        self.resolve_earlier(place);
        // A dead strict command holds its stream until a person has decided about it.
        if self.is_strict(place) {
            self.hold(place, HoldState::Holds, command.attempt.next());
        } else {
            self.let_go(place);
        }
    }

    /// Its deadline is over: it is not started any more.
    pub(super) fn expire(&mut self, place: &Place<'_>) {
        metrics::counter!("adjutant_commands_expired_total", "type" => place.command.command_type.clone())
            .increment(1);
        let message = "its `not_after` had passed before it could be started".to_owned();
        self.end(place, OutcomeStatus::Cancelled, Failure::new("expired", message), Looked::No);
        self.resolve_earlier(place);
        self.let_go(place);
    }

    /// It succeeded or was rejected.
    pub(super) fn went_well(&mut self, place: &Place<'_>) {
        if self.known.admissions.wants_successes() {
            self.tries.push((place.command.command_type.clone(), None));
        }
        self.resolve_earlier(place);
        self.let_go(place);
    }

    /// Nobody here can execute it: it comes back until somebody can.
    pub(super) fn leave_to_others(&mut self, place: &Place<'_>, reason: &'static str, what: &str) {
        tracing::warn!(
            command = %place.command.id, stream = %place.command.stream, reason,
            "command is left for a worker that can execute it: {what}"
        );
        self.set_aside_unchanged(place, reason, self.known.settings.set_aside);
    }

    /// Its type's breaker is open: it comes back later, and no attempt is burnt.
    pub(super) fn suspend(&mut self, place: &Place<'_>, delay: Duration) {
        tracing::debug!(command = %place.command.id, ?delay, "its type's breaker is open");
        self.set_aside_unchanged(place, "breaker_open", delay);
    }

    fn set_aside_unchanged(&mut self, place: &Place<'_>, reason: &'static str, delay: Duration) {
        if self.falls_back(place) {
            return;
        }
        metrics::counter!("adjutant_commands_set_aside_total", "reason" => reason).increment(1);
        self.set_aside(place, reason, delay, place.command.attempt);
        self.hold(place, HoldState::Holds, place.command.attempt);
    }

    fn set_aside(
        &mut self,
        place: &Place<'_>,
        reason: &'static str,
        delay: Duration,
        attempt: Attempt,
    ) {
        self.commit.set_aside.push(SetAside {
            command_id: place.command.id,
            partition: place.partition,
            delay_ms: millis(delay),
            reason,
            attempt,
            first_offset: place.first_offset,
            edit: place.command.edit,
        });
    }

    fn record(&mut self, place: &Place<'_>, error: Failure, next_due_ms: Option<i64>) {
        self.commit.failures.push(NewFailure {
            command_id: place.command.id,
            partition: place.partition,
            attempt: place.command.attempt,
            error,
            next_due_ms,
        });
    }

    /// A command that ends by another try than its first may be the retry of a dead letter.
    fn resolve_earlier(&mut self, place: &Place<'_>) {
        if place.command.attempt > Attempt::FIRST {
            self.commit.retried.push((place.partition, place.command.id));
        }
    }
}

/// The order of strict commands.
impl Batch<'_> {
    fn is_strict(&self, place: &Place<'_>) -> bool {
        self.known.registry.is_strict(&place.command.command_type)
    }

    /// A strict command that did not end at once needs a place in its log, to hold others from
    /// there; one of the immediate lane has none, and goes through the queue instead.
    fn falls_back(&mut self, place: &Place<'_>) -> bool {
        let falls = place.log_offset.is_none() && self.is_strict(place);
        if falls {
            self.fall_back.push(place.command.id);
        }
        falls
    }

    /// Whether an earlier strict command of its stream holds it.
    pub(super) fn must_wait(&self, place: &Place<'_>) -> bool {
        !planted!(StrictIgnored)
            && place.first_offset.is_some_and(|first_offset| {
                self.is_strict(place) && self.holds.holds_up(&place.command.stream, first_offset)
            })
    }

    /// It waits, until what holds it has ended and releases it.
    pub(super) fn wait(&mut self, place: &Place<'_>) {
        tracing::debug!(
            command = %place.command.id, stream = %place.command.stream,
            "waits behind an earlier strict command"
        );
        metrics::counter!("adjutant_commands_waiting_total").increment(1);
        self.hold(place, HoldState::Waits, place.command.attempt);
    }

    /// What held a command that waits may have ended later in this batch: it waits for nobody then,
    /// and comes back as those do that the store releases. Others wait behind it.
    pub(super) fn release(&mut self) {
        for hold in self.commit.holds.iter_mut().filter(|hold| hold.state == HoldState::Waits) {
            if self.holds.holds_up(&hold.stream, hold.first_offset) {
                continue;
            }
            hold.state = HoldState::Released;
            self.commit.set_aside.push(SetAside {
                command_id: hold.command_id,
                partition: hold.partition,
                delay_ms: 0,
                reason: "released",
                attempt: hold.attempt,
                first_offset: Some(hold.first_offset),
                edit: hold.edit,
            });
        }
    }

    fn hold(&mut self, place: &Place<'_>, state: HoldState, attempt: Attempt) {
        let Some(first_offset) = place.first_offset else { return };
        let command = place.command;
        self.holds.set(&command.stream, first_offset, state);
        self.commit.holds.push(Hold {
            partition: place.partition,
            stream: command.stream.clone(),
            first_offset,
            command_id: command.id,
            state,
            attempt,
            edit: command.edit,
        });
    }

    /// It holds nobody any more, if it ever did.
    fn let_go(&mut self, place: &Place<'_>) {
        let Some(first_offset) = place.first_offset else { return };
        let stream = &place.command.stream;
        if self.holds.remove(stream, first_offset) {
            let stream = stream.clone();
            self.commit.let_go.push(LetGo { partition: place.partition, stream, first_offset });
        }
    }
}

fn fingerprint_of(place: &Place<'_>, failure: &Failure) -> String {
    fingerprint(&place.command.command_type, &failure.code, &failure.message)
}

fn millis(delay: Duration) -> i64 {
    i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
}

/// A failure that can be stored, in bounded room: user code writes its texts.
fn bounded(failure: Failure) -> Failure {
    Failure {
        code: text(failure.code),
        message: text(failure.message),
        sources: failure.sources.into_iter().take(MOST_SOURCES).map(text).collect(),
    }
}

fn text(mut text: String) -> String {
    if text.contains('\0') {
        text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > MOST_BYTES {
        let cut = (0..=MOST_BYTES - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_says_is_bounded_and_can_be_stored() {
        let kept = bounded(Failure {
            code: "a\0b".into(),
            message: "ä".repeat(5_000),
            sources: vec!["s".repeat(2_001); 12],
        });
        assert_eq!(kept.code, "a\u{fffd}b");
        assert!(
            kept.message.len() <= MOST_BYTES && kept.message.ends_with("ä…"),
            "{}",
            kept.message
        );
        assert_eq!(kept.sources.len(), 10);
        assert!(kept.sources.iter().all(|source| source.len() == MOST_BYTES));
        let short = Failure::new("code", "message");
        assert_eq!(bounded(short.clone()), short);
    }
}
