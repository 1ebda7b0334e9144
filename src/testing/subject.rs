//! A stream under test: decides one command after the other with the worker's code, and checks on
//! the way what production relies on.

use std::{marker::PhantomData, sync::Arc};

use serde_json::{Value, json};

use super::{
    tree,
    wire::{call, nul_pointers, shown, survives},
    {diff, wire},
};
use crate::{
    domain::{
        Aggregate, AggregateType, CommandFailure, Context, Decided, EncodedEvent, RuleViolation,
        State, StoredEvent, aggregate_type, version_conflict,
    },
    message::{
        Attempt, Batch, CommandEnvelope, CommandId, Failure, Metadata, RawJson, StreamId,
        Timestamp, Version, decode_batch, encode_commands,
    },
};

/// What surrounds one command.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) command_id: CommandId,
    pub(super) metadata: Metadata,
    pub(super) now: Timestamp,
    pub(super) expected_version: Option<Version>,
}

/// How a command ended.
pub(super) enum Ended<A: Aggregate> {
    /// The ingress refuses it.
    Invalid(Vec<RuleViolation>),
    /// The aggregate refused it (with its own error), or the stream is at another version.
    Rejected(Failure, Option<A::Error>),
    /// It failed, and a worker would try it again.
    Retryable(Failure),
    /// A worker would write it off.
    Dead(Failure),
    /// These events happened.
    Succeeded(Happened),
}

pub(super) struct Happened {
    pub(super) events: Vec<EncodedEvent>,
    pub(super) reply: Option<RawJson>,
    /// Folded from the events as they were read back; taken by [`Subject::advance`].
    state: Option<State>,
}

pub(super) struct Subject<A: Aggregate> {
    kind: Arc<dyn AggregateType>,
    pub(super) stream: StreamId,
    pub(super) version: Version,
    state: State,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> Subject<A> {
    pub(super) fn new(stream: StreamId) -> Self {
        let kind = aggregate_type::<A>();
        let state = kind.empty();
        Self { kind, stream, version: Version(0), state, aggregate: PhantomData }
    }

    /// The state as its own type.
    pub(super) fn state(&self) -> Result<&A, String> {
        self.state.get().ok_or_else(|| format!("the state is not one of `{}`", A::TYPE))
    }

    /// The state as a snapshot.
    pub(super) fn snapshot(&self) -> Result<Vec<u8>, String> {
        self.kind.write_state(&self.state).map_err(|error| format!("no snapshot: {error}"))
    }

    /// The same stream, its state read from a snapshot.
    pub(super) fn restored(&self, snapshot: &[u8], version: Version) -> Result<Self, String> {
        let read = call("reading a snapshot", || self.kind.read_state(snapshot))?;
        let state = read.map_err(|error| format!("a snapshot cannot be read back: {error}"))?;
        let (kind, stream) = (self.kind.clone(), self.stream.clone());
        Ok(Self { kind, stream, version, state, aggregate: PhantomData })
    }

    /// Folds a stored event, upcast if it is an old one.
    pub(super) fn fold(&mut self, event: &EncodedEvent) -> Result<(), String> {
        self.state = folded(
            self.kind.as_ref(),
            std::mem::replace(&mut self.state, self.kind.empty()),
            event,
        )?;
        self.version = self.version.next();
        Ok(())
    }

    /// What happened becomes the stream's state.
    pub(super) fn advance(&mut self, happened: &mut Happened) {
        if let Some(state) = happened.state.take() {
            self.state = state;
            self.version = Version(self.version.0 + happened.events.len() as i64);
        }
    }

    /// Decides a command. An error is a promise that the domain breaks.
    pub(super) fn decide(
        &self,
        command: &A::Command,
        around: &Surroundings,
    ) -> Result<Ended<A>, String> {
        let sent = survives(A::TYPE, command).map_err(|error| format!("the command {error}"))?;
        let broken = self.violations(&sent)?;
        if !broken.is_empty() {
            return Ok(Ended::Invalid(broken));
        }
        let envelope = self.delivered(sent, around)?;
        if let Some(conflict) = version_conflict(envelope.expected_version, self.version) {
            return Ok(Ended::Rejected(conflict, None));
        }
        let context = || self.context(around);
        let decide =
            |state: &State| call("`decide`", || self.kind.decide(state, &envelope, &context()));
        let first = match decide(&self.state) {
            Ok(decided) => decided,
            Err(panic) => return Ok(Ended::Dead(dead("handler_panicked", panic))),
        };
        let answer = answer_of(&first);
        let again = |state: &State, why: &str| -> Result<(), String> {
            let second = answer_of(&decide(state)?);
            if second == answer {
                return Ok(());
            }
            Err(format!("{why}:\n{}", diff::json(&answer, &second)))
        };
        again(&self.state, "`decide` is not pure; the same command decided again differs")?;
        let restored = self.restored(&self.snapshot()?, self.version)?;
        again(&restored.state, "the state does not survive a snapshot; after it `decide` differs")?;
        match first {
            Ok(decided) => self.happened(command, around, decided, restored),
            Err(CommandFailure::Rejected(failure)) => {
                let error = self.state()?.decide(command, &context()).err();
                Ok(Ended::Rejected(failure, error))
            }
            Err(CommandFailure::Retryable(failure)) => Ok(Ended::Retryable(failure)),
            Err(CommandFailure::Broken(failure)) => Ok(Ended::Dead(failure)),
            Err(CommandFailure::Unreadable(error)) => {
                Err(format!("a worker cannot read the command: {error}"))
            }
        }
    }

    /// What the ingress refuses.
    fn violations(&self, sent: &EncodedEvent) -> Result<Vec<RuleViolation>, String> {
        let nul = nul_pointers(&sent.data).into_iter().map(|pointer| RuleViolation {
            pointer,
            rule: "no_nul".to_owned(),
            message: "must not hold the character U+0000".to_owned(),
        });
        let broken = self.kind.check(&sent.event_type, &sent.data);
        let broken = broken.map_err(|error| format!("the ingress cannot read it: {error}"))?;
        Ok(nul.chain(broken).collect())
    }

    /// The command as a worker receives it.
    fn delivered(
        &self,
        sent: EncodedEvent,
        around: &Surroundings,
    ) -> Result<CommandEnvelope, String> {
        let envelope = CommandEnvelope {
            id: around.command_id,
            command_type: sent.event_type,
            stream: self.stream.clone(),
            payload: sent.data,
            metadata: around.metadata.clone(),
            expected_version: around.expected_version,
            reply_to: None,
            accepted_at: around.now,
            attempt: Attempt::FIRST,
            first_offset: None,
            edit: 0,
            not_after: None,
            callback_url: None,
        };
        let travelled = encode_commands(&[envelope]).and_then(|bytes| decode_batch(&bytes, true));
        match travelled.map_err(|error| format!("the command cannot travel: {error}"))? {
            Batch::Commands(mut commands) if commands.len() == 1 => Ok(commands.remove(0)),
            other => Err(format!("one command was sent, {other:?} arrived")),
        }
    }

    fn context(&self, around: &Surroundings) -> Context {
        Context::new(
            self.stream.clone(),
            self.version,
            around.command_id,
            around.metadata.clone(),
            around.now,
        )
    }

    /// Checks that what was decided can be stored and gives the same state when it is read back.
    fn happened(
        &self,
        command: &A::Command,
        around: &Surroundings,
        decided: Decided,
        replayed: Self,
    ) -> Result<Ended<A>, String> {
        let typed = self.state()?.decide(command, &self.context(around));
        let typed = typed.map_err(|error| format!("`decide` is not pure: {error}"))?;
        for event in &typed.events {
            survives(A::TYPE, event).map_err(|error| format!("the event {error}"))?;
        }
        let texts = decided.events.iter().map(|event| &event.data).chain(decided.reply.as_ref());
        if let Some(pointer) = texts.flat_map(nul_pointers).next() {
            let message = format!("`{pointer}` holds the character U+0000");
            return Ok(Ended::Dead(dead("unstorable", message)));
        }
        let mut state = replayed.state;
        for event in &decided.events {
            state = folded(self.kind.as_ref(), state, event)?;
        }
        let (kept, read) = (self.kind.write_state(&decided.state), self.kind.write_state(&state));
        let (kept, read) = (kept?, read?);
        if let Some(difference) = tree::difference(&kept, &read) {
            return Err(format!(
                "replaying the stored events gives another state than `decide` and `evolve` did \
                 in memory:\n{difference}"
            ));
        }
        Ok(Ended::Succeeded(Happened {
            events: decided.events,
            reply: decided.reply,
            state: Some(state),
        }))
    }
}

fn folded(
    kind: &dyn AggregateType,
    mut state: State,
    event: &EncodedEvent,
) -> Result<State, String> {
    let stored = StoredEvent {
        event_type: &event.event_type,
        schema_version: event.schema_version,
        data: &event.data,
    };
    let what = format!("folding `{}`", event.event_type);
    call(&what, || kind.evolve(&mut state, &stored))?
        .map_err(|error| format!("a stored event cannot be read: {error}"))?;
    Ok(state)
}

fn dead(code: &str, message: String) -> Failure {
    Failure::new(code, message)
}

/// A decision as data, to compare it with another.
fn answer_of(decided: &Result<Decided, CommandFailure>) -> Value {
    match decided {
        Ok(decided) => json!({
            "events": shown(&decided.events),
            "reply": decided.reply.as_ref().map(RawJson::to_value),
        }),
        Err(CommandFailure::Rejected(failure)) => json!({ "rejected": failure }),
        Err(CommandFailure::Retryable(failure)) => json!({ "retryable": failure }),
        Err(CommandFailure::Broken(failure)) => json!({ "dead": failure }),
        Err(CommandFailure::Unreadable(error)) => json!({ "unreadable": error.to_string() }),
    }
}

impl<A: Aggregate> Ended<A> {
    /// How it ended, in a sentence, for assertions that expected something else.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Invalid(broken) => {
                let lines: Vec<_> = broken.iter().map(violation_line).collect();
                format!("it was refused as invalid:\n{}", lines.join("\n"))
            }
            Self::Rejected(failure, _) => {
                format!("it was rejected: {}: {}", failure.code, failure.message)
            }
            Self::Retryable(failure) => {
                format!("it failed and is tried again: {}: {}", failure.code, failure.message)
            }
            Self::Dead(failure) => format!("it is dead: {}: {}", failure.code, failure.message),
            Self::Succeeded(happened) => {
                format!(
                    "it succeeded with these events:\n{}",
                    diff::pretty(&shown(&happened.events))
                )
            }
        }
    }
}

pub(super) fn violation_line(broken: &RuleViolation) -> String {
    let pointer = if broken.pointer.is_empty() { "(the whole)" } else { &broken.pointer };
    format!("{pointer} {}: {}", broken.rule, broken.message)
}

/// The wire name of a command.
pub(super) fn name_of<A: Aggregate>(command: &A::Command) -> String {
    wire::wire_name(A::TYPE, command)
}
