//! Given these events, when this command: what an aggregate is asked.

use serde_json::Value;
use time::Duration;
use uuid::Uuid;

use super::{
    EventList, START, Then,
    diff::fail,
    subject::{Ended, Subject, Surroundings, name_of},
    wire::{nul_pointers, survives},
};
use crate::{
    domain::{Aggregate, Context, EncodedEvent},
    message::{CommandId, Metadata, RawJson, StreamId, Timestamp, Version},
};

/// A stream and its history, and what surrounds the next command.
///
/// Panics (as an assertion) where the history is none that could be stored.
pub struct Given<A: Aggregate> {
    subject: Subject<A>,
    now: Timestamp,
    metadata: Metadata,
    seed: u64,
    sent: u64,
    command_id: Option<CommandId>,
    expected_version: Option<Version>,
}

impl<A: Aggregate> Given<A> {
    /// A stream without events, `{aggregate type}/1`. The time is [`START`] and stands still; the
    /// metadata is empty.
    #[track_caller]
    pub fn nothing() -> Self {
        Self {
            subject: Subject::new(stream_of::<A>("1")),
            now: START,
            metadata: Metadata::default(),
            seed: 0,
            sent: 0,
            command_id: None,
            expected_version: None,
        }
    }

    /// A stream with these events.
    #[track_caller]
    pub fn events(events: impl EventList<A::Event>) -> Self {
        Self::nothing().and_events(events)
    }

    /// And these events after what there is.
    #[must_use]
    #[track_caller]
    pub fn and_events(mut self, events: impl EventList<A::Event>) -> Self {
        for event in events.into_events() {
            match survives(A::TYPE, &event) {
                Ok(stored) => self.fold(&stored),
                Err(reason) => fail(&format!("given: the event {reason}")),
            }
        }
        self
    }

    /// And an event as an older release stored it: `name` without the aggregate type, the schema
    /// version it was written in, and its data. It is upcast as a worker does.
    #[must_use]
    #[track_caller]
    pub fn and_stored(mut self, name: &str, schema_version: i16, data: &Value) -> Self {
        self.fold(&stored::<A>(name, schema_version, data));
        self
    }

    /// And what this command brings about, which must succeed. It uses up
    /// [`Given::command_id`] and [`Given::expected_version`].
    #[must_use]
    #[track_caller]
    pub fn after(mut self, command: impl Into<A::Command>) -> Self {
        let command = command.into();
        match self.decide(&command) {
            Ended::Succeeded(mut happened) => {
                self.subject.advance(&mut happened);
                self
            }
            other => fail(&format!(
                "given: `{}` on {} had to succeed, but {}",
                name_of::<A>(&command),
                self.subject.stream,
                other.shown()
            )),
        }
    }

    /// The aggregate's id: the part of the stream's name after the `/`.
    #[must_use]
    #[track_caller]
    pub fn stream(mut self, id: &str) -> Self {
        self.subject.stream = stream_of::<A>(id);
        self
    }

    /// The store's time from here on.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// This much later than before.
    #[must_use]
    pub fn later(mut self, by: Duration) -> Self {
        self.now = self.now.saturating_add(by);
        self
    }

    /// The metadata of commands from here on.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Who asks, from here on: [`Metadata::actor`].
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.metadata.actor = Some(actor.into());
        self
    }

    /// What command ids are drawn from where none is given (0 if this is not called).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The id of the next command, and so of every [`Context::new_id`] it draws:
    /// [`drawn_id`](super::drawn_id) tells which.
    #[must_use]
    pub fn command_id(mut self, id: CommandId) -> Self {
        self.command_id = Some(id);
        self
    }

    /// The version that the next command expects the stream to have (0: no event yet).
    #[must_use]
    pub fn expected_version(mut self, version: i64) -> Self {
        self.expected_version = Some(Version(version));
        self
    }

    /// Sends a command: it is checked by its rules, decided by the code that a worker runs, and
    /// what it brings about is written and read back.
    ///
    /// Panics if the domain breaks what production relies on: an event, command or state that is
    /// another after encoding and decoding, or a `decide` that answers differently when asked again.
    #[track_caller]
    pub fn when(mut self, command: impl Into<A::Command>) -> Then<A> {
        let command = command.into();
        let name = name_of::<A>(&command);
        let mut ended = self.decide(&command);
        if let Ended::Succeeded(happened) = &mut ended {
            self.subject.advance(happened);
        }
        Then::new(self, name, ended)
    }

    pub(super) fn subject(&self) -> &Subject<A> {
        &self.subject
    }

    #[track_caller]
    fn decide(&mut self, command: &A::Command) -> Ended<A> {
        self.sent += 1;
        let drawn = || nth_command_id(self.seed, self.sent);
        let around = Surroundings {
            command_id: self.command_id.take().unwrap_or_else(drawn),
            metadata: self.metadata.clone(),
            now: self.now,
            expected_version: self.expected_version.take(),
        };
        match self.subject.decide(command, &around) {
            Ok(ended) => ended,
            Err(reason) => {
                let (name, stream) = (name_of::<A>(command), &self.subject.stream);
                fail(&format!("`{name}` on {stream}: {reason}"))
            }
        }
    }

    #[track_caller]
    fn fold(&mut self, event: &EncodedEvent) {
        if let Some(pointer) = nul_pointers(&event.data).first() {
            let name = &event.event_type;
            fail(&format!("given: `{name}` cannot be stored: `{pointer}` holds U+0000"));
        }
        if let Err(reason) = self.subject.fold(event) {
            fail(&format!("given: {reason}"));
        }
    }
}

/// The id that a command of this id draws by its n-th call of [`Context::new_id`], counted from 0.
pub fn drawn_id(command_id: CommandId, n: u32) -> Uuid {
    Context::drawn_id(command_id, n)
}

/// The id of the n-th command of a test, counted from 1.
pub(super) fn nth_command_id(seed: u64, n: u64) -> CommandId {
    let name = (u128::from(seed) << 64 | u128::from(n)).to_be_bytes();
    CommandId(Uuid::new_v5(&Uuid::NAMESPACE_OID, &name))
}

/// `id` may be the whole name of a stream, too.
#[track_caller]
pub(super) fn stream_of<A: Aggregate>(id: &str) -> StreamId {
    let id = id.strip_prefix(A::TYPE).and_then(|rest| rest.strip_prefix('/')).unwrap_or(id);
    match StreamId::new(A::TYPE, id) {
        Ok(stream) => stream,
        Err(error) => fail(&format!("given: `{id}` names no stream: {error}")),
    }
}

/// An event as it stands in the store.
#[track_caller]
pub(super) fn stored<A: Aggregate>(name: &str, version: i16, data: &Value) -> EncodedEvent {
    match RawJson::encode(data) {
        Ok(data) => EncodedEvent {
            event_type: format!("{}.{name}", A::TYPE),
            schema_version: version,
            data,
        },
        Err(error) => fail(&format!("given: the data of `{name}`: {error}")),
    }
}
