//! Law 3: every accepted command has one outcome, and exactly the events that its outcome names.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::Evidence;

pub(super) fn check(evidence: &Evidence, violations: &mut Vec<String>) {
    let commands: BTreeMap<Uuid, _> = evidence.commands.iter().map(|it| (it.id, it)).collect();
    let mut ended: BTreeMap<Uuid, usize> = BTreeMap::new();
    for outcome in &evidence.outcomes {
        *ended.entry(outcome.command).or_default() += 1;
        let Some(command) = commands.get(&outcome.command) else {
            violations.push(format!("{} ended, but was never accepted", outcome.command));
            continue;
        };
        if outcome.partition != command.partition {
            violations.push(format!("{} ended in another partition", outcome.command));
        }
        // Whoever calls a command off need not wait for its time.
        let waits = outcome.status != 4;
        if waits && command.not_before.is_some_and(|due| outcome.completed_at < due) {
            violations.push(format!("{} ended before its time", outcome.command));
        }
    }
    for command in &evidence.commands {
        let outcomes = ended.get(&command.id).copied().unwrap_or_default();
        if outcomes != 1 {
            violations.push(format!("{} was accepted and has {outcomes} outcomes", command.id));
        }
    }
    events_of_outcomes(evidence, violations);
    let logged: BTreeSet<Uuid> = evidence.command_log.iter().map(|it| it.command).collect();
    for unknown in logged.iter().filter(|id| !commands.contains_key(id)) {
        violations.push(format!("{unknown} is in the command log, but was never accepted"));
    }
}

fn events_of_outcomes(evidence: &Evidence, violations: &mut Vec<String>) {
    let mut events: BTreeMap<Uuid, Vec<(i16, i64)>> = BTreeMap::new();
    for event in &evidence.events {
        events.entry(event.command).or_default().push((event.partition, event.offset));
    }
    for outcome in &evidence.outcomes {
        let first = outcome.first_offset.unwrap_or_default();
        let named: Vec<(i16, i64)> =
            (0..outcome.events).map(|i| (outcome.partition, first + i)).collect();
        let found = events.remove(&outcome.command).unwrap_or_default();
        if found != named {
            violations.push(format!(
                "{}: its outcome names the events {named:?}, the log has {found:?}",
                outcome.command
            ));
        }
    }
    for (command, found) in events {
        violations.push(format!("{command} has no outcome, but the events {found:?}"));
    }
}
