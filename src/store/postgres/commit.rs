//! Committing decisions: snapshots first (rows that can wait), then one function call under the
//! event-log locks, and COMMIT, in one flight.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresStore,
    columns::{self, Jsonb, OwnedJsonb, json_text, metadata_json},
    entering::{self, Prepared},
    errors, failures, pool, streams,
    transaction::Transaction,
};
use crate::{
    message::{CommandId, Offset, Outcome, OutcomeStatus, Partition, StreamId, Timestamp, Version},
    store::{
        CommandCommit, CommittedCommands, DecideAgain, Entering, Execution, Hold, LoadedStream,
        StoreError,
    },
};

const COMMIT: &str = "
    SELECT v_heads, v_now
      FROM adjutant.commit_commands($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
           $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, '{}', '{}', '{}', '{}',
           '{}', $27, $28, $29, $30, $31, $32, $33)";

/// With what failed, came back or waits. What is to come back must not have ended: it may have been
/// cancelled since the executor read it. Looked at last, under the locks that the function took.
const COMMIT_WITH_FAILURES: &str = "
    SELECT v_heads, v_now, adjutant.expect_no_outcome($35, $36)
      FROM adjutant.commit_commands($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
           $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31,
           $32, $33, $34)";

/// Sorted by the caller. Served by snapshots_pkey.
const SNAPSHOTS: &str = "
    INSERT INTO adjutant.snapshots AS s (partition, stream, version, state_version, state)
    SELECT n.* FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::smallint[], $5::bytea[]) AS n
    ON CONFLICT (partition, stream) DO UPDATE
       SET version = EXCLUDED.version, state_version = EXCLUDED.state_version, state = EXCLUDED.state
     WHERE s.version < EXCLUDED.version OR s.state_version <> EXCLUDED.state_version";

/// In (class, partition) order.
const LOCK: &str = "
    SELECT pg_advisory_xact_lock(k.class, k.p)::text
      FROM (SELECT c.class, t.p::integer FROM unnest($2::integer[]) AS c(class),
                   unnest($1::smallint[]) AS t(p) ORDER BY 1, 2) AS k(class, p)";

/// The classes of log locks: command logs, event logs.
const CLASSES: [i32; 2] = [1_094_929_921, 1_094_929_922];

/// Served by immediate_pkey.
const HELD: &str = "
    SELECT i.command_id
      FROM unnest($1::smallint[], $2::uuid[]) AS n(partition, id)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.immediate f
                          WHERE f.partition = n.partition AND f.command_id = n.id OFFSET 0) AS i";

/// Served by outcomes_pkey.
const OUTCOMES: &str = "
    SELECT o.command_id, o.partition, o.status, o.first_offset, o.events, o.version, o.reply::text,
           o.error::text, o.attempts, o.completed_at
      FROM unnest($1::smallint[], $2::uuid[]) AS n(partition, id)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.outcomes f
                          WHERE f.partition = n.partition AND f.command_id = n.id OFFSET 0) AS o";

#[async_trait]
impl Execution for PostgresStore {
    async fn load_streams(
        &self,
        streams: &[(StreamId, i16)],
    ) -> Result<Vec<LoadedStream>, StoreError> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        self.read_streams(streams).await
    }

    async fn commit_commands(
        &self,
        commit: CommandCommit,
    ) -> Result<CommittedCommands, StoreError> {
        let transaction = self.transaction().await?;
        self.send_commit(transaction, &commit, Begin::Needed).await
    }

    async fn commit_exclusively(
        &self,
        partitions: &BTreeSet<Partition>,
        streams: &[(StreamId, i16)],
        entering: &Entering,
        decide: DecideAgain<'_>,
    ) -> Result<CommittedCommands, StoreError> {
        let mut transaction = self.transaction().await?;
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0).collect();
        let classes = &CLASSES[..];
        let enters = entering::Steps::of(self, entering)?;
        let mut steps = enters.params();
        steps.push((LOCK, vec![&partitions, &classes]));
        let prepared = Prepared::all(&transaction, steps).await?;
        let answers = transaction.begin_with_all(&prepared.steps()).await?;
        let accepted_at = accepted_at(entering, &answers);
        let keys = self.stream_keys(streams);
        let snapshots = transaction.prepare(streams::SNAPSHOTS).await?;
        let snapshots = transaction.query(&snapshots, &keys.params()).await?;
        let events = transaction.prepare(streams::EVENTS).await?;
        let events = transaction.query(&events, &keys.params()).await?;
        let mut commit = decide(streams::loaded(streams, &snapshots, &events))?;
        // Snapshot rows can wait, and the log locks are held already: another commit writes them.
        commit.snapshots.clear();
        let committed = self.send_commit(transaction, &commit, Begin::Done).await?;
        Ok(CommittedCommands { accepted_at, ..committed })
    }

    async fn held(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<CommandId>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.hot().await?;
        let held = pool::prepare(&client, HELD).await?;
        let partitions: Vec<i16> = commands.iter().map(|(partition, _)| partition.0).collect();
        let ids: Vec<_> = commands.iter().map(|(_, id)| id.0).collect();
        let rows = client.query(&held, &[&partitions, &ids]).await;
        let rows = rows.map_err(errors::before_commit)?;
        Ok(rows.iter().map(|row| CommandId(row.get(0))).collect())
    }

    async fn holds(&self, streams: &[(Partition, StreamId)]) -> Result<Vec<Hold>, StoreError> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        self.read_holds(streams).await
    }

    async fn outcomes(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, Outcome)>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.hot().await?;
        let outcomes = pool::prepare(&client, OUTCOMES).await?;
        let partitions: Vec<i16> = commands.iter().map(|(partition, _)| partition.0).collect();
        let ids: Vec<_> = commands.iter().map(|(_, id)| id.0).collect();
        let rows = client.query(&outcomes, &[&partitions, &ids]).await;
        rows.map_err(errors::before_commit)?.iter().map(outcome).collect()
    }
}

/// Whether the transaction is open already.
#[derive(PartialEq)]
enum Begin {
    Needed,
    Done,
}

impl PostgresStore {
    async fn send_commit(
        &self,
        transaction: Transaction,
        commit: &CommandCommit,
        begin: Begin,
    ) -> Result<CommittedCommands, StoreError> {
        let columns = CommitColumns::of(commit)?;
        let failures = failures::of(self, commit);
        let failures = failures.as_ref().map(failures::Failures::param);
        let (back_partitions, back_commands) = failures::coming_back(commit);
        let mut params = columns.params();
        let function = match &failures {
            None => COMMIT,
            Some(failures) => {
                params.push(failures);
                params.push(&back_partitions);
                params.push(&back_commands);
                COMMIT_WITH_FAILURES
            }
        };
        if begin == Begin::Done {
            let function = transaction.prepare(function).await?;
            let rows = transaction.commit_with(&function, &params).await?;
            return Ok(columns.committed(commit, &rows));
        }
        if commit.snapshots.is_empty() && commit.entering.is_empty() {
            let function = transaction.prepare(function).await?;
            let rows = transaction.run_with(&function, &params).await?;
            return Ok(columns.committed(commit, &rows));
        }
        // What can wait comes before the function, which takes the log locks.
        let snapshots = SnapshotColumns::of(commit);
        let enters = entering::Steps::of(self, &commit.entering)?;
        let mut steps = enters.params();
        if !commit.snapshots.is_empty() {
            let locks = steps.iter().position(|(sql, _)| entering::locks(sql));
            steps.insert(locks.unwrap_or(steps.len()), (SNAPSHOTS, snapshots.params().to_vec()));
        }
        steps.push((function, params));
        let prepared = Prepared::all(&transaction, steps).await?;
        let answers = transaction.run_with_all(&prepared.steps()).await?;
        let rows = answers.last().map(Vec::as_slice).unwrap_or_default();
        let committed = columns.committed(commit, rows);
        Ok(CommittedCommands { accepted_at: accepted_at(&commit.entering, &answers), ..committed })
    }
}

/// The new ones are written by the first statement.
fn accepted_at(entering: &Entering, answers: &[Vec<Row>]) -> Option<Timestamp> {
    (!entering.new.is_empty()).then(|| Some(answers.first()?.first()?.get(1)))?
}

type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// The function's parameters, column by column.
#[derive(Default)]
struct CommitColumns<'a> {
    partitions: Vec<i16>,
    event_partitions: Vec<i16>,
    event_places: Vec<i32>,
    event_streams: Vec<&'a str>,
    event_versions: Vec<i64>,
    event_types: Vec<&'a str>,
    event_schema_versions: Vec<i16>,
    event_data: Vec<Jsonb<'a>>,
    event_metadata: Vec<Option<OwnedJsonb>>,
    event_commands: Vec<uuid::Uuid>,
    outcome_partitions: Vec<i16>,
    outcome_commands: Vec<uuid::Uuid>,
    outcome_log_offsets: Vec<Option<i64>>,
    outcome_statuses: Vec<i16>,
    outcome_places: Vec<Option<i32>>,
    outcome_events: Vec<i32>,
    outcome_versions: Vec<i64>,
    outcome_replies: Vec<Option<Jsonb<'a>>>,
    outcome_errors: Vec<Option<OwnedJsonb>>,
    outcome_attempts: Vec<i32>,
    reply_queues: Vec<Option<&'a str>>,
    reply_correlations: Vec<Option<&'a str>>,
    message_partitions: Vec<i16>,
    message_places: Vec<i32>,
    message_entries: Vec<i32>,
    message_bodies: Vec<&'a [u8]>,
    eventless_partitions: Vec<i16>,
    eventless_streams: Vec<&'a str>,
    eventless_versions: Vec<i64>,
    group: &'a str,
    checkpoint_partitions: Vec<i16>,
    checkpoint_from: Vec<i64>,
    checkpoint_to: Vec<i64>,
}

impl<'a> CommitColumns<'a> {
    fn of(commit: &'a CommandCommit) -> Result<Self, StoreError> {
        let partitions: BTreeSet<i16> = commit
            .outcomes
            .iter()
            .map(|outcome| outcome.partition.0)
            .chain(commit.events.iter().map(|event| event.partition.0))
            .chain(commit.checkpoints.iter().map(|moved| moved.partition.0))
            .collect();
        let mut columns = Self { partitions: partitions.into_iter().collect(), ..Self::default() };
        columns.add_events(commit)?;
        columns.add_outcomes(commit)?;
        columns.add_eventless(commit);
        columns.add_messages(commit);
        for moved in &commit.checkpoints {
            columns.group = moved.group.as_str();
            columns.checkpoint_partitions.push(moved.partition.0);
            columns.checkpoint_from.push(moved.from.0);
            columns.checkpoint_to.push(moved.to.0);
        }
        Ok(columns)
    }

    fn add_events(&mut self, commit: &'a CommandCommit) -> Result<(), StoreError> {
        let mut places = Places::default();
        for event in &commit.events {
            self.event_partitions.push(event.partition.0);
            self.event_places.push(places.take(event.partition, 1));
            self.event_streams.push(event.stream.as_str());
            self.event_versions.push(event.version.0);
            self.event_types.push(&event.event_type);
            self.event_schema_versions.push(event.schema_version);
            self.event_data.push(Jsonb(event.data.as_str()));
            self.event_metadata.push(metadata_json(&event.metadata)?.map(OwnedJsonb));
            self.event_commands.push(event.command_id.0);
        }
        Ok(())
    }

    fn add_outcomes(&mut self, commit: &'a CommandCommit) -> Result<(), StoreError> {
        let mut places = Places::default();
        for outcome in &commit.outcomes {
            self.outcome_partitions.push(outcome.partition.0);
            self.outcome_commands.push(outcome.command_id.0);
            self.outcome_log_offsets.push(outcome.log_offset.map(|offset| offset.0));
            self.outcome_statuses.push(outcome.status.code());
            let first = places.take(outcome.partition, outcome.events);
            self.outcome_places.push((outcome.events > 0).then_some(first));
            self.outcome_events.push(outcome.events as i32);
            self.outcome_versions.push(outcome.version.0);
            self.outcome_replies.push(outcome.reply.as_ref().map(|reply| Jsonb(reply.as_str())));
            let error = outcome.error.as_ref().map(json_text).transpose()?;
            self.outcome_errors.push(error.map(OwnedJsonb));
            self.outcome_attempts.push(outcome.attempts);
            let reply_to = outcome.reply_to.as_ref();
            self.reply_queues.push(reply_to.map(|to| to.queue.as_str()));
            self.reply_correlations.push(reply_to.and_then(|to| to.correlation_id.as_deref()));
        }
        Ok(())
    }

    /// The streams whose last decision in this transaction has no events.
    fn add_eventless(&mut self, commit: &'a CommandCommit) {
        let mut last = BTreeMap::new();
        for outcome in &commit.outcomes {
            if let Some(stream) = &outcome.decided_on {
                last.insert(stream, outcome);
            }
        }
        for (stream, outcome) in last.into_iter().filter(|(_, outcome)| outcome.events == 0) {
            self.eventless_partitions.push(outcome.partition.0);
            self.eventless_streams.push(stream.as_str());
            self.eventless_versions.push(outcome.version.0);
        }
    }

    fn add_messages(&mut self, commit: &'a CommandCommit) {
        let mut places = Places::default();
        for message in &commit.messages {
            self.message_partitions.push(message.partition.0);
            self.message_places.push(places.take(message.partition, message.events));
            self.message_entries.push(message.events as i32);
            self.message_bodies.push(&message.body);
        }
    }

    fn params(&self) -> Params<'_> {
        vec![
            &self.partitions,
            &self.event_partitions,
            &self.event_places,
            &self.event_streams,
            &self.event_versions,
            &self.event_types,
            &self.event_schema_versions,
            &self.event_data,
            &self.event_metadata,
            &self.event_commands,
            &self.outcome_partitions,
            &self.outcome_commands,
            &self.outcome_log_offsets,
            &self.outcome_statuses,
            &self.outcome_places,
            &self.outcome_events,
            &self.outcome_versions,
            &self.outcome_replies,
            &self.outcome_errors,
            &self.outcome_attempts,
            &self.reply_queues,
            &self.reply_correlations,
            &self.message_partitions,
            &self.message_places,
            &self.message_entries,
            &self.message_bodies,
            &self.eventless_partitions,
            &self.eventless_streams,
            &self.eventless_versions,
            &self.group,
            &self.checkpoint_partitions,
            &self.checkpoint_from,
            &self.checkpoint_to,
        ]
    }

    fn committed(&self, commit: &CommandCommit, rows: &[Row]) -> CommittedCommands {
        let heads: Vec<i64> =
            rows.first().and_then(|row| row.get::<_, Option<_>>(0)).unwrap_or_default();
        let heads: BTreeMap<i16, i64> = self.partitions.iter().copied().zip(heads).collect();
        let offset = |(outcome, place): (&crate::store::NewOutcome, &Option<i32>)| {
            let head = heads.get(&outcome.partition.0)?;
            place.map(|place| Offset(head + i64::from(place)))
        };
        CommittedCommands {
            first_offsets: commit.outcomes.iter().zip(&self.outcome_places).map(offset).collect(),
            recorded_at: rows.first().map(|row| row.get(1)),
            accepted_at: None,
        }
    }
}

/// Counts 1, 2, 3 … within each partition.
#[derive(Default)]
struct Places(BTreeMap<Partition, i32>);

impl Places {
    /// The first of the next `n` places.
    fn take(&mut self, partition: Partition, n: usize) -> i32 {
        let taken = self.0.entry(partition).or_default();
        let first = *taken + 1;
        *taken += n as i32;
        first
    }
}

struct SnapshotColumns<'a> {
    partitions: Vec<i16>,
    streams: Vec<&'a str>,
    versions: Vec<i64>,
    state_versions: Vec<i16>,
    states: Vec<&'a [u8]>,
}

impl<'a> SnapshotColumns<'a> {
    fn of(commit: &'a CommandCommit) -> Self {
        let mut sorted: Vec<_> = commit.snapshots.iter().collect();
        sorted.sort_by(|a, b| (a.partition, &a.stream).cmp(&(b.partition, &b.stream)));
        Self {
            partitions: sorted.iter().map(|s| s.partition.0).collect(),
            streams: sorted.iter().map(|s| s.stream.as_str()).collect(),
            versions: sorted.iter().map(|s| s.version.0).collect(),
            state_versions: sorted.iter().map(|s| s.state_version).collect(),
            states: sorted.iter().map(|s| s.state.as_slice()).collect(),
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.partitions, &self.streams, &self.versions, &self.state_versions, &self.states]
    }
}

fn outcome(row: &Row) -> Result<(CommandId, Outcome), StoreError> {
    let partition = Partition(row.get(1));
    let unknown = || StoreError::Corrupt("unknown outcome status".to_owned());
    let outcome = Outcome {
        status: OutcomeStatus::from_code(row.get(2)).ok_or_else(unknown)?,
        positions: columns::positions(partition, row.get(3), row.get(4)),
        version: Version(row.get(5)),
        reply: columns::raw(row.get(6)),
        error: columns::failure(row.get(7))?,
        attempts: row.get(8),
        completed_at: row.get(9),
    };
    Ok((CommandId(row.get(0)), outcome))
}
