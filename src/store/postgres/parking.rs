//! Parked keys: parking and passing them inside of other transactions, and looking at them (`replaying`
//! brings them back).
//!
//! Locks are taken in this order: parked keys, documents in key order, checkpoints. Who passes a
//! parked stream holds its row `FOR KEY SHARE`; a replay holds it `FOR UPDATE` before it looks at the
//! checkpoint, so that no event can be passed between its last look and the unparking. The fence of a
//! shared document is the document's own row.

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};

use super::{
    PostgresStore,
    columns::{Jsonb, WAITING_BYTES, group_of, json_text, key_scope, metadata, replay, stream},
    errors, pool,
    transaction::Transaction,
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind},
    message::{
        CommandId, EventEnvelope, GroupName, MemberId, Offset, Partition, Position, RawJson,
        StreamId, Timestamp, Version,
    },
    store::{
        ActedBy, EventEntry, EventFailure, EventProgress, FoldDocuments, Generation, KeyName,
        KeyScope, NewParkedKey, ParkedCount, ParkedKey, ParkedKeys, ParkedReference, Replay,
        ReplayAsked, ReplayProgress, ReplayStep, StoreError, WaitingEvent,
    },
};

macro_rules! select_parked_key {
    ($rest:literal) => {
        concat!(
            "SELECT group_name, generation, scope, key, partition, failed_offset, cursor,
                    cursor_version, state, dead_letter_id, attempts, parked_at, begun
               FROM adjutant.parked_keys ",
            $rest
        )
    };
}
pub(super) use select_parked_key;

/// A range of parked_keys_pkey.
const OF_GROUP: &str = select_parked_key!(
    "WHERE group_name = $1 AND (generation, scope, key) > ($2, $3, $4)
      ORDER BY generation, scope, key LIMIT $5"
);

/// Served by parked_keys_to_replay, a lookup a partition.
const TO_REPLAY: &str = "
    SELECT p.group_name, p.generation, p.scope, p.key, p.partition, p.failed_offset, p.cursor,
           p.cursor_version, p.state, p.dead_letter_id, p.attempts, p.parked_at, p.begun
      FROM unnest($1::text[], $2::smallint[]) WITH ORDINALITY AS o(g, p, i)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.parked_keys k
                          WHERE k.group_name = o.g AND k.partition = o.p AND k.state > 1
                          ORDER BY k.parked_at, k.scope, k.key LIMIT $3) AS p
     ORDER BY o.i, p.parked_at, p.scope, p.key";

/// Served by parked_keys_of_partition.
const STREAMS: &str = "
    SELECT key FROM adjutant.parked_keys
     WHERE group_name = $1 AND generation = $2 AND partition = $3 AND scope = 1
     ORDER BY key LIMIT $4";

/// Served by parked_keys_pkey, a lookup a stream.
const WHICH: &str = "
    SELECT p.key FROM unnest($3::text[]) AS k(key)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.parked_keys d
                          WHERE d.group_name = $1 AND d.generation = $2 AND d.scope = 1
                            AND d.key = k.key OFFSET 0) AS p";

/// Locks in key order: the sorted keys drive a nested loop. Served by parked_keys_pkey.
const PASS: &str = "
    SELECT p.key
      FROM (SELECT k FROM unnest($3::text[]) AS k ORDER BY k COLLATE \"C\") AS k(key)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.parked_keys d
                          WHERE d.group_name = $1 AND d.generation = $2 AND d.scope = 1
                            AND d.key = k.key FOR KEY SHARE) AS p";

/// By group; the index alone answers. Served by parked_keys_pkey.
const COUNTS: &str = "
    SELECT group_name, count(*) FROM adjutant.parked_keys GROUP BY group_name ORDER BY group_name";

const PARK: &str = "
    INSERT INTO adjutant.parked_keys (group_name, generation, scope, key, partition, failed_offset,
                                      cursor, cursor_version, state, dead_letter_id, attempts,
                                      parked_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9, $10, clock_timestamp())";

const DEAD_LETTER: &str = "
    INSERT INTO adjutant.dead_letters (partition, id, kind, group_name, generation, key, type,
                                       command_id, \"offset\", error, fingerprint, attempts,
                                       died_at, state, state_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now, 1, now
      FROM clock_timestamp() AS now";

/// A document of scope Stream that another partition feeds belongs to another stream.
const MARK: &str = "
    INSERT INTO adjutant.views AS v (view, key, partition, version, value, as_of, updated_at, parked)
    SELECT $1, k, $3, 0, NULL, '{}', clock_timestamp(), $4
      FROM unnest($2::text[]) AS k ORDER BY k COLLATE \"C\"
    ON CONFLICT (view, key) DO UPDATE SET parked = EXCLUDED.parked
     WHERE EXCLUDED.partition IS NULL OR v.partition IS NOT DISTINCT FROM EXCLUDED.partition";

const REFER: &str = "
    INSERT INTO adjutant.parked_references (group_name, generation, key, partition, \"offset\")
    SELECT $1, $2, r.key, r.p, r.o FROM unnest($3::text[], $4::smallint[], $5::bigint[]) AS r(key, p, o)";

/// Of a stream, as far as its group has passed it. Served by events_partition_stream_version_key and
/// checkpoints_pkey.
const EVENTS_OF_STREAM: &str = "
    SELECT * FROM (
        SELECT e.partition, e.\"offset\", e.recorded_at, e.stream, e.version, e.type,
               e.schema_version, e.data::text, e.command_id, e.metadata::text,
               sum(octet_length(e.data::text)) OVER (ORDER BY e.version)
                   - octet_length(e.data::text) AS bytes_before
          FROM adjutant.events e
         WHERE e.partition = $1 AND e.stream = $2 AND e.version > $3
           AND e.\"offset\" <= COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                                        WHERE c.group_name = $4 AND c.partition = $1
                                        ORDER BY c.previous DESC LIMIT 1), 0)
         ORDER BY e.version LIMIT $5) AS page
     WHERE bytes_before <= $6::bigint
     ORDER BY version";

/// Served by parked_references_pkey and events_pkey, a lookup an event.
const EVENTS_REFERRED_TO: &str = "
    SELECT * FROM (
        SELECT r.partition, r.\"offset\", e.recorded_at, e.stream, e.version, e.type,
               e.schema_version, e.data::text, e.command_id, e.metadata::text,
               COALESCE(sum(octet_length(e.data::text)) OVER (ORDER BY r.partition, r.\"offset\")
                        - octet_length(e.data::text), 0) AS bytes_before
          FROM adjutant.parked_references r
          LEFT JOIN LATERAL (SELECT * FROM adjutant.events f
                              WHERE f.partition = r.partition AND f.\"offset\" = r.\"offset\"
                             OFFSET 0) AS e ON true
         WHERE r.group_name = $1 AND r.generation = $2 AND r.key = $3
         ORDER BY r.partition, r.\"offset\" LIMIT $4) AS page
     WHERE bytes_before <= $5::bigint
     ORDER BY partition, \"offset\"";

/// Served by checkpoints_pkey and events_pkey, read backwards, and events_pkey.
const PROGRESS: &str = "
    SELECT c.reached, h.head, clock_timestamp(),
           (SELECT e.recorded_at FROM adjutant.events e
             WHERE e.partition = p AND e.\"offset\" = c.reached + 1)
      FROM generate_series(0, $2::integer - 1) AS p
     CROSS JOIN LATERAL (SELECT COALESCE((SELECT k.reached FROM adjutant.checkpoints k
                                           WHERE k.group_name = $1 AND k.partition = p
                                           ORDER BY k.previous DESC LIMIT 1), 0)) AS c(reached)
     CROSS JOIN LATERAL (SELECT COALESCE((SELECT e.\"offset\" FROM adjutant.events e
                                           WHERE e.partition = p
                                           ORDER BY e.\"offset\" DESC LIMIT 1), 0)) AS h(head)
     ORDER BY p";

const GENERATION: i32 = Generation::FIRST.0;

#[async_trait]
impl ParkedKeys for PostgresStore {
    async fn parked_streams(
        &self,
        group: &GroupName,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<StreamId>, StoreError> {
        let params: [&(dyn ToSql + Sync); 4] =
            [&group.as_str(), &GENERATION, &partition.0, &number(limit)];
        let rows = self.look(STREAMS, &params).await?;
        rows.iter().map(|row| stream(row.get(0))).collect()
    }

    async fn which_are_parked(
        &self,
        group: &GroupName,
        streams: &[StreamId],
    ) -> Result<Vec<StreamId>, StoreError> {
        let streams: Vec<&str> = streams.iter().map(StreamId::as_str).collect();
        let rows = self.look(WHICH, &[&group.as_str(), &GENERATION, &streams]).await?;
        rows.iter().map(|row| stream(row.get(0))).collect()
    }

    async fn parked_keys(
        &self,
        group: &GroupName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        let (generation, scope, key) = after.map_or((0, 0, ""), |after| {
            (after.generation.0, after.scope.code(), after.key.as_str())
        });
        let params: [&(dyn ToSql + Sync); 5] =
            [&group.as_str(), &generation, &scope, &key, &number(limit)];
        self.look(OF_GROUP, &params).await?.iter().map(parked_key).collect()
    }

    async fn parked_counts(&self) -> Result<Vec<ParkedCount>, StoreError> {
        let rows = self.look(COUNTS, &[]).await?;
        let count =
            |row: &Row| ParkedCount { group: GroupName::from_stored(row.get(0)), keys: row.get(1) };
        Ok(rows.iter().map(count).collect())
    }

    async fn ask_for_replay(
        &self,
        dead_letter: DeadLetterId,
        replay: Replay,
        by: &ActedBy,
    ) -> Result<ReplayAsked, StoreError> {
        self.ask_once(dead_letter, replay, by).await
    }

    async fn keys_to_replay(
        &self,
        owned: &[(GroupName, Partition)],
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        let groups: Vec<&str> = owned.iter().map(|(group, _)| group.as_str()).collect();
        let partitions: Vec<i16> = owned.iter().map(|(_, partition)| partition.0).collect();
        let rows = self.look(TO_REPLAY, &[&groups, &partitions, &number(limit)]).await?;
        rows.iter().map(parked_key).collect()
    }

    async fn begin_replay(&self, key: &ParkedKey, member: MemberId) -> Result<i32, StoreError> {
        self.begin_replay_step(key, member).await
    }

    async fn waiting_events(
        &self,
        key: &ParkedKey,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        let KeyName { group, generation, scope, key: own } = &key.name;
        let (group, limit) = (group.as_str(), number(limit));
        let rows = match scope {
            KeyScope::Stream => {
                let (partition, after) = (key.failed.partition.0, key.cursor_version.0);
                let params: [&(dyn ToSql + Sync); 6] =
                    [&partition, own, &after, &group, &limit, &WAITING_BYTES];
                self.look(EVENTS_OF_STREAM, &params).await?
            }
            KeyScope::Document | KeyScope::Instance => {
                let params: [&(dyn ToSql + Sync); 5] =
                    [&group, &generation.0, own, &limit, &WAITING_BYTES];
                self.look(EVENTS_REFERRED_TO, &params).await?
            }
        };
        rows.iter().map(waiting_event).collect()
    }

    async fn replay(
        &self,
        step: ReplayStep,
        fold: FoldDocuments<'_>,
    ) -> Result<ReplayProgress, StoreError> {
        self.replay_step(step, fold).await
    }

    async fn park_again(&self, key: &ParkedKey, failure: EventFailure) -> Result<(), StoreError> {
        self.park_key_again(key, failure).await
    }

    async fn event_progress(
        &self,
        group: &GroupName,
    ) -> Result<(Timestamp, Vec<EventProgress>), StoreError> {
        let count = i32::from(self.partitions().get());
        let rows = self.look(PROGRESS, &[&group.as_str(), &count]).await?;
        let now = rows.first().map(|row| row.get(2));
        let now = now.ok_or_else(|| StoreError::Internal("there is no partition".to_owned()))?;
        let progress = rows.iter().map(|row| EventProgress {
            checkpoint: Offset(row.get(0)),
            head: Offset(row.get(1)),
            waiting_since: row.get(3),
        });
        Ok((now, progress.collect()))
    }
}

impl PostgresStore {
    pub(super) async fn look(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, sql).await?;
        client.query(&statement, params).await.map_err(errors::before_commit)
    }
}

/// What other transactions do with parked keys.
impl Transaction {
    /// Begins: the checkpoint passes events of streams that are parked, and they must be so until
    /// this transaction has ended.
    pub(super) async fn begin_passing(
        &mut self,
        view: &str,
        streams: &[StreamId],
    ) -> Result<bool, StoreError> {
        let pass = self.prepare(PASS).await?;
        let (group, streams) =
            (group_of(view), streams.iter().map(StreamId::as_str).collect::<Vec<_>>());
        let held = self.begin_with(&pass, &[&group.as_str(), &GENERATION, &streams]).await?;
        Ok(held.len() == streams.len())
    }

    /// Parks keys, each with its dead letter; marks the documents that lag behind from now on.
    pub(super) async fn park(
        &mut self,
        view: &str,
        keys: &[NewParkedKey],
    ) -> Result<(), StoreError> {
        let group = group_of(view);
        for NewParkedKey { scope, key, documents, failure } in keys {
            let position = failure.position;
            let (cursor, version) = match scope {
                KeyScope::Stream => (position.offset.0 - 1, failure.version.0 - 1),
                KeyScope::Document | KeyScope::Instance => (0, 0),
            };
            let park = self.prepare(PARK).await?;
            let params: [&(dyn ToSql + Sync); 10] = [
                &group.as_str(),
                &GENERATION,
                &scope.code(),
                key,
                &position.partition.0,
                &position.offset.0,
                &cursor,
                &version,
                &failure.dead_letter.0,
                &failure.attempts,
            ];
            self.query(&park, &params).await?;
            self.open_dead_letter(&group, key, failure).await?;
            let mark = self.prepare(MARK).await?;
            let fed_by = (*scope == KeyScope::Stream).then_some(position.partition.0);
            self.query(&mark, &[&view, documents, &fed_by, key]).await?;
        }
        Ok(())
    }

    pub(super) async fn open_dead_letter(
        &mut self,
        group: &GroupName,
        key: &str,
        failure: &EventFailure,
    ) -> Result<(), StoreError> {
        let open = self.prepare(DEAD_LETTER).await?;
        let error = json_text(&failure.error)?;
        let params: [&(dyn ToSql + Sync); 12] = [
            &failure.position.partition.0,
            &failure.dead_letter.0,
            &DeadLetterKind::ParkedKey.code(),
            &group.as_str(),
            &GENERATION,
            &key,
            &failure.event_type,
            &failure.command_id.0,
            &failure.position.offset.0,
            &Jsonb(&error),
            &failure.fingerprint(),
            &failure.attempts,
        ];
        self.query(&open, &params).await?;
        Ok(())
    }

    /// Events that wait for documents which are parked.
    pub(super) async fn refer(
        &mut self,
        view: &str,
        references: &[ParkedReference],
    ) -> Result<(), StoreError> {
        if references.is_empty() {
            return Ok(());
        }
        let refer = self.prepare(REFER).await?;
        let keys: Vec<&str> = references.iter().map(|it| it.key.as_str()).collect();
        let partitions: Vec<i16> = references.iter().map(|it| it.position.partition.0).collect();
        let offsets: Vec<i64> = references.iter().map(|it| it.position.offset.0).collect();
        let group = group_of(view);
        let params: [&(dyn ToSql + Sync); 5] =
            [&group.as_str(), &GENERATION, &keys, &partitions, &offsets];
        self.query(&refer, &params).await?;
        Ok(())
    }
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn parked_key(row: &Row) -> Result<ParkedKey, StoreError> {
    Ok(ParkedKey {
        name: KeyName {
            group: GroupName::from_stored(row.get(0)),
            generation: Generation(row.get(1)),
            scope: key_scope(row.get(2))?,
            key: row.get(3),
        },
        failed: Position { partition: Partition(row.get(4)), offset: Offset(row.get(5)) },
        cursor: row.get(6),
        cursor_version: Version(row.get(7)),
        replay: replay(row.get(8))?,
        dead_letter: DeadLetterId(row.get(9)),
        attempts: row.get(10),
        parked_at: row.get(11),
        begun: row.get(12),
    })
}

fn waiting_event(row: &Row) -> Result<WaitingEvent, StoreError> {
    let (partition, offset) = (Partition(row.get(0)), Offset(row.get(1)));
    let name: Option<&str> = row.get(3);
    let name = name.ok_or_else(|| {
        StoreError::Corrupt(format!("the event {partition}:{offset}, which waits, is not there"))
    })?;
    Ok(WaitingEvent {
        partition,
        entry: EventEntry {
            offset,
            recorded_at: row.get(2),
            event: EventEnvelope {
                stream: stream(name)?,
                version: Version(row.get(4)),
                event_type: row.get(5),
                schema_version: row.get(6),
                data: RawJson::from_trusted(row.get(7)),
                command_id: CommandId(row.get(8)),
                metadata: metadata(row.get(9))?,
            },
        },
    })
}
