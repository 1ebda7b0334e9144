//! Committing decisions: snapshots first (rows that can wait) and callbacks that are owed, then one
//! function call under the event-log locks, and COMMIT, in one flight.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresStore,
    callbacks::{self, OwedColumns},
    columns::{self, Jsonb, OwnedJsonb, json_text, metadata_json},
    entering::{self, EnteringColumns},
    errors, failures, pool, streams,
    transaction::{Step, Transaction},
};
use crate::{
    message::{CommandId, MemberId, Offset, Outcome, OutcomeStatus, Partition, StreamId, Version},
    store::{
        CommandCommit, CommittedCommands, DecideAgain, Entering, Execution, HeldCommand, Hold,
        LoadedStream, StoreError,
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

/// What is decided, behind what enters: the group's name is made to depend on that, so that nothing
/// is committed, and no log is locked, before.
fn behind_entering(commit: &str) -> String {
    let numbers = commit.matches('$').count();
    let enter: Vec<String> = (1..=entering::PARAMS).map(|n| format!("${}", n + numbers)).collect();
    let commit =
        commit.replace("SELECT v_heads, v_now", "SELECT c.v_heads, c.v_now, e.accepted_at");
    let commit = commit.replace(
        "FROM adjutant.commit_commands(",
        &format!(
            "FROM adjutant.enter({}) AS e(accepted_at) CROSS JOIN LATERAL adjutant.commit_commands(",
            enter.join(", ")
        ),
    );
    let group = "CASE WHEN e.accepted_at IS NULL THEN $30 ELSE $30 END,";
    format!("{} AS c", commit.replace("$30,", group))
}

/// In (class, partition) order.
const LOCK: &str = "
    SELECT pg_advisory_xact_lock(k.class, k.p)::text
      FROM (SELECT c.class, t.p::integer FROM unnest($2::integer[]) AS c(class),
                   unnest($1::smallint[]) AS t(p) ORDER BY 1, 2) AS k(class, p)";

/// See `migrations/0006_immediate_lane.sql`.
const NOTHING_BEFORE: &str = "SELECT adjutant.expect_nothing_before($1, $2)";

/// The classes of log locks: command logs, event logs.
const CLASSES: [i32; 2] = [1_094_929_921, 1_094_929_922];

/// Served by commands_pkey.
const ACCEPTED: &str = "
    SELECT c.id FROM unnest($1::smallint[], $2::uuid[]) AS n(bucket, id)
     CROSS JOIN LATERAL (SELECT f.id FROM adjutant.commands f
                          WHERE f.bucket = n.bucket AND f.id = n.id OFFSET 0) AS c";

/// Served by immediate_of_owner.
const HELD_BY: &str = "
    SELECT i.id, i.partition, i.command_id,
           (EXTRACT(EPOCH FROM clock_timestamp() - i.accepted_at) * 1000)::bigint
      FROM adjutant.immediate i
     WHERE i.owner = $1 AND i.id > $2
       AND i.accepted_at < clock_timestamp() - $3::bigint * interval '1 millisecond'
     ORDER BY i.id LIMIT $4";

/// The owner that nobody is. Served by immediate_pkey.
const LET_GO_OF_HELD: &str = "
    UPDATE adjutant.immediate i SET owner = '00000000-0000-0000-0000-000000000000'
      FROM unnest($1::smallint[], $2::uuid[]) AS n(partition, id)
     WHERE i.partition = n.partition AND i.command_id = n.id";

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
        let lock = transaction.prepare(LOCK).await?;
        let locks: [&(dyn ToSql + Sync); 2] = [&partitions, &&CLASSES[..]];
        let mut accepted_at = None;
        if entering.is_empty() {
            transaction.begin_with(&lock, &locks).await?;
        } else {
            // In a flight of its own: what enters must not take place without what is decided.
            transaction.begin().await?;
            let enters = EnteringColumns::of(self, entering)?;
            // The locks of strict ones come in the order of all, so they wait for those.
            let unlocked = Entering { strict: Vec::new(), ..entering.clone() };
            let before = EnteringColumns::of(self, &unlocked)?;
            let enter = transaction.prepare(entering::ENTER).await?;
            let rows = transaction.query(&enter, &before.params()).await?;
            accepted_at = rows.first().and_then(|row| row.get(0));
            transaction.query(&lock, &locks).await?;
            if !entering.strict.is_empty() {
                let nothing_before = transaction.prepare(NOTHING_BEFORE).await?;
                transaction.query(&nothing_before, &enters.strict_params()).await?;
            }
        }
        let keys = self.stream_keys(streams);
        let load = transaction.prepare(streams::LOAD).await?;
        let rows = transaction.query(&load, &keys.params()).await?;
        let mut commit = decide(streams::loaded(streams, &rows))?;
        // Snapshot rows can wait, and the log locks are held already: another commit writes them.
        commit.snapshots.clear();
        let committed = self.send_commit(transaction, &commit, Begin::Done).await?;
        Ok(CommittedCommands { accepted_at, ..committed })
    }

    async fn accepted(&self, commands: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        let client = self.hot().await?;
        let accepted = pool::prepare(&client, ACCEPTED).await?;
        let buckets: Vec<i16> = commands.iter().map(|id| self.bucket(*id)).collect();
        let ids: Vec<_> = commands.iter().map(|id| id.0).collect();
        let rows = client.query(&accepted, &[&buckets, &ids]).await;
        let rows = rows.map_err(errors::before_commit)?;
        Ok(rows.iter().map(|row| CommandId(row.get(0))).collect())
    }

    async fn held_by(
        &self,
        owner: MemberId,
        older_than: Duration,
        after: i64,
        limit: i64,
    ) -> Result<Vec<HeldCommand>, StoreError> {
        let client = self.hot().await?;
        let held_by = pool::prepare(&client, HELD_BY).await?;
        let older_than = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let rows = client.query(&held_by, &[&owner.0, &after, &older_than, &limit]).await;
        let rows = rows.map_err(errors::before_commit)?;
        let held = |row: &Row| HeldCommand {
            place: row.get(0),
            partition: Partition(row.get(1)),
            id: CommandId(row.get(2)),
            age_ms: row.get(3),
        };
        Ok(rows.iter().map(held).collect())
    }

    async fn let_go_of_held(&self, commands: &[(Partition, CommandId)]) -> Result<(), StoreError> {
        let client = self.hot().await?;
        let let_go = pool::prepare(&client, LET_GO_OF_HELD).await?;
        let partitions: Vec<i16> = commands.iter().map(|(partition, _)| partition.0).collect();
        let ids: Vec<_> = commands.iter().map(|(_, id)| id.0).collect();
        let done = client.execute(&let_go, &[&partitions, &ids]).await;
        done.map(drop).map_err(errors::after_commit)
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
        mut transaction: Transaction,
        commit: &CommandCommit,
        begin: Begin,
    ) -> Result<CommittedCommands, StoreError> {
        let columns = CommitColumns::of(commit)?;
        let owed = OwedColumns::of(commit);
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
            if let Some(owed) = &owed {
                let owe = transaction.prepare(callbacks::OWE).await?;
                transaction.query(&owe, &owed.params()).await?;
            }
            let function = transaction.prepare(function).await?;
            let rows = transaction.commit_with(&function, &params).await?;
            return Ok(columns.committed(commit, &rows));
        }
        let enters = EnteringColumns::of(self, &commit.entering)?;
        let with_entering;
        let function = if commit.entering.is_empty() {
            function
        } else {
            params.extend(enters.params());
            with_entering = behind_entering(function);
            &with_entering
        };
        let function = transaction.prepare(function).await?;
        if commit.snapshots.is_empty() && owed.is_none() {
            let rows = transaction.run_with(&function, &params).await?;
            return Ok(columns.committed(commit, &rows));
        }
        // Rows that can wait come before the function, which takes the log locks.
        let snapshots = transaction.prepare(SNAPSHOTS).await?;
        let snapshot_columns = SnapshotColumns::of(commit);
        let snapshot_params = snapshot_columns.params();
        let owe = transaction.prepare(callbacks::OWE).await?;
        let owed_params = owed.as_ref().map(OwedColumns::params);
        let mut steps: Vec<Step<'_>> = Vec::new();
        if !commit.snapshots.is_empty() {
            steps.push((&snapshots, &snapshot_params));
        }
        if let Some(owed) = &owed_params {
            steps.push((&owe, owed));
        }
        steps.push((&function, &params));
        let answers = transaction.run_with_all(&steps).await?;
        Ok(columns.committed(commit, answers.last().map(Vec::as_slice).unwrap_or_default()))
    }
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
            // Only where something enters.
            accepted_at: rows.first().and_then(|row| row.try_get("accepted_at").ok()),
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
