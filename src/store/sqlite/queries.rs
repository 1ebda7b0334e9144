//! The read side.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore,
    clock::to_micros,
    transaction::{Transaction, column, id, maybe_time, partition, time},
    views::document,
};
use crate::{
    message::{
        Attempt, CommandId, Offset, Outcome, OutcomeStatus, Partition, Position, RawJson, StreamId,
        Version,
    },
    store::{
        CommandFilter, CommandProgress, CommandRecord, FailedAttempt, MOST_FAILURES, Page, Queries,
        StoreError, StoredStreamEvent, ViewAt, ViewRecord,
        paging::{CommandPage, end_of_prefix},
        stored,
    },
};

macro_rules! select_command {
    ($from:literal) => {
        concat!(
            "SELECT c.id, c.partition, c.stream, c.type, c.lane, c.payload, c.metadata,
                    c.not_before, c.content_hash, c.accepted_at,
                    EXISTS (SELECT 1 FROM schedule s
                             WHERE s.command_id = c.id AND s.reason IN ('not_before', 'immediate')),
                    EXISTS (SELECT 1 FROM holds h WHERE h.partition = c.partition
                             AND h.command_id = c.id AND h.state IN (2, 3)),
                    COALESCE((SELECT max(a.attempt) FROM attempts a
                               WHERE a.partition = c.partition AND a.command_id = c.id), 0),
                    o.status, o.first_offset, o.events, o.version, o.reply, o.error, o.attempts,
                    o.completed_at, c.not_after
               FROM ",
            $from,
            " LEFT JOIN outcomes o ON o.partition = c.partition AND o.command_id = c.id "
        )
    };
}

/// Served by the primary key, read backwards.
const FAILURES: &str = "
    SELECT attempt, error, failed_at, next_due_at FROM attempts
     WHERE partition = ?1 AND command_id = ?2
     ORDER BY attempt DESC LIMIT ?3";

/// Served by the primary key, and for what belongs to it by schedule_of_command, holds_of_command
/// and the primary key of attempts.
const COMMAND: &str = concat!(select_command!("commands c"), "WHERE c.id = ?1");

/// Served by schedule_of_command, holds_of_command and the primary keys of attempts and outcomes.
const STATUS: &str = "
    SELECT EXISTS (SELECT 1 FROM schedule s
                    WHERE s.command_id = ?2 AND s.reason IN ('not_before', 'immediate')),
           (SELECT h.state IN (2, 3) FROM holds h
             WHERE h.partition = ?1 AND h.command_id = ?2) IS TRUE,
           coalesce((SELECT max(a.attempt) FROM attempts a
                      WHERE a.partition = ?1 AND a.command_id = ?2), 0),
           o.status, o.attempts
      FROM (SELECT 1) LEFT JOIN outcomes o ON o.partition = ?1 AND o.command_id = ?2";

/// Served by commands_newest, read backwards.
const NEWEST: &str = concat!(
    select_command!("commands c"),
    "WHERE (c.accepted_at, c.id) < (?1, ?2) ORDER BY c.accepted_at DESC, c.id DESC LIMIT ?3"
);

/// Served by commands_of_stream, read backwards.
const NEWEST_OF_STREAM: &str = concat!(
    select_command!("commands c"),
    "WHERE c.stream = ?4 AND (c.accepted_at, c.id) < (?1, ?2)
      ORDER BY c.accepted_at DESC, c.id DESC LIMIT ?3"
);

/// Served by UNIQUE (partition, stream, version).
const STREAM: &str = "
    SELECT version, \"offset\", type, schema_version, data, command_id, metadata, recorded_at
      FROM events
     WHERE partition = ?1 AND stream = ?2 AND version > ?3
     ORDER BY version LIMIT ?4";

/// Served by the primary key.
const EVENT_AT: &str = "
    SELECT version, \"offset\", type, schema_version, data, command_id, metadata, recorded_at
      FROM events WHERE partition = ?1 AND \"offset\" = ?2";

/// Served by the primary key.
const VIEW: &str = "
    SELECT key, version, value, as_of, parked FROM views
     WHERE view = ?1 AND key = ?2 AND value IS NOT NULL";

/// Whether an event at or before a position waits for a document, or for the streams that are parked
/// among two: that of the position, and the one with which the document waits. Served by primary
/// keys and UNIQUE (partition, stream, version).
const WAITS: &str = "
    SELECT EXISTS (SELECT 1 FROM parked_references r
                    WHERE r.group_name = ?1 AND r.generation = 1 AND r.key = ?3
                      AND r.partition = ?4 AND r.\"offset\" <= ?5)
        OR EXISTS (SELECT 1
                     FROM parked_keys k
                     JOIN events e ON e.partition = k.partition AND e.stream = k.key
                                  AND e.version = k.cursor_version + 1
                    WHERE k.group_name = ?1 AND k.generation = 1 AND k.scope = 1
                      AND k.key IN ((SELECT p.stream FROM events p
                                      WHERE p.partition = ?4 AND p.\"offset\" = ?5),
                                    (SELECT d.parked FROM views d
                                      WHERE d.view = ?2 AND d.key = ?3))
                      AND k.partition = ?4 AND e.\"offset\" <= ?5)";

/// A range of the primary key; the prefix is a range too, because keys sort by bytes.
const VIEWS: &str = "
    SELECT key, version, value, as_of, parked FROM views
     WHERE view = ?1 AND key > ?2 AND key >= ?3 AND (?4 IS NULL OR key < ?4)
       AND value IS NOT NULL
     ORDER BY key LIMIT ?5";

#[async_trait]
impl Queries for SqliteStore {
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        self.engine.read(move |transaction| transaction.command(id)).await
    }

    async fn statuses(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, CommandProgress)>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let commands = commands.to_vec();
        let statuses = self.engine.read(move |transaction| {
            let statuses = commands.iter().filter_map(|(partition, id)| {
                let params = params![partition.0, id.0.as_bytes()];
                let found = transaction.first(STATUS, params, progress).transpose()?;
                Some(found.map(|progress| (*id, progress)))
            });
            statuses.collect()
        });
        statuses.await
    }

    async fn commands_with_ids(&self, ids: &[CommandId]) -> Result<Vec<CommandRecord>, StoreError> {
        let ids = ids.to_vec();
        let found = self.engine.read(move |transaction| {
            let found = ids.iter().filter_map(|id| transaction.command(*id).transpose());
            found.collect()
        });
        found.await
    }

    async fn commands(
        &self,
        filter: &CommandFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<CommandRecord>, StoreError> {
        let (filter, after) = (filter.clone(), after.map(str::to_owned));
        let page = self.engine.read(move |transaction| {
            let mut page = CommandPage::after(&filter, after.as_deref(), limit)?;
            loop {
                let rows = newest_commands(transaction, &filter, &page)?;
                if let Some(page) = page.add(rows) {
                    return Ok(page);
                }
            }
        });
        page.await
    }

    async fn stream_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: i64,
    ) -> Result<Vec<StoredStreamEvent>, StoreError> {
        let stream = stream.clone();
        let events = self.engine.read(move |transaction| {
            let partition = transaction.partitions.of(&stream).0;
            let params = params![partition, stream.as_str(), after.0, limit];
            transaction.all(STREAM, params, stream_event)
        });
        events.await
    }

    async fn view(&self, view: &str, key: &str) -> Result<Option<ViewRecord>, StoreError> {
        let key = [view.to_owned(), key.to_owned()];
        self.engine.read(move |transaction| transaction.first(VIEW, key, document)).await
    }

    async fn view_at(
        &self,
        view: &str,
        key: &str,
        position: Position,
    ) -> Result<ViewAt, StoreError> {
        let (view, key) = (view.to_owned(), key.to_owned());
        let found = self.engine.read(move |transaction| {
            let group = stored::group_of(&view);
            let (partition, offset) = (position.partition.0, position.offset.0);
            let waits = params![group.as_str(), view, key, partition, offset];
            Ok(ViewAt {
                parked: transaction.number(WAITS, waits)? != 0,
                record: transaction.first(VIEW, params![view, key], document)?,
            })
        });
        found.await
    }

    async fn views(
        &self,
        view: &str,
        prefix: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ViewRecord>, StoreError> {
        let (view, prefix) = (view.to_owned(), prefix.to_owned());
        let (end, after) = (end_of_prefix(&prefix), after.unwrap_or_default().to_owned());
        let found = self.engine.read(move |transaction| {
            transaction.all(VIEWS, params![view, after, prefix, end, limit], document)
        });
        found.await
    }
}

impl Transaction<'_> {
    pub(super) fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        let Some(mut found) = self.first(COMMAND, [id.0.as_bytes()], command)? else {
            return Ok(None);
        };
        if found.failed_attempts > 0 {
            let params = params![found.partition.0, id.0.as_bytes(), MOST_FAILURES];
            found.failures = self.all(FAILURES, params, failed_attempt)?;
        }
        Ok(Some(found))
    }

    pub(super) fn event_at(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> Result<Option<StoredStreamEvent>, StoreError> {
        self.first(EVENT_AT, params![partition.0, offset.0], stream_event)
    }
}

fn newest_commands(
    transaction: &Transaction<'_>,
    filter: &CommandFilter,
    page: &CommandPage<'_>,
) -> Result<Vec<CommandRecord>, StoreError> {
    let cursor = page.cursor();
    let (accepted_at, id, step) = (to_micros(cursor.accepted_at), cursor.id.0, page.step());
    match &filter.stream {
        None => transaction.all(NEWEST, params![accepted_at, id.as_bytes(), step], command),
        Some(stream) => transaction.all(
            NEWEST_OF_STREAM,
            params![accepted_at, id.as_bytes(), step, stream.as_str()],
            command,
        ),
    }
}

fn command(row: &Row<'_>) -> Result<CommandRecord, StoreError> {
    let partition = partition(row, 1)?;
    Ok(CommandRecord {
        id: CommandId(id(row, 0)?),
        partition,
        stream: stored::stream(&column::<String>(row, 2)?)?,
        command_type: column(row, 3)?,
        lane: stored::lane(column(row, 4)?)?,
        payload: RawJson::from_trusted(column(row, 5)?),
        metadata: stored::metadata(column::<Option<String>>(row, 6)?.as_deref())?,
        not_before: maybe_time(row, 7)?,
        not_after: maybe_time(row, 21)?,
        content_hash: stored::content_hash(&column::<Vec<u8>>(row, 8)?)?,
        accepted_at: time(row, 9)?,
        scheduled: column(row, 10)?,
        waiting: column(row, 11)?,
        failed_attempts: column(row, 12)?,
        failures: Vec::new(),
        outcome: outcome(row, partition)?,
    })
}

fn progress(row: &Row<'_>) -> Result<CommandProgress, StoreError> {
    let status = column::<Option<i16>>(row, 3)?.map(outcome_status).transpose()?;
    Ok(CommandProgress {
        scheduled: column(row, 0)?,
        waiting: column(row, 1)?,
        failed_attempt: column(row, 2)?,
        ended: status.zip(column::<Option<i32>>(row, 4)?),
    })
}

fn outcome_status(code: i16) -> Result<OutcomeStatus, StoreError> {
    let unknown = || StoreError::Corrupt(format!("there is no outcome status {code}"));
    OutcomeStatus::from_code(code).ok_or_else(unknown)
}

fn outcome(row: &Row<'_>, partition: Partition) -> Result<Option<Outcome>, StoreError> {
    let Some(status) = column::<Option<i16>>(row, 13)? else { return Ok(None) };
    Ok(Some(Outcome {
        status: outcome_status(status)?,
        positions: stored::positions(partition, column(row, 14)?, column(row, 15)?),
        version: Version(column(row, 16)?),
        reply: stored::raw(column(row, 17)?),
        error: stored::failure(column::<Option<String>>(row, 18)?.as_deref())?,
        attempts: column(row, 19)?,
        completed_at: time(row, 20)?,
    }))
}

fn failed_attempt(row: &Row<'_>) -> Result<FailedAttempt, StoreError> {
    Ok(FailedAttempt {
        attempt: Attempt(column(row, 0)?),
        error: stored::parse(&column::<String>(row, 1)?)?,
        failed_at: time(row, 2)?,
        next_due_at: maybe_time(row, 3)?,
    })
}

fn stream_event(row: &Row<'_>) -> Result<StoredStreamEvent, StoreError> {
    Ok(StoredStreamEvent {
        version: Version(column(row, 0)?),
        offset: Offset(column(row, 1)?),
        event_type: column(row, 2)?,
        schema_version: column(row, 3)?,
        data: RawJson::from_trusted(column(row, 4)?),
        command_id: CommandId(id(row, 5)?),
        metadata: stored::metadata(column::<Option<String>>(row, 6)?.as_deref())?,
        recorded_at: time(row, 7)?,
    })
}
