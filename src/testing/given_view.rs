//! Given these documents, when these events: what a projection is asked.

use std::collections::BTreeMap;

use serde_json::Value;
use time::Duration;

use super::{
    EventList, START, ThenView,
    diff::fail,
    given::{nth_command_id, stored, stream_of},
    view::{LogEntry, Row, Rows, Trouble, View},
    wire::{nul_pointers, survives},
};
use crate::{
    domain::{Aggregate, EncodedEvent, Projection, aggregate_type, projection_type},
    message::{
        Batch, CommandId, EventEnvelope, Metadata, Offset, Partition, PartitionCount, Position,
        RawJson, StreamId, Timestamp, Version, decode_batch, encode_events,
    },
};

/// A view and its documents, and where the next events stand.
///
/// Unless told otherwise, events take the next version of their stream and the next offset of
/// their partition, which is that of the stream's name among [`PartitionCount::DEFAULT`]; the time
/// is [`START`], the metadata empty.
pub struct GivenView<P: Projection> {
    view: View,
    heads: BTreeMap<Partition, Offset>,
    versions: BTreeMap<StreamId, Version>,
    events: u64,
    now: Timestamp,
    metadata: Metadata,
    command_id: Option<CommandId>,
    partition: Option<Partition>,
    projection: std::marker::PhantomData<fn() -> P>,
}

impl<P: Projection + Default> GivenView<P> {
    /// A view without documents.
    pub fn nothing() -> Self {
        Self::of(P::default())
    }

    /// A view with one document, at version 1.
    #[track_caller]
    pub fn document(key: &str, view: &P::View) -> Self {
        Self::nothing().and_document(key, view)
    }
}

impl<P: Projection> GivenView<P> {
    /// A view without documents, of a projection that is no `Default`.
    pub fn of(projection: P) -> Self {
        Self {
            view: View::new(projection_type(projection)),
            heads: BTreeMap::new(),
            versions: BTreeMap::new(),
            events: 0,
            now: START,
            metadata: Metadata::default(),
            command_id: None,
            partition: None,
            projection: std::marker::PhantomData,
        }
    }

    /// And another document, at version 1; to be given before any event.
    #[must_use]
    #[track_caller]
    pub fn and_document(mut self, key: &str, view: &P::View) -> Self {
        let name = self.view.name();
        if self.events > 0 {
            fail(&format!("given: the document `{key}` of `{name}` comes after an event"));
        }
        let put = RawJson::encode(view).map_err(|error| error.to_string()).and_then(|value| {
            self.view.put(key.to_owned(), Row { value: Some(value), version: 1 })
        });
        if let Err(reason) = put {
            fail(&format!("given: the document `{key}` of `{name}`: {reason}"));
        }
        self
    }

    /// And these events on the stream `{aggregate type}/{id}`, which the projection must apply.
    #[must_use]
    #[track_caller]
    pub fn after<A: Aggregate>(self, id: &str, events: impl EventList<A::Event>) -> Self {
        self.when::<A>(id, events).applied()
    }

    /// The store's time of events from here on.
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

    /// The metadata of events from here on.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The command that caused the events from here on; without it, each has another.
    #[must_use]
    pub fn command_id(mut self, id: CommandId) -> Self {
        self.command_id = Some(id);
        self
    }

    /// The partition of events from here on, whatever their stream's name says.
    #[must_use]
    pub fn partition(mut self, partition: i16) -> Self {
        self.partition = Some(Partition(partition));
        self
    }

    /// The offset, in its partition, of the next event on the stream `{aggregate type}/{id}`; the
    /// projection saw all that stand before it. Offsets only grow.
    #[must_use]
    #[track_caller]
    pub fn offset<A: Aggregate>(mut self, id: &str, offset: i64) -> Self {
        let partition = self.partition_of(&stream_of::<A>(id));
        let head = self.heads.entry(partition).or_default();
        if offset <= head.0 {
            fail(&format!("given: offset {offset} of partition {partition} is {head} or before"));
        }
        *head = Offset(offset - 1);
        self
    }

    /// The version of the next event on the stream `{aggregate type}/{id}`. Versions only grow.
    #[must_use]
    #[track_caller]
    pub fn version<A: Aggregate>(mut self, id: &str, version: i64) -> Self {
        let stream = stream_of::<A>(id);
        let known = self.versions.entry(stream.clone()).or_default();
        if version <= known.0 {
            fail(&format!("given: version {version} of {stream} is {known} or before"));
        }
        *known = Version(version - 1);
        self
    }

    /// Brings events on the stream `{aggregate type}/{id}`: `when::<Account>("acc-42", […])`. They
    /// are written and read back, and folded by the worker's rules.
    ///
    /// Panics if the projection breaks what production relies on: an event or document that is
    /// another after encoding and decoding, a fold that depends on how events are batched, or, with
    /// events of several partitions, on their order among partitions.
    #[track_caller]
    pub fn when<A: Aggregate>(self, id: &str, events: impl EventList<A::Event>) -> ThenView<P> {
        let encoded = events.into_events().iter().map(|event| survives(A::TYPE, event)).collect();
        let encoded: Result<Vec<_>, _> = encoded;
        match encoded {
            Ok(events) => self.bring::<A>(id, events),
            Err(reason) => fail(&format!("the event {reason}")),
        }
    }

    /// Brings an event as an older release stored it: `name` without the aggregate type, the
    /// schema version it was written in, and its data. It is upcast as a worker does.
    #[track_caller]
    pub fn when_stored<A: Aggregate>(
        self,
        id: &str,
        name: &str,
        schema_version: i16,
        data: &Value,
    ) -> ThenView<P> {
        self.bring::<A>(id, vec![stored::<A>(name, schema_version, data)])
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    #[track_caller]
    fn bring<A: Aggregate>(mut self, id: &str, events: Vec<EncodedEvent>) -> ThenView<P> {
        let stream = stream_of::<A>(id);
        let names: Vec<String> = events.iter().map(|event| event.event_type.clone()).collect();
        let entries = self.appended::<A>(&stream, events);
        let before: Rows = self.view.rows.clone();
        let stopped = match self.view.fold(&entries) {
            Ok(()) => None,
            Err(Trouble::Stops(reason)) => Some(reason),
            Err(Trouble::Broken(reason)) => fail(&format!("view `{}`: {reason}", self.view.name())),
        };
        ThenView::new(self, names, before, stopped)
    }

    /// The events as they are read from the log.
    #[track_caller]
    fn appended<A: Aggregate>(
        &mut self,
        stream: &StreamId,
        events: Vec<EncodedEvent>,
    ) -> Vec<LogEntry> {
        let partition = self.partition_of(stream);
        let mut envelopes = Vec::with_capacity(events.len());
        for event in events {
            if let Some(pointer) = nul_pointers(&event.data).first() {
                let name = &event.event_type;
                fail(&format!("`{name}` cannot be stored: `{pointer}` holds U+0000"));
            }
            self.events += 1;
            let version = self.versions.entry(stream.clone()).or_default();
            *version = version.next();
            envelopes.push(EventEnvelope {
                stream: stream.clone(),
                version: *version,
                event_type: event.event_type,
                schema_version: event.schema_version,
                data: event.data,
                command_id: self.command_id.unwrap_or_else(|| nth_command_id(0, self.events)),
                metadata: self.metadata.clone(),
            });
        }
        let travelled = encode_events(&envelopes).and_then(|bytes| decode_batch(&bytes, false));
        let arrived = match travelled {
            Ok(Batch::Events(arrived)) => arrived,
            Ok(Batch::Commands(_)) => fail("events were sent, commands arrived"),
            Err(error) => fail(&format!("the events cannot travel: {error}")),
        };
        let head = self.heads.entry(partition).or_default();
        let mut next = || {
            *head = head.next();
            Position { partition, offset: *head }
        };
        let aggregate = aggregate_type::<A>();
        arrived
            .into_iter()
            .map(|event| LogEntry {
                aggregate: aggregate.clone(),
                position: next(),
                recorded_at: self.now,
                event,
            })
            .collect()
    }

    fn partition_of(&self, stream: &StreamId) -> Partition {
        self.partition.unwrap_or_else(|| PartitionCount::DEFAULT.of(stream))
    }
}
