//! A batch: decides the entries of several partitions in order, and gathers what one transaction
//! writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    ExecutorSettings, Run,
    breakers::Admissions,
    cache::CachedAggregate,
    decide::{Unreadable, Verdict, decide, replay},
    decider::Progress,
    holds::Holds,
};
use crate::{
    domain::{AggregateType, EncodedEvent, Registry},
    message::{
        CommandEnvelope, CommandId, EventEnvelope, Failure, GroupName, MAX_BATCH_BYTES, Offset,
        OutcomeStatus, Partition, RawJson, StreamId, Timestamp, encode_events,
    },
    store::{
        CheckpointMove, CommandCommit, EventMessage, LoadedStream, NewEvent, NewOutcome,
        NewSnapshot, OwedCallback, StoreError,
    },
};

/// What is known before deciding.
#[derive(Clone)]
pub(super) struct Known {
    /// The registered types.
    pub(super) registry: Arc<Registry>,
    /// The group whose checkpoints move.
    pub(super) group: GroupName,
    /// The store's time.
    pub(super) now: Timestamp,
    /// How the executor works.
    pub(super) settings: Arc<ExecutorSettings>,
    /// What earlier tries of this batch found out.
    pub(super) found: Arc<Found>,
    /// The rows of `holds` of its streams.
    pub(super) holds: Holds,
    /// What the breakers let through.
    pub(super) admissions: Arc<Admissions>,
}

/// What earlier tries of a batch found out about its commands.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// They have an outcome already.
    pub(super) ended: BTreeSet<CommandId>,
    /// Their handlers do not come back in time.
    pub(super) timed_out: BTreeSet<CommandId>,
    /// They must be dead, and why.
    pub(super) condemned: BTreeMap<CommandId, Failure>,
    /// Strict ones that the immediate lane cannot execute in their order.
    pub(super) fall_back: BTreeSet<CommandId>,
    /// Their snapshots cannot be read here: the events alone must do.
    pub(super) without_snapshot: BTreeSet<StreamId>,
}

/// A state version that no snapshot has.
const NO_SNAPSHOT: i16 = i16::MIN;

/// The streams of a batch as they are known, or why one is not readable here.
pub(super) type Streams = BTreeMap<StreamId, Result<Arc<CachedAggregate>, String>>;

/// The result: what to write, and the aggregates as they will be.
#[derive(Default)]
pub(super) struct Decisions {
    pub(super) commit: CommandCommit,
    pub(super) streams: Streams,
    pub(super) ended: Vec<CommandId>,
    /// What was tried, by type: why it failed; `None` it did not.
    pub(super) tries: Vec<(String, Option<String>)>,
    /// Whether the schedule gets rows that are due at once.
    pub(super) schedules_now: bool,
    /// Whether somebody is to be called back.
    pub(super) owes_callbacks: bool,
    /// Strict ones that the immediate lane cannot execute in their order: nothing is committed.
    pub(super) fall_back: Vec<CommandId>,
}

/// The streams that these runs touch, with the state versions of their aggregates.
pub(super) fn streams_of(registry: &Registry, runs: &[Run], found: &Found) -> Vec<(StreamId, i16)> {
    let mut streams = BTreeMap::new();
    for entry in runs.iter().flat_map(|run| &run.entries) {
        let stream = &entry.command.stream;
        if let Some(aggregate) = registry.aggregate(stream.aggregate_type()) {
            let usable = !found.without_snapshot.contains(stream);
            let version = if usable { aggregate.state_version() } else { NO_SNAPSHOT };
            streams.insert(stream.clone(), version);
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
    known: &Known,
    runs: &[Run],
    streams: Streams,
    progress: &Progress,
) -> Result<Decisions, StoreError> {
    let mut batch = Batch {
        known,
        commit: CommandCommit::default(),
        streams,
        holds: known.holds.clone(),
        envelopes: BTreeMap::new(),
        seen: BTreeSet::new(),
        tries: Vec::new(),
        fall_back: Vec::new(),
        progress,
    };
    for run in runs {
        for entry in &run.entries {
            let log_offset = run.checkpoint.map(|_| entry.offset);
            batch.add(run.partition, log_offset, &entry.command)?;
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

pub(super) struct Batch<'a> {
    pub(super) known: &'a Known,
    pub(super) commit: CommandCommit,
    streams: Streams,
    pub(super) holds: Holds,
    envelopes: BTreeMap<Partition, Vec<EventEnvelope>>,
    seen: BTreeSet<CommandId>,
    pub(super) tries: Vec<(String, Option<String>)>,
    pub(super) fall_back: Vec<CommandId>,
    progress: &'a Progress,
}

impl Batch<'_> {
    fn add(
        &mut self,
        partition: Partition,
        log_offset: Option<Offset>,
        command: &CommandEnvelope,
    ) -> Result<(), StoreError> {
        // A command may stand in the log more than once; it ends once.
        let found = &self.known.found;
        if found.ended.contains(&command.id)
            || found.fall_back.contains(&command.id)
            || !self.seen.insert(command.id)
        {
            return Ok(());
        }
        let first_offset = log_offset.map(|offset| command.first_offset_at(offset));
        let place = Place { partition, log_offset, first_offset, command };
        // Before anything else: whoever could execute it, and whatever it waits for, it is too late.
        let is_late = command.not_after.is_some_and(|not_after| not_after < self.known.now);
        if is_late && !planted!(DeadlineIgnored) {
            self.expire(&place);
            return Ok(());
        }
        let Some(aggregate) = self.known.registry.aggregate_of_command(&command.command_type)
        else {
            self.leave_to_others(&place, "type_unknown_here", &command.command_type);
            return Ok(());
        };
        if aggregate.name() != command.stream.aggregate_type() {
            let message = format!("{} is no command of {}", command.command_type, command.stream);
            self.die(&place, failure("wrong_aggregate", message), Looked::No);
            return Ok(());
        }
        if self.must_wait(&place) {
            self.wait(&place);
            return Ok(());
        }
        if let Some(failure) = self.known.found.condemned.get(&command.id) {
            self.die(&place, failure.clone(), Looked::No);
            return Ok(());
        }
        if let Some(delay) = self.known.admissions.suspended(command) {
            self.suspend(&place, delay);
            return Ok(());
        }
        let current = match self.streams.get(&command.stream) {
            Some(Ok(current)) => current.clone(),
            Some(Err(reason)) => {
                let reason = reason.clone();
                self.leave_to_others(&place, "stream_unreadable_here", &reason);
                return Ok(());
            }
            None => {
                return Err(StoreError::Internal(format!("{} was not loaded", command.stream)));
            }
        };
        match self.verdict(aggregate.as_ref(), &current, command) {
            Verdict::Decided(decided) => {
                let events = decided.events.len();
                let next = self.append(&place, &current, &decided.events, decided.state);
                self.snapshot_when_due(aggregate.as_ref(), &place, next);
                let ended = Ended { events, reply: decided.reply, error: None };
                self.outcome(&place, OutcomeStatus::Succeeded, ended, Looked::AtState);
                self.went_well(&place);
            }
            Verdict::Rejected(failure) => {
                self.end(&place, OutcomeStatus::Rejected, failure, Looked::AtState);
                self.went_well(&place);
            }
            Verdict::Retryable(failure) => self.retry_or_die(&place, failure),
            Verdict::Dead(failure) => self.die(&place, failure, Looked::AtState),
            Verdict::Unreadable(reason) => {
                self.leave_to_others(&place, "payload_unreadable_here", &reason);
            }
        }
        Ok(())
    }

    /// Decides, at once again a few times if that may help. A decision that was given up because it
    /// took too long does not count, whatever it was.
    fn verdict(
        &self,
        aggregate: &dyn AggregateType,
        current: &CachedAggregate,
        command: &CommandEnvelope,
    ) -> Verdict {
        let limit = *self.known.settings.time_limit.of(&command.command_type);
        if self.known.found.timed_out.contains(&command.id) {
            let message = format!("the handler took longer than {limit:?}");
            return Verdict::Retryable(failure("timed_out", message));
        }
        let mut again = self.known.settings.retry.of(&command.command_type).immediate;
        loop {
            self.progress.begin(command.id, limit);
            let verdict = decide(aggregate, current, command, self.known.now);
            self.progress.end();
            if again == 0 || !matches!(verdict, Verdict::Retryable(_)) {
                return verdict;
            }
            again -= 1;
        }
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
        if next.version.0 - next.snapshot_at.0 >= self.known.settings.snapshot_every
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

    pub(super) fn end(
        &mut self,
        place: &Place<'_>,
        status: OutcomeStatus,
        failure: Failure,
        looked: Looked,
    ) {
        let ended = Ended { events: 0, reply: None, error: Some(failure) };
        self.outcome(place, status, ended, looked);
    }

    fn outcome(&mut self, place: &Place<'_>, status: OutcomeStatus, ended: Ended, looked: Looked) {
        let command = place.command;
        let current = self.streams.get(&command.stream).and_then(|stream| stream.as_ref().ok());
        // What is cancelled is not tried now.
        let untried = i32::from(status == OutcomeStatus::Cancelled);
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
            attempts: command.attempt.0 - untried,
            reply_to: command.reply_to.clone(),
            callback: command.callback_url.as_ref().map(|url| OwedCallback {
                url: url.clone(),
                command_type: command.command_type.clone(),
            }),
        });
    }

    fn finish(mut self) -> Result<Decisions, StoreError> {
        for (partition, events) in std::mem::take(&mut self.envelopes) {
            self.add_messages(partition, &events)?;
        }
        self.release();
        let ended = self.commit.outcomes.iter().map(|outcome| outcome.command_id).collect();
        let schedules_now = self.commit.schedules_now();
        let owes_callbacks = self.commit.owes_callbacks();
        let Self { commit, streams, tries, fall_back, .. } = self;
        Ok(Decisions { commit, streams, ended, tries, schedules_now, owes_callbacks, fall_back })
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
pub(super) enum Looked {
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
pub(super) struct Place<'a> {
    pub(super) partition: Partition,
    pub(super) log_offset: Option<Offset>,
    /// Of its first entry in the log.
    pub(super) first_offset: Option<Offset>,
    pub(super) command: &'a CommandEnvelope,
}

fn failure(code: &str, message: impl Into<String>) -> Failure {
    Failure::new(code, message)
}
