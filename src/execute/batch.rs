//! A batch: decides the entries of several partitions in order, and gathers what one transaction
//! writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    Run,
    cache::CachedAggregate,
    decide::{Unreadable, Verdict, decide, replay},
};
use crate::{
    domain::{AggregateType, EncodedEvent, Registry},
    message::{
        CommandEnvelope, CommandId, EventEnvelope, Failure, GroupName, MAX_BATCH_BYTES, Offset,
        OutcomeStatus, Partition, RawJson, StreamId, Timestamp, encode_events,
    },
    store::{
        CheckpointMove, CommandCommit, EventMessage, LoadedStream, NewEvent, NewOutcome,
        NewSnapshot, SetAside, StoreError,
    },
};

/// What is known before deciding.
pub(super) struct Known<'a> {
    /// The registered types.
    pub(super) registry: &'a Registry,
    /// The group whose checkpoints move.
    pub(super) group: &'a GroupName,
    /// The store's time.
    pub(super) now: Timestamp,
    /// How many events there are between two snapshots.
    pub(super) snapshot_every: i64,
    /// After how long a command that cannot be executed here comes back.
    pub(super) set_aside: Duration,
    /// Commands that have an outcome already.
    pub(super) ended: &'a [CommandId],
    /// A command that is known to be unstorable, and why.
    pub(super) unstorable: Option<&'a (CommandId, String)>,
}

/// A state version that no snapshot has.
const NO_SNAPSHOT: i16 = i16::MIN;

/// The streams of a batch as they are known, or why one is not readable here.
pub(super) type Streams = BTreeMap<StreamId, Result<Arc<CachedAggregate>, String>>;

/// The result: what to write, and the aggregates as they will be.
pub(super) struct Decisions {
    pub(super) commit: CommandCommit,
    pub(super) streams: Streams,
    pub(super) ended: Vec<CommandId>,
}

/// The streams that these runs touch, with the state versions of their aggregates.
pub(super) fn streams_of(registry: &Registry, runs: &[Run]) -> Vec<(StreamId, i16)> {
    let mut streams = BTreeMap::new();
    for entry in runs.iter().flat_map(|run| &run.entries) {
        if let Some(aggregate) = registry.aggregate(entry.command.stream.aggregate_type()) {
            streams.insert(entry.command.stream.clone(), aggregate.state_version());
        }
    }
    streams.into_iter().collect()
}

/// Folds loaded streams; answers those whose snapshot is of no use, to be loaded without it.
pub(super) fn replay_all(
    registry: &Registry,
    loaded: &[LoadedStream],
    streams: &mut Streams,
) -> Vec<(StreamId, i16)> {
    let mut without_snapshot = Vec::new();
    for stream in loaded {
        let Some(aggregate) = registry.aggregate(stream.stream.aggregate_type()) else { continue };
        let folded = replay(aggregate.as_ref(), stream).map_err(|unreadable| match unreadable {
            Unreadable::Event(reason) => reason,
            Unreadable::Snapshot(reason) => {
                tracing::warn!(stream = %stream.stream, reason, "its snapshot cannot be read");
                without_snapshot.push((stream.stream.clone(), NO_SNAPSHOT));
                reason
            }
        });
        streams.insert(stream.stream.clone(), folded);
    }
    without_snapshot
}

/// Decides every entry in order.
pub(super) fn decide_all(
    known: &Known<'_>,
    runs: &[Run],
    streams: Streams,
) -> Result<Decisions, StoreError> {
    let mut batch = Batch {
        known,
        commit: CommandCommit::default(),
        streams,
        envelopes: BTreeMap::new(),
        seen: BTreeSet::new(),
    };
    for run in runs {
        for entry in &run.entries {
            batch.add(run.partition, Some(entry.offset), &entry.command)?;
        }
        if let Some(from) = run.checkpoint
            && let Some(last) = run.entries.last()
        {
            batch.commit.checkpoints.push(CheckpointMove {
                group: known.group.clone(),
                partition: run.partition,
                from,
                to: last.offset,
            });
        }
    }
    batch.commit.checkpoints.sort_by_key(|moved| moved.partition);
    batch.finish()
}

struct Batch<'a> {
    known: &'a Known<'a>,
    commit: CommandCommit,
    streams: Streams,
    envelopes: BTreeMap<Partition, Vec<EventEnvelope>>,
    seen: BTreeSet<CommandId>,
}

impl Batch<'_> {
    fn add(
        &mut self,
        partition: Partition,
        log_offset: Option<Offset>,
        command: &CommandEnvelope,
    ) -> Result<(), StoreError> {
        // A command may stand in the log more than once; it ends once.
        if self.known.ended.contains(&command.id) || !self.seen.insert(command.id) {
            return Ok(());
        }
        let place = Place { partition, log_offset, command };
        let Some(aggregate) = self.known.registry.aggregate_of_command(&command.command_type)
        else {
            self.set_aside(&place, "type_unknown_here", &command.command_type);
            return Ok(());
        };
        if aggregate.name() != command.stream.aggregate_type() {
            let message = format!("{} is no command of {}", command.command_type, command.stream);
            self.end(&place, OutcomeStatus::Dead, failure("wrong_aggregate", message), Looked::No);
            return Ok(());
        }
        if let Some((id, reason)) = self.known.unstorable
            && *id == command.id
        {
            self.end(&place, OutcomeStatus::Dead, failure("unstorable", reason), Looked::No);
            return Ok(());
        }
        let current = match self.streams.get(&command.stream) {
            Some(Ok(current)) => current.clone(),
            Some(Err(reason)) => {
                let reason = reason.clone();
                self.set_aside(&place, "stream_unreadable_here", &reason);
                return Ok(());
            }
            None => {
                return Err(StoreError::Internal(format!("{} was not loaded", command.stream)));
            }
        };
        match decide(aggregate.as_ref(), &current, command, self.known.now) {
            Verdict::Decided(decided) => {
                let events = decided.events.len();
                let next = self.append(&place, &current, &decided.events, decided.state);
                self.snapshot_when_due(aggregate.as_ref(), &place, next);
                let ended = Ended { events, reply: decided.reply, error: None };
                self.outcome(&place, OutcomeStatus::Succeeded, ended, Looked::AtState);
            }
            Verdict::Rejected(failure) => {
                self.end(&place, OutcomeStatus::Rejected, failure, Looked::AtState);
            }
            Verdict::Dead(failure) => {
                self.end(&place, OutcomeStatus::Dead, failure, Looked::AtState);
            }
            Verdict::Unreadable(reason) => {
                self.set_aside(&place, "payload_unreadable_here", &reason);
            }
        }
        Ok(())
    }

    /// The events of one decision; returns the aggregate as it is afterwards.
    fn append(
        &mut self,
        place: &Place<'_>,
        current: &CachedAggregate,
        events: &[EncodedEvent],
        state: crate::domain::State,
    ) -> CachedAggregate {
        let command = place.command;
        let mut version = current.version;
        let mut bytes = current.bytes;
        let envelopes = self.envelopes.entry(place.partition).or_default();
        for event in events {
            version = version.next();
            bytes =
                bytes.saturating_add(u32::try_from(event.data.as_str().len()).unwrap_or(u32::MAX));
            self.commit.events.push(NewEvent {
                stream: command.stream.clone(),
                partition: place.partition,
                version,
                event_type: event.event_type.clone(),
                schema_version: event.schema_version,
                data: event.data.clone(),
                command_id: command.id,
                metadata: command.metadata.clone(),
            });
            envelopes.push(EventEnvelope {
                stream: command.stream.clone(),
                version,
                event_type: event.event_type.clone(),
                schema_version: event.schema_version,
                data: event.data.clone(),
                command_id: command.id,
                metadata: command.metadata.clone(),
            });
        }
        CachedAggregate { state, version, snapshot_at: current.snapshot_at, bytes }
    }

    fn snapshot_when_due(
        &mut self,
        aggregate: &dyn AggregateType,
        place: &Place<'_>,
        mut next: CachedAggregate,
    ) {
        if next.version.0 - next.snapshot_at.0 >= self.known.snapshot_every
            && let Some(state) = write_state(aggregate, &next)
        {
            next.snapshot_at = next.version;
            next.bytes = u32::try_from(state.len()).unwrap_or(u32::MAX);
            let stream = place.command.stream.clone();
            self.commit.snapshots.retain(|older| older.stream != stream);
            self.commit.snapshots.push(NewSnapshot {
                stream,
                partition: place.partition,
                version: if planted!(SnapshotAhead) { next.version.next() } else { next.version },
                state_version: aggregate.state_version(),
                state,
            });
        }
        self.streams.insert(place.command.stream.clone(), Ok(Arc::new(next)));
    }

    fn end(&mut self, place: &Place<'_>, status: OutcomeStatus, failure: Failure, looked: Looked) {
        if status == OutcomeStatus::Dead {
            tracing::error!(
                command = %place.command.id, command_type = place.command.command_type,
                stream = %place.command.stream, code = failure.code,
                trace_id = place.command.metadata.trace_id(), "command is dead: {}", failure.message
            );
        }
        let ended = Ended { events: 0, reply: None, error: Some(failure) };
        self.outcome(place, status, ended, looked);
    }

    fn outcome(&mut self, place: &Place<'_>, status: OutcomeStatus, ended: Ended, looked: Looked) {
        let command = place.command;
        let current = self.streams.get(&command.stream).and_then(|stream| stream.as_ref().ok());
        tracing::debug!(
            command = %command.id, stream = %command.stream, status = status.as_str(),
            trace_id = command.metadata.trace_id(), "command executed"
        );
        self.commit.outcomes.push(NewOutcome {
            command_id: command.id,
            partition: place.partition,
            log_offset: place.log_offset,
            status,
            decided_on: (looked == Looked::AtState).then(|| command.stream.clone()),
            events: ended.events,
            version: current.map(|current| current.version).unwrap_or_default(),
            reply: ended.reply,
            error: ended.error,
            attempts: 1,
            reply_to: command.reply_to.clone(),
        });
    }

    fn set_aside(&mut self, place: &Place<'_>, reason: &'static str, what: &str) {
        tracing::warn!(
            command = %place.command.id, stream = %place.command.stream, reason,
            "command is left for a worker that can execute it: {what}"
        );
        metrics::counter!("adjutant_commands_set_aside_total", "reason" => reason).increment(1);
        self.commit.set_aside.push(SetAside {
            command_id: place.command.id,
            partition: place.partition,
            delay_ms: i64::try_from(self.known.set_aside.as_millis()).unwrap_or(i64::MAX),
            reason,
        });
    }

    fn finish(mut self) -> Result<Decisions, StoreError> {
        for (partition, events) in std::mem::take(&mut self.envelopes) {
            self.add_messages(partition, &events)?;
        }
        let ended = self.commit.outcomes.iter().map(|outcome| outcome.command_id).collect();
        Ok(Decisions { commit: self.commit, streams: self.streams, ended })
    }

    /// One outbox row, or as many as the size limit of a message asks for.
    fn add_messages(
        &mut self,
        partition: Partition,
        events: &[EventEnvelope],
    ) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let body =
            encode_events(events).map_err(|error| StoreError::Unstorable(error.to_string()))?;
        if body.len() > MAX_BATCH_BYTES && events.len() > 1 {
            let (head, tail) = events.split_at(events.len() / 2);
            self.add_messages(partition, head)?;
            return self.add_messages(partition, tail);
        }
        self.commit.messages.push(EventMessage { partition, events: events.len(), body });
        Ok(())
    }
}

/// Whether a command's end was decided on its stream's state.
#[derive(Clone, Copy, PartialEq)]
enum Looked {
    AtState,
    No,
}

/// How a command ended.
struct Ended {
    events: usize,
    reply: Option<RawJson>,
    error: Option<Failure>,
}

/// A state that cannot be written costs a snapshot, not a command.
fn write_state(aggregate: &dyn AggregateType, current: &CachedAggregate) -> Option<Vec<u8>> {
    let written = catch_unwind(AssertUnwindSafe(|| aggregate.write_state(&current.state)));
    let written = written.unwrap_or_else(|_| Err("writing the state panicked".to_owned()));
    written
        .map_err(|error| {
            tracing::error!(aggregate = aggregate.name(), %error, "no snapshot could be written");
        })
        .ok()
}

/// A command at its place.
struct Place<'a> {
    partition: Partition,
    log_offset: Option<Offset>,
    command: &'a CommandEnvelope,
}

fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure::new(code, message)
}
