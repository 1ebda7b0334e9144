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
    message::{CommandId, Offset, Outcome, OutcomeStatus, Partition, RawJson, StreamId, Version},
    store::{
        CommandFilter, CommandProgress, CommandRecord, Page, Queries, StoreError,
        StoredStreamEvent, ViewRecord,
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
                             WHERE s.command_id = c.id AND s.reason = 'not_before'),
                    o.status, o.first_offset, o.events, o.version, o.reply, o.error, o.attempts,
                    o.completed_at
               FROM ",
            $from,
            " LEFT JOIN outcomes o ON o.partition = c.partition AND o.command_id = c.id "
        )
    };
}

/// Served by the primary key.
const COMMAND: &str = concat!(select_command!("commands c"), "WHERE c.id = ?1");

/// Served by schedule_of_command, holds_of_command and the primary keys of attempts and outcomes.
const STATUS: &str = "
    SELECT EXISTS (SELECT 1 FROM schedule s
                    WHERE s.command_id = ?2 AND s.reason = 'not_before'),
           (SELECT h.state = 2 FROM holds h
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
const VIEW: &str = "
    SELECT key, version, value, as_of FROM views
     WHERE view = ?1 AND key = ?2 AND value IS NOT NULL";

/// A range of the primary key; the prefix is a range too, because keys sort by bytes.
const VIEWS: &str = "
    SELECT key, version, value, as_of FROM views
     WHERE view = ?1 AND key > ?2 AND key >= ?3 AND (?4 IS NULL OR key < ?4)
       AND value IS NOT NULL
     ORDER BY key LIMIT ?5";

#[async_trait]
impl Queries for SqliteStore {
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        let found = self
            .engine
            .read(move |transaction| transaction.first(COMMAND, [id.0.as_bytes()], command));
        found.await
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
            let found = ids.iter().filter_map(|id| {
                transaction.first(COMMAND, [id.0.as_bytes()], command).transpose()
            });
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
        content_hash: stored::content_hash(&column::<Vec<u8>>(row, 8)?)?,
        accepted_at: time(row, 9)?,
        scheduled: column(row, 10)?,
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
    let Some(status) = column::<Option<i16>>(row, 11)? else { return Ok(None) };
    Ok(Some(Outcome {
        status: outcome_status(status)?,
        positions: stored::positions(partition, column(row, 12)?, column(row, 13)?),
        version: Version(column(row, 14)?),
        reply: stored::raw(column(row, 15)?),
        error: stored::failure(column::<Option<String>>(row, 16)?.as_deref())?,
        attempts: column(row, 17)?,
        completed_at: time(row, 18)?,
    }))
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
