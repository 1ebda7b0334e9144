//! The immediate lane keeps what it says: an outcome that a caller was told is the one that is stored,
//! nothing stays in the hands of a process, and what was sent after an answer runs after it: commands
//! that one process executed for itself, and strict ones whatever their lanes.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::{
    Evidence, OutcomeFact,
    client::{Fate, Sent},
};
use crate::{
    domain::Service,
    message::{Failure, Outcome, RawJson},
};

/// What clients sent, by id.
type All = BTreeMap<Uuid, Sent>;

pub(super) fn check(
    service: &Service,
    evidence: &Evidence,
    sent: &All,
    violations: &mut Vec<String>,
) {
    let outcomes: BTreeMap<Uuid, _> = evidence.outcomes.iter().map(|it| (it.command, it)).collect();
    for id in &evidence.immediate {
        violations.push(format!("{id} is held by a process at the end"));
    }
    told(evidence, sent, &outcomes, violations);
    let logged: BTreeSet<Uuid> = evidence.command_log.iter().map(|it| it.command).collect();
    let process = |id: &Uuid, sent: &Sent| {
        let only = sent.asked.first().filter(|_| sent.asked.len() == 1);
        only.filter(|_| !logged.contains(id)).cloned()
    };
    order("the lane", sent, &outcomes, process, violations);
    let strict: BTreeSet<Uuid> = evidence
        .commands
        .iter()
        .filter(|command| service.registry().is_strict(&command.command_type))
        .map(|command| command.id)
        .collect();
    let all = |id: &Uuid, _: &Sent| strict.contains(id).then(String::new);
    order("strict commands", sent, &outcomes, all, violations);
}

/// Whoever was told an outcome was told the one that is stored; one that was a death may have been
/// taken back by a person since.
fn told(
    evidence: &Evidence,
    sent: &All,
    outcomes: &BTreeMap<Uuid, &OutcomeFact>,
    violations: &mut Vec<String>,
) {
    let past: BTreeSet<(Uuid, i32)> =
        evidence.past_outcomes.iter().map(|it| (it.command, it.attempts)).collect();
    for (id, sent) in sent {
        let Some(told) = &sent.ended else { continue };
        let is_stored = outcomes.get(id).is_some_and(|stored| is_same(told, stored));
        if !is_stored && !past.contains(&(*id, told.attempts)) {
            let stored = outcomes.get(id);
            violations.push(format!("{id} was told to have ended as {told:?}, not {stored:?}"));
        }
    }
}

fn is_same(told: &Outcome, stored: &OutcomeFact) -> bool {
    let error: Option<Failure> =
        stored.error.as_deref().and_then(|error| serde_json::from_str(error).ok());
    told.status.code() == stored.status
        && told.version.0 == stored.version
        && told.attempts == stored.attempts
        && told.reply.as_ref().map(RawJson::as_str) == stored.reply.as_deref()
        && told.error == error
        && told.positions.first().map(|position| position.offset.0) == stored.first_offset
        && i64::try_from(told.positions.len()) == Ok(stored.events)
        && told.completed_at.unix_timestamp_nanos() / 1_000 == i128::from(stored.completed_at)
}

/// If B was sent after A was answered, both name one stream and both are of one of these groups, A
/// ends first.
fn order(
    what: &str,
    sent: &All,
    outcomes: &BTreeMap<Uuid, &OutcomeFact>,
    group: impl Fn(&Uuid, &Sent) -> Option<String>,
    violations: &mut Vec<String>,
) {
    let mut streams: BTreeMap<(&str, String), Vec<_>> = BTreeMap::new();
    for (id, sent) in sent {
        let (Fate::Accepted(answered), Some(outcome)) = (sent.fate, outcomes.get(id)) else {
            continue;
        };
        // A dead one ended when a person had decided about it.
        let ended = matches!(outcome.status, 1 | 2);
        if ended
            && !sent.delayed
            && let Some(group) = group(id, sent)
        {
            let command = (sent.first_at, answered, *outcome);
            streams.entry((&sent.stream, group)).or_default().push(command);
        }
    }
    for ((stream, _), commands) in streams {
        for (_, answered, first) in &commands {
            let overtakes = |(sent, _, second): &&(u64, u64, &OutcomeFact)| {
                let is_after =
                    first.version <= second.version && first.completed_at <= second.completed_at;
                sent > answered && !is_after
            };
            if let Some((.., second)) = commands.iter().find(overtakes) {
                violations.push(format!(
                    "{stream}: in {what} {} ended before {}, after whose answer it was sent",
                    second.command, first.command
                ));
            }
        }
    }
}
