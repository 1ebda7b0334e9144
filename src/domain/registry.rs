//! The registered types with their Rust types erased, so that one executor and one partition loop
//! serve them all.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet},
    marker::PhantomData,
    sync::Arc,
};

use super::{
    Aggregate, Context, DecodeError, DomainError, EventRecord, FailureKind, Fold, MessageKind,
    MessageSet, Projection, ProjectionError, RuleViolation, Scope,
};
use crate::message::{CommandEnvelope, Failure, GroupName, RawJson, is_name};

/// The state of some aggregate.
pub struct State(Box<dyn Any + Send + Sync>);

#[cfg(feature = "testing")]
impl State {
    /// The state as its own type; `None` if it is another aggregate's.
    pub(crate) fn get<A: Aggregate>(&self) -> Option<&A> {
        self.0.downcast_ref()
    }
}

/// An event that was decided, ready to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedEvent {
    /// The wire name.
    pub event_type: String,
    /// The schema version of `data`.
    pub schema_version: i16,
    /// The data.
    pub data: RawJson,
}

/// An event as it was read back.
pub struct StoredEvent<'a> {
    /// The wire name.
    pub event_type: &'a str,
    /// The schema version of `data`.
    pub schema_version: i16,
    /// The data.
    pub data: &'a RawJson,
}

/// A decision: what is stored, and the state that follows.
pub struct Decided {
    /// The events, in order.
    pub events: Vec<EncodedEvent>,
    /// The reply, if it is not `null`.
    pub reply: Option<RawJson>,
    /// The state after the events.
    pub state: State,
}

/// Why a command has no decision.
#[derive(Debug)]
pub enum CommandFailure {
    /// The aggregate refused it.
    Rejected(Failure),
    /// The aggregate says that it may succeed later.
    Retryable(Failure),
    /// The aggregate says that it can never succeed, or a reply or event cannot be encoded.
    Broken(Failure),
    /// The payload is not what this release knows by its type: a newer release accepted it.
    Unreadable(DecodeError),
}

/// An aggregate type without its Rust type.
pub trait AggregateType: Send + Sync {
    /// [`Aggregate::TYPE`].
    fn name(&self) -> &'static str;
    /// [`Aggregate::STATE_VERSION`].
    fn state_version(&self) -> i16;
    /// The state of an empty stream.
    fn empty(&self) -> State;
    /// Reads and checks a command's payload: what the ingress refuses.
    fn check(&self, name: &str, payload: &RawJson) -> Result<Vec<RuleViolation>, DecodeError>;
    /// Decides a command.
    fn decide(
        &self,
        state: &State,
        command: &CommandEnvelope,
        context: &Context,
    ) -> Result<Decided, CommandFailure>;
    /// Folds a stored event.
    fn evolve(&self, state: &mut State, event: &StoredEvent<'_>) -> Result<(), DecodeError>;
    /// Decodes a stored event for projections.
    fn decode_event(
        &self,
        event: &StoredEvent<'_>,
    ) -> Result<Box<dyn Any + Send + Sync>, DecodeError>;
    /// Writes the state for a snapshot (MessagePack with field names).
    fn write_state(&self, state: &State) -> Result<Vec<u8>, String>;
    /// Reads a snapshot.
    fn read_state(&self, bytes: &[u8]) -> Result<State, String>;
}

/// A document of some view.
pub struct Document {
    value: Box<dyn Any + Send + Sync>,
}

/// A projection without its Rust type.
pub trait ProjectionType: Send + Sync {
    /// [`Projection::NAME`].
    fn name(&self) -> &'static str;
    /// [`Projection::SCOPE`].
    fn scope(&self) -> Scope;
    /// Whether it wants events of this wire name.
    fn wants(&self, event_type: &str) -> bool;
    /// [`Projection::keys`].
    fn keys(&self, event: &EventRecord) -> Vec<String>;
    /// A document from its stored value (`None`: there is none).
    fn read(&self, value: Option<&RawJson>) -> Result<Document, serde_json::Error>;
    /// [`Projection::apply`].
    fn apply(
        &self,
        key: &str,
        document: &mut Document,
        event: &EventRecord,
    ) -> Result<Fold, ProjectionError>;
    /// The value to store (`None`: deleted).
    fn write(&self, document: &Document) -> Result<Option<RawJson>, serde_json::Error>;
}

/// A message type as `GET /v1/types` shows it.
#[derive(Clone, Debug)]
pub struct TypeDescription {
    /// The wire name.
    pub name: String,
    /// The schema version that is written.
    pub schema_version: i16,
    /// The payload's JSON Schema.
    pub json_schema: serde_json::Value,
    /// Whether it is a command (else an event).
    pub is_command: bool,
    /// Whether later strict commands of a stream wait behind one of this type that failed.
    pub strict: bool,
}

/// Everything that is registered.
#[derive(Default)]
pub struct Registry {
    aggregates: HashMap<&'static str, Arc<dyn AggregateType>>,
    projections: BTreeMap<&'static str, Arc<dyn ProjectionType>>,
    selections: Vec<(&'static str, Vec<String>)>,
    commands: HashMap<String, &'static str>,
    strict: HashSet<String>,
    types: BTreeMap<String, TypeDescription>,
}

impl Registry {
    /// The aggregate type of this name.
    pub fn aggregate(&self, name: &str) -> Option<&Arc<dyn AggregateType>> {
        self.aggregates.get(name)
    }

    /// The aggregate that decides commands of this wire name.
    pub fn aggregate_of_command(&self, wire_name: &str) -> Option<&Arc<dyn AggregateType>> {
        self.aggregates.get(self.commands.get(wire_name)?)
    }

    /// Whether commands of this wire name keep the order of their stream when they fail.
    pub fn is_strict(&self, wire_name: &str) -> bool {
        self.strict.contains(wire_name)
    }

    /// All projections, by name.
    pub fn projections(&self) -> impl Iterator<Item = &Arc<dyn ProjectionType>> {
        self.projections.values()
    }

    /// The projection of this name.
    pub fn projection(&self, name: &str) -> Option<&Arc<dyn ProjectionType>> {
        self.projections.get(name)
    }

    /// The groups that consume the event log.
    pub fn event_groups(&self) -> Vec<GroupName> {
        self.projections.keys().map(|name| GroupName::projection(name)).collect()
    }

    /// All message types, by wire name: what a golden list pins.
    pub fn types(&self) -> impl Iterator<Item = &TypeDescription> {
        self.types.values()
    }

    /// The message type of this wire name.
    pub fn message_type(&self, wire_name: &str) -> Option<&TypeDescription> {
        self.types.get(wire_name)
    }

    /// Decodes an event for projections; `None` if its aggregate is not registered here.
    pub fn decode_event(
        &self,
        event: &StoredEvent<'_>,
    ) -> Result<Option<Box<dyn Any + Send + Sync>>, DecodeError> {
        let aggregate = event.event_type.split_once('.').and_then(|(kind, _)| self.aggregate(kind));
        aggregate.map(|aggregate| aggregate.decode_event(event)).transpose()
    }

    pub(super) fn add_aggregate<A: Aggregate>(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        if !is_name(A::TYPE) {
            errors.push(format!("aggregate type `{}` must match [a-z][a-z0-9_]*", A::TYPE));
        }
        if self.aggregates.insert(A::TYPE, Arc::new(Typed::<A>(PhantomData))).is_some() {
            errors.push(format!("aggregate type `{}` is registered twice", A::TYPE));
        }
        for (kinds, is_command) in [(A::Command::KINDS, true), (A::Event::KINDS, false)] {
            for kind in kinds {
                errors.extend(self.add_message(A::TYPE, kind, is_command));
            }
        }
        errors
    }

    fn add_message(
        &mut self,
        aggregate: &'static str,
        kind: &'static MessageKind,
        is_command: bool,
    ) -> Option<String> {
        let name = format!("{aggregate}.{}", kind.name);
        if !is_name(kind.name) {
            return Some(format!(
                "message name `{}` of {aggregate} must match [a-z][a-z0-9_]*",
                kind.name
            ));
        }
        if is_command {
            self.commands.insert(name.clone(), aggregate);
            if kind.strict {
                self.strict.insert(name.clone());
            }
        }
        let description = TypeDescription {
            name: name.clone(),
            schema_version: kind.schema_version,
            json_schema: (kind.json_schema)(),
            is_command,
            strict: is_command && kind.strict,
        };
        let twice = self.types.insert(name.clone(), description).is_some();
        twice.then(|| format!("wire name `{name}` is declared twice"))
    }

    pub(super) fn add_projection<P: Projection>(&mut self, projection: P) -> Vec<String> {
        let mut errors = Vec::new();
        if !is_name(P::NAME) {
            errors.push(format!("projection name `{}` must match [a-z][a-z0-9_]*", P::NAME));
        }
        let typed = TypedProjection::new(projection);
        let names = typed.projection.events().names().to_vec();
        if names.is_empty() {
            errors.push(format!("projection `{}` wants no events", P::NAME));
        }
        self.selections.push((P::NAME, names));
        if self.projections.insert(P::NAME, Arc::new(typed)).is_some() {
            errors.push(format!("projection `{}` is registered twice", P::NAME));
        }
        errors
    }

    pub(super) fn unknown_selections(&self) -> Vec<String> {
        let unknown = |name: &String| self.types.get(name).is_none_or(|found| found.is_command);
        self.selections
            .iter()
            .flat_map(|(projection, names)| {
                names.iter().filter(|name| unknown(name)).map(move |name| {
                    format!(
                        "projection `{projection}` wants `{name}`, which is no registered event"
                    )
                })
            })
            .collect()
    }
}

/// What a registry keeps for `A`; for the test kit, which has no registry.
#[cfg(feature = "testing")]
pub(crate) fn aggregate_type<A: Aggregate>() -> Arc<dyn AggregateType> {
    Arc::new(Typed::<A>(PhantomData))
}

/// What a registry keeps for `projection`; for the test kit, which has no registry.
#[cfg(feature = "testing")]
pub(crate) fn projection_type<P: Projection>(projection: P) -> Arc<dyn ProjectionType> {
    Arc::new(TypedProjection::new(projection))
}

struct Typed<A>(PhantomData<fn() -> A>);

impl<A: Aggregate> Typed<A> {
    /// A state that is not this aggregate's is a bug in the executor; it reads as an empty stream
    /// nowhere, because states are keyed by stream and a stream names its aggregate.
    fn state(state: &State) -> Result<&A, CommandFailure> {
        state.0.downcast_ref().ok_or_else(|| broken("state_of_another_aggregate", A::TYPE))
    }
}

fn broken(code: &str, message: impl std::fmt::Display) -> CommandFailure {
    CommandFailure::Broken(Failure::new(code, message.to_string()))
}

fn local_name(wire_name: &str) -> &str {
    wire_name.split_once('.').map_or(wire_name, |(_, name)| name)
}

impl<A: Aggregate> AggregateType for Typed<A> {
    fn name(&self) -> &'static str {
        A::TYPE
    }

    fn state_version(&self) -> i16 {
        A::STATE_VERSION
    }

    fn empty(&self) -> State {
        State(Box::new(A::default()))
    }

    fn check(&self, name: &str, payload: &RawJson) -> Result<Vec<RuleViolation>, DecodeError> {
        decode_newest::<A::Command>(name, payload).map(|command| command.violations())
    }

    fn decide(
        &self,
        state: &State,
        command: &CommandEnvelope,
        context: &Context,
    ) -> Result<Decided, CommandFailure> {
        let state = Self::state(state)?;
        let decoded = decode_newest::<A::Command>(&command.command_type, &command.payload)
            .map_err(CommandFailure::Unreadable)?;
        let decision = state.decide(&decoded, context).map_err(|error| {
            let (code, message) = (error.code().to_owned(), error.to_string());
            match error.kind() {
                FailureKind::Rejected => CommandFailure::Rejected(Failure::new(code, message)),
                FailureKind::Retryable => {
                    CommandFailure::Retryable(Failure { code, message, sources: error.sources() })
                }
                FailureKind::Fatal => {
                    CommandFailure::Broken(Failure { code, message, sources: error.sources() })
                }
            }
        })?;
        let mut next = state.clone();
        let mut events = Vec::with_capacity(decision.events.len());
        for event in &decision.events {
            next.evolve(event);
            let kind = event.kind();
            events.push(EncodedEvent {
                event_type: format!("{}.{}", A::TYPE, kind.name),
                schema_version: kind.schema_version,
                data: event.encode().map_err(|error| broken("unencodable_event", error))?,
            });
        }
        let reply =
            RawJson::encode(&decision.reply).map_err(|error| broken("unencodable_reply", error))?;
        let reply = (reply.as_str() != "null").then_some(reply);
        Ok(Decided { events, reply, state: State(Box::new(next)) })
    }

    fn evolve(&self, state: &mut State, event: &StoredEvent<'_>) -> Result<(), DecodeError> {
        let decoded = decode_stored::<A::Event>(event)?;
        if let Some(state) = state.0.downcast_mut::<A>() {
            state.evolve(&decoded);
        }
        Ok(())
    }

    fn decode_event(
        &self,
        event: &StoredEvent<'_>,
    ) -> Result<Box<dyn Any + Send + Sync>, DecodeError> {
        Ok(Box::new(decode_stored::<A::Event>(event)?))
    }

    fn write_state(&self, state: &State) -> Result<Vec<u8>, String> {
        let state = state.0.downcast_ref::<A>().ok_or("state of another aggregate")?;
        rmp_serde::to_vec_named(state).map_err(|error| error.to_string())
    }

    fn read_state(&self, bytes: &[u8]) -> Result<State, String> {
        crate::message::read_all::<A>(bytes)
            .map(|state| State(Box::new(state)))
            .map_err(|error| error.to_string())
    }
}

/// Commands live for minutes, not years: they are always read in the newest schema version.
fn decode_newest<M: MessageSet>(wire_name: &str, payload: &RawJson) -> Result<M, DecodeError> {
    let name = local_name(wire_name);
    let newest =
        M::KINDS.iter().find(|kind| kind.name == name).map_or(1, |kind| kind.schema_version);
    M::decode(name, newest, payload)
}

fn decode_stored<M: MessageSet>(event: &StoredEvent<'_>) -> Result<M, DecodeError> {
    M::decode(local_name(event.event_type), event.schema_version, event.data)
}

struct TypedProjection<P> {
    projection: P,
    wanted: HashSet<String>,
}

impl<P: Projection> TypedProjection<P> {
    fn new(projection: P) -> Self {
        let wanted = projection.events().names().iter().cloned().collect();
        Self { projection, wanted }
    }
}

impl<P: Projection> ProjectionType for TypedProjection<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn scope(&self) -> Scope {
        P::SCOPE
    }

    fn wants(&self, event_type: &str) -> bool {
        self.wanted.contains(event_type)
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        self.projection.keys(event)
    }

    fn read(&self, value: Option<&RawJson>) -> Result<Document, serde_json::Error> {
        let view: Option<P::View> = value.map(RawJson::decode).transpose()?;
        Ok(Document { value: Box::new(view) })
    }

    fn apply(
        &self,
        key: &str,
        document: &mut Document,
        event: &EventRecord,
    ) -> Result<Fold, ProjectionError> {
        let wrong = || ProjectionError::fatal(format!("document `{key}` belongs to another view"));
        let view = document.value.downcast_mut::<Option<P::View>>().ok_or_else(wrong)?;
        let was_absent = view.is_none();
        self.projection.apply(key, view, event)?;
        let unchanged = was_absent && view.is_none();
        Ok(if unchanged { Fold::Unchanged } else { Fold::Changed })
    }

    fn write(&self, document: &Document) -> Result<Option<RawJson>, serde_json::Error> {
        let view = document.value.downcast_ref::<Option<P::View>>();
        view.and_then(Option::as_ref).map(RawJson::encode).transpose()
    }
}
