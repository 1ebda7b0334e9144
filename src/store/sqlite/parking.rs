//! Parked keys: parking and passing them inside of other transactions, and looking at them (`replaying`
//! brings them back). The single writer is the fence: nothing comes between a look and the write that rests on it.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore, storable,
    transaction::{Transaction, column, id, partition, time},
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind},
    message::{
        CommandId, EventEnvelope, GroupName, MemberId, Offset, Partition, Position, RawJson,
        StreamId, Timestamp, Version,
    },
    store::{
        ActedBy, EventEntry, EventFailure, EventProgress, Fence, FoldDocuments, Folded, Generation,
        KeyName, KeyScope, NewParkedKey, ParkedCount, ParkedKey, ParkedKeys, ParkedReference,
        Replay, ReplayAsked, ReplayProgress, ReplayStep, StoreError, WaitingEvent,
        stored::{WAITING_BYTES, group_of, json_text, key_scope, metadata, replay, stream},
    },
};

macro_rules! select_parked_key {
    ($rest:literal) => {
        concat!(
            "SELECT group_name, generation, scope, key, partition, failed_offset, cursor,
                    cursor_version, state, dead_letter_id, attempts, parked_at, begun
               FROM parked_keys ",
            $rest
        )
    };
}

/// Served by the primary key.
pub(super) const ONE: &str =
    select_parked_key!("WHERE group_name = ?1 AND generation = ?2 AND scope = ?3 AND key = ?4");

/// Served by the primary key.
const OF_GROUP: &str = select_parked_key!(
    "WHERE group_name = ?1 AND (generation, scope, key) > (?2, ?3, ?4)
      ORDER BY generation, scope, key LIMIT ?5"
);

/// Served by parked_keys_to_replay.
const TO_REPLAY: &str = select_parked_key!(
    "WHERE state > 1 AND group_name = ?1 AND partition = ?2
      ORDER BY parked_at, scope, key LIMIT ?3"
);

/// Served by parked_keys_of_partition.
const STREAMS: &str = "
    SELECT key FROM parked_keys
     WHERE group_name = ?1 AND generation = ?2 AND partition = ?3 AND scope = 1
     ORDER BY key LIMIT ?4";

/// Served by the primary key.
const IS_PARKED: &str = "
    SELECT 1 FROM parked_keys WHERE group_name = ?1 AND generation = ?2 AND scope = 1 AND key = ?3";

/// Served by the primary key.
const COUNTS: &str = "
    SELECT group_name, count(*) FROM parked_keys GROUP BY group_name ORDER BY group_name";

const PARK: &str = "
    INSERT INTO parked_keys (group_name, generation, scope, key, partition, failed_offset, cursor,
                             cursor_version, state, dead_letter_id, attempts, parked_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?10, ?11)";

const DEAD_LETTER: &str = "
    INSERT INTO dead_letters (partition, id, kind, group_name, generation, key, type, command_id,
                              \"offset\", error, fingerprint, attempts, died_at, state, state_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 1, ?13)";

/// A document of scope Stream that another partition feeds belongs to another stream.
const MARK: &str = "
    INSERT INTO views AS v (view, key, partition, version, value, as_of, updated_at, parked)
    VALUES (?1, ?2, ?3, 0, NULL, '{}', ?4, ?5)
    ON CONFLICT (view, key) DO UPDATE SET parked = excluded.parked
     WHERE excluded.partition IS NULL OR v.partition IS excluded.partition";

const REFER: &str = "
    INSERT INTO parked_references (group_name, generation, key, partition, \"offset\")
    VALUES (?1, ?2, ?3, ?4, ?5)";

/// Served by UNIQUE (partition, stream, version).
const EVENTS_OF_STREAM: &str = "
    SELECT partition, \"offset\", recorded_at, stream, version, type, schema_version, data,
           command_id, metadata
      FROM events
     WHERE partition = ?1 AND stream = ?2 AND version > ?3 AND \"offset\" <= ?4
     ORDER BY version LIMIT ?5";

/// Served by the primary keys.
const EVENTS_REFERRED_TO: &str = "
    SELECT r.partition, r.\"offset\", e.recorded_at, e.stream, e.version, e.type, e.schema_version,
           e.data, e.command_id, e.metadata
      FROM parked_references r
      LEFT JOIN events e ON e.partition = r.partition AND e.\"offset\" = r.\"offset\"
     WHERE r.group_name = ?1 AND r.generation = ?2 AND r.key = ?3
     ORDER BY r.partition, r.\"offset\" LIMIT ?4";

/// Served by the primary key.
const RECORDED_AT: &str = "SELECT recorded_at FROM events WHERE partition = ?1 AND \"offset\" = ?2";

const GENERATION: i32 = Generation::FIRST.0;

#[async_trait]
impl ParkedKeys for SqliteStore {
    async fn parked_streams(
        &self,
        group: &GroupName,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<StreamId>, StoreError> {
        let (group, limit) = (group.clone(), number(limit));
        let streams = self.engine.read(move |transaction| {
            let params = params![group.as_str(), GENERATION, partition.0, limit];
            transaction.all(STREAMS, params, |row| stream(&column::<String>(row, 0)?))
        });
        streams.await
    }

    async fn which_are_parked(
        &self,
        group: &GroupName,
        streams: &[StreamId],
    ) -> Result<Vec<StreamId>, StoreError> {
        let (group, mut streams) = (group.clone(), streams.to_vec());
        let parked = self.engine.read(move |transaction| {
            let mut parked = Vec::new();
            for stream in streams.drain(..) {
                if transaction.is_parked(&group, &stream)? {
                    parked.push(stream);
                }
            }
            Ok(parked)
        });
        parked.await
    }

    async fn parked_keys(
        &self,
        group: &GroupName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        let (group, limit) = (group.clone(), number(limit));
        let (generation, scope, key) = after.map_or((0, 0, String::new()), |after| {
            (after.generation.0, after.scope.code(), after.key.clone())
        });
        let keys = self.engine.read(move |transaction| {
            let params = params![group.as_str(), generation, scope, key, limit];
            transaction.all(OF_GROUP, params, parked_key)
        });
        keys.await
    }

    async fn parked_counts(&self) -> Result<Vec<ParkedCount>, StoreError> {
        let counts = self.engine.read(|transaction| {
            transaction.all(COUNTS, (), |row| {
                let group = GroupName::from_stored(&column::<String>(row, 0)?);
                Ok(ParkedCount { group, keys: column(row, 1)? })
            })
        });
        counts.await
    }

    async fn ask_for_replay(
        &self,
        dead_letter: DeadLetterId,
        replay: Replay,
        by: &ActedBy,
    ) -> Result<ReplayAsked, StoreError> {
        let by = by.clone();
        self.engine
            .write(move |transaction| transaction.ask_for_replay(dead_letter, replay, &by))
            .await
    }

    async fn keys_to_replay(
        &self,
        owned: &[(GroupName, Partition)],
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        let (owned, limit) = (owned.to_vec(), number(limit));
        let keys = self.engine.read(move |transaction| {
            let mut keys = Vec::new();
            for (group, partition) in &owned {
                let params = params![group.as_str(), partition.0, limit];
                keys.extend(transaction.all(TO_REPLAY, params, parked_key)?);
            }
            Ok(keys)
        });
        keys.await
    }

    async fn begin_replay(&self, key: &ParkedKey, member: MemberId) -> Result<i32, StoreError> {
        let key = key.clone();
        self.engine.write(move |transaction| transaction.begin_replay(&key, member)).await
    }

    async fn waiting_events(
        &self,
        key: &ParkedKey,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        let (key, limit) = (key.clone(), number(limit));
        self.engine.read(move |transaction| transaction.waiting_events(&key, limit)).await
    }

    async fn replay(
        &self,
        step: ReplayStep,
        fold: FoldDocuments<'_>,
    ) -> Result<ReplayProgress, StoreError> {
        let loaded = step.clone();
        self.engine
            .converse(
                move |transaction| transaction.hold_key(&loaded),
                fold,
                move |transaction, folded: Folded| transaction.replay(&step, &folded),
            )
            .await
    }

    async fn park_again(&self, key: &ParkedKey, failure: EventFailure) -> Result<(), StoreError> {
        let key = key.clone();
        self.engine.write(move |transaction| transaction.park_again(&key, &failure)).await
    }

    async fn event_progress(
        &self,
        group: &GroupName,
    ) -> Result<(Timestamp, Vec<EventProgress>), StoreError> {
        let group = group.clone();
        let progress = self.engine.read(move |transaction| {
            let all = transaction.partitions.all();
            let progress = all.map(|partition| {
                let checkpoint = transaction.checkpoint(&group, partition)?;
                let first = params![partition.0, checkpoint.next().0];
                Ok(EventProgress {
                    checkpoint,
                    head: transaction.event_head(partition)?,
                    waiting_since: transaction.first(RECORDED_AT, first, |row| time(row, 0))?,
                })
            });
            Ok((transaction.time()?, progress.collect::<Result<_, StoreError>>()?))
        });
        progress.await
    }
}

/// What other transactions do with parked keys.
impl Transaction<'_> {
    fn is_parked(&self, group: &GroupName, stream: &StreamId) -> Result<bool, StoreError> {
        self.exists(IS_PARKED, params![group.as_str(), GENERATION, stream.as_str()])
    }

    /// The checkpoint passes events of streams that are parked: they must be so.
    pub(super) fn pass_parked(&self, view: &str, streams: &[StreamId]) -> Result<(), StoreError> {
        let group = group_of(view);
        for stream in streams {
            if !self.is_parked(&group, stream)? {
                return Err(StoreError::Fenced(Fence::Parked));
            }
        }
        Ok(())
    }

    /// Parks keys, each with its dead letter; marks the documents that lag behind from now on.
    pub(super) fn park(&self, view: &str, keys: &[NewParkedKey]) -> Result<(), StoreError> {
        let group = group_of(view);
        for parked in keys {
            let NewParkedKey { scope, key, documents, failure } = parked;
            let key = storable::text(key)?;
            let name = params![group.as_str(), GENERATION, scope.code(), key];
            if self.exists(ONE, name)? {
                return Err(StoreError::Fenced(Fence::Parked));
            }
            let (position, letter) = (failure.position, failure.dead_letter.0);
            let (cursor, version) = match scope {
                KeyScope::Stream => (position.offset.0 - 1, failure.version.0 - 1),
                KeyScope::Document | KeyScope::Instance => (0, 0),
            };
            self.execute(
                PARK,
                params![
                    group.as_str(),
                    GENERATION,
                    scope.code(),
                    key,
                    position.partition.0,
                    position.offset.0,
                    cursor,
                    version,
                    letter.as_bytes(),
                    failure.attempts,
                    self.now,
                ],
            )?;
            self.open_dead_letter(&group, key, failure)?;
            let fed_by = (*scope == KeyScope::Stream).then_some(position.partition.0);
            for document in documents {
                let document = storable::text(document)?;
                self.execute(MARK, params![view, document, fed_by, self.now, key])?;
            }
        }
        Ok(())
    }

    pub(super) fn open_dead_letter(
        &self,
        group: &GroupName,
        key: &str,
        failure: &EventFailure,
    ) -> Result<(), StoreError> {
        let error = json_text(&failure.error)?;
        self.execute(
            DEAD_LETTER,
            params![
                failure.position.partition.0,
                failure.dead_letter.0.as_bytes(),
                DeadLetterKind::ParkedKey.code(),
                group.as_str(),
                GENERATION,
                key,
                failure.event_type,
                failure.command_id.0.as_bytes(),
                failure.position.offset.0,
                storable::json(&error)?,
                failure.fingerprint(),
                failure.attempts,
                self.now,
            ],
        )?;
        Ok(())
    }

    /// Events that wait for documents which are parked.
    pub(super) fn refer(
        &self,
        view: &str,
        references: &[ParkedReference],
    ) -> Result<(), StoreError> {
        let group = group_of(view);
        for ParkedReference { key, position } in references {
            let place = (position.partition.0, position.offset.0);
            self.execute(REFER, params![group.as_str(), GENERATION, key, place.0, place.1])?;
        }
        Ok(())
    }
}

/// Looking at what waits.
impl Transaction<'_> {
    fn waiting_events(&self, key: &ParkedKey, limit: i64) -> Result<Vec<WaitingEvent>, StoreError> {
        let bytes = usize::try_from(WAITING_BYTES).unwrap_or(usize::MAX);
        let size = |waiting: &WaitingEvent| waiting.entry.event.data.as_str().len();
        let KeyName { group, generation, scope, key: name } = &key.name;
        match scope {
            KeyScope::Stream => {
                let partition = key.failed.partition;
                let (after, to) = (key.cursor_version.0, self.checkpoint(group, partition)?.0);
                let params = params![partition.0, name, after, to, limit];
                self.within(bytes, EVENTS_OF_STREAM, params, size, waiting_event)
            }
            KeyScope::Document | KeyScope::Instance => {
                let params = params![group.as_str(), generation.0, name, limit];
                self.within(bytes, EVENTS_REFERRED_TO, params, size, waiting_event)
            }
        }
    }
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn parked_key(row: &Row<'_>) -> Result<ParkedKey, StoreError> {
    Ok(ParkedKey {
        name: KeyName {
            group: GroupName::from_stored(&column::<String>(row, 0)?),
            generation: Generation(column(row, 1)?),
            scope: key_scope(column(row, 2)?)?,
            key: column(row, 3)?,
        },
        failed: Position { partition: partition(row, 4)?, offset: Offset(column(row, 5)?) },
        cursor: column(row, 6)?,
        cursor_version: Version(column(row, 7)?),
        replay: replay(column(row, 8)?)?,
        dead_letter: DeadLetterId(id(row, 9)?),
        attempts: column(row, 10)?,
        parked_at: time(row, 11)?,
        begun: column(row, 12)?,
    })
}

fn waiting_event(row: &Row<'_>) -> Result<WaitingEvent, StoreError> {
    let (partition, offset) = (partition(row, 0)?, Offset(column(row, 1)?));
    let name = column::<Option<String>>(row, 3)?.ok_or_else(|| {
        StoreError::Corrupt(format!("the event {partition}:{offset}, which waits, is not there"))
    })?;
    Ok(WaitingEvent {
        partition,
        entry: EventEntry {
            offset,
            recorded_at: time(row, 2)?,
            event: EventEnvelope {
                stream: stream(&name)?,
                version: Version(column(row, 4)?),
                event_type: column(row, 5)?,
                schema_version: column(row, 6)?,
                data: RawJson::from_trusted(column(row, 7)?),
                command_id: CommandId(id(row, 8)?),
                metadata: metadata(column::<Option<String>>(row, 9)?.as_deref())?,
            },
        },
    })
}
