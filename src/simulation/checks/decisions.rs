//! Every outcome is what its aggregate decides on the state that its version names, and commands of
//! one stream were decided in the order of their log.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::{CommandFact, EventFact, Evidence, OutcomeFact};
use crate::{
    domain::{
        AggregateType, CommandFailure, Context, Service, State, StoredEvent, version_conflict,
    },
    message::{
        Attempt, CommandEnvelope, CommandId, Failure, Metadata, RawJson, StreamId, Timestamp,
        Version,
    },
};

pub(super) fn check(service: &Service, evidence: &Evidence, violations: &mut Vec<String>) {
    let mut streams: BTreeMap<&str, Vec<&EventFact>> = BTreeMap::new();
    for event in &evidence.events {
        streams.entry(&event.stream).or_default().push(event);
    }
    // What was cancelled was not decided.
    let decided = evidence.outcomes.iter().filter(|outcome| outcome.status != 4);
    let outcomes: BTreeMap<Uuid, _> = decided.map(|it| (it.command, it)).collect();
    let commands: BTreeMap<Uuid, _> = evidence.commands.iter().map(|it| (it.id, it)).collect();
    // The newest correction is what was executed last.
    let edits: BTreeMap<Uuid, &str> =
        evidence.edits.iter().map(|it| (it.command, it.payload.as_str())).collect();
    let mut reached: BTreeMap<&str, i64> = BTreeMap::new();
    // It ended at the last entry of its last try: before, it may have waited or been set aside.
    let mut last: BTreeMap<Uuid, i64> = BTreeMap::new();
    for entry in &evidence.command_log {
        let ended = outcomes.get(&entry.command);
        if ended.is_some_and(|outcome| outcome.attempts == entry.attempt) {
            last.insert(entry.command, entry.offset);
        }
    }
    for entry in &evidence.command_log {
        let (Some(outcome), Some(command)) =
            (outcomes.get(&entry.command), commands.get(&entry.command))
        else {
            continue;
        };
        if last.get(&entry.command) != Some(&entry.offset) {
            continue;
        }
        let reached = reached.entry(&command.stream).or_default();
        if outcome.version < *reached {
            violations.push(format!(
                "{}: {} ended at version {}, after {reached} was reached",
                command.stream, command.id, outcome.version
            ));
        }
        *reached = outcome.version;
    }
    // Those of the immediate lane have no place in a log.
    for outcome in outcomes.values() {
        let Some(command) = commands.get(&outcome.command) else { continue };
        let events = streams.get(command.stream.as_str()).map_or(&[][..], Vec::as_slice);
        let payload = edits.get(&command.id).copied().unwrap_or(&command.payload);
        let decided = decide_again(service, command, payload, outcome, events);
        if let Err(violation) = decided.and_then(|()| was_newest(outcome, events)) {
            violations.push(format!("{} on {}: {violation}", command.id, command.stream));
        }
    }
}

/// The state that it was decided on was the newest one when it ended.
fn was_newest(outcome: &OutcomeFact, events: &[&EventFact]) -> Result<(), String> {
    let is_known = |event: &&&EventFact| event.version <= outcome.version;
    let too_late = events.iter().find(|it| is_known(it) && it.recorded_at > outcome.completed_at);
    let missed = events.iter().find(|it| !is_known(it) && it.recorded_at < outcome.completed_at);
    match too_late.or(missed) {
        Some(event) => Err(format!("it ended as {outcome:?}, but {event:?} was recorded then")),
        None => Ok(()),
    }
}

fn decide_again(
    service: &Service,
    command: &CommandFact,
    payload: &str,
    outcome: &OutcomeFact,
    events: &[&EventFact],
) -> Result<(), String> {
    let registry = service.registry();
    let aggregate = registry
        .aggregate_of_command(&command.command_type)
        .ok_or_else(|| format!("{} is no command", command.command_type))?;
    let before = outcome.version - outcome.events;
    let state = fold(aggregate.as_ref(), events, before)?;
    if let Some(conflict) = version_conflict(command.expected_version.map(Version), Version(before))
    {
        return must_be(2, before, &conflict, outcome);
    }
    let (envelope, context) = surroundings(command, payload, outcome, before)?;
    match aggregate.decide(&state, &envelope, &context) {
        Ok(decided) => {
            let theirs: Vec<_> = decided.events.iter().map(|it| it.data.as_str()).collect();
            let stored: Vec<_> = events
                .iter()
                .filter(|event| event.version > before && event.version <= outcome.version)
                .map(|event| event.data.as_str())
                .collect();
            let reply = decided.reply.as_ref().map(RawJson::as_str);
            if outcome.status != 1 || theirs != stored || reply != outcome.reply.as_deref() {
                return Err(format!(
                    "at version {before} it must succeed with {theirs:?} and {reply:?}, not \
                     {outcome:?} with {stored:?}"
                ));
            }
            Ok(())
        }
        Err(CommandFailure::Rejected(failure)) => must_be(2, before, &failure, outcome),
        Err(CommandFailure::Retryable(failure) | CommandFailure::Broken(failure)) => {
            must_be(3, before, &failure, outcome)
        }
        Err(other) => Err(format!("it cannot be decided again: {other:?}")),
    }
}

/// 2: rejected; 3: dead.
fn must_be(
    status: i16,
    before: i64,
    failure: &Failure,
    outcome: &OutcomeFact,
) -> Result<(), String> {
    let told = outcome.error.as_deref().and_then(|error| serde_json::from_str(error).ok());
    if outcome.status == status && told.as_ref() == Some(failure) {
        return Ok(());
    }
    Err(format!(
        "at version {before} it must end with status {status} and {failure:?}: {outcome:?}"
    ))
}

fn fold(
    aggregate: &dyn AggregateType,
    events: &[&EventFact],
    version: i64,
) -> Result<State, String> {
    let mut state = aggregate.empty();
    for event in events.iter().take_while(|event| event.version <= version) {
        let data = RawJson::from_trusted(event.data.clone());
        let stored = StoredEvent {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: &data,
        };
        aggregate.evolve(&mut state, &stored).map_err(|error| error.to_string())?;
    }
    Ok(state)
}

fn surroundings(
    command: &CommandFact,
    payload: &str,
    outcome: &OutcomeFact,
    before: i64,
) -> Result<(CommandEnvelope, Context), String> {
    let stream: StreamId =
        command.stream.parse().map_err(|error| format!("{}: {error}", command.stream))?;
    let time = |micros: i64| {
        Timestamp::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
            .map_err(|error| error.to_string())
    };
    let id = CommandId(command.id);
    let context = Context::new(
        stream.clone(),
        Version(before),
        id,
        Metadata::default(),
        time(outcome.completed_at)?,
    )
    .at_attempt(Attempt(outcome.attempts));
    let envelope = CommandEnvelope {
        id,
        command_type: command.command_type.clone(),
        stream,
        payload: RawJson::from_trusted(payload.to_owned()),
        metadata: Metadata::default(),
        expected_version: command.expected_version.map(Version),
        reply_to: None,
        accepted_at: time(command.accepted_at)?,
        attempt: Attempt::FIRST,
        first_offset: None,
        edit: 0,
        not_after: None,
        callback_url: None,
    };
    Ok((envelope, context))
}
