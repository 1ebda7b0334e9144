//! The read side, by sqlx.

use async_trait::async_trait;
use sqlx::{Row, postgres::PgRow};

use super::{PostgresStore, columns, errors};
use crate::{
    message::{
        Attempt, CommandId, Offset, Outcome, OutcomeStatus, Partition, Position, RawJson, StreamId,
        Version,
    },
    store::{
        CommandFilter, CommandProgress, CommandRecord, DocumentRow, FailedAttempt, MOST_FAILURES,
        Page, Queries, StoreError, StoredStreamEvent, ViewAt, ViewRecord,
        paging::{CommandPage, Cursor, end_of_prefix},
    },
};

macro_rules! select_command {
    ($from:literal) => {
        concat!(
            "SELECT c.id, c.partition, c.stream, c.type, c.lane, c.payload::text AS payload,
                    c.metadata::text AS metadata, c.not_before, c.not_after, c.content_hash,
                    c.accepted_at,
                    EXISTS (SELECT 1 FROM adjutant.schedule s WHERE s.bucket = c.bucket
                             AND s.command_id = c.id AND s.reason IN ('not_before', 'immediate')) AS scheduled,
                    EXISTS (SELECT 1 FROM adjutant.holds h WHERE h.partition = c.partition
                             AND h.command_id = c.id AND h.state IN (2, 3)) AS waiting,
                    COALESCE((SELECT max(a.attempt) FROM adjutant.attempts a
                               WHERE a.partition = c.partition AND a.command_id = c.id), 0)
                        AS failed_attempts,
                    o.status, o.first_offset, o.events, o.version, o.reply::text AS reply,
                    o.error::text AS error, o.attempts, o.completed_at
               FROM ",
            $from,
            " LEFT JOIN adjutant.outcomes o ON o.partition = c.partition AND o.command_id = c.id "
        )
    };
}

/// Served by attempts_pkey, read backwards.
const FAILURES: &str = "
    SELECT attempt, error::text AS error, failed_at, next_due_at FROM adjutant.attempts
     WHERE partition = $1 AND command_id = $2
     ORDER BY attempt DESC LIMIT $3";

/// Served by commands_pkey, and for what belongs to it by schedule_of_command, holds_of_command and
/// attempts_pkey.
const COMMAND: &str =
    concat!(select_command!("adjutant.commands c"), "WHERE c.bucket = $1 AND c.id = $2");

/// Served by commands_pkey: OFFSET 0 keeps the planner from joining by anything else.
const WITH_IDS: &str = select_command!(
    "unnest($1::smallint[], $2::uuid[]) AS w(bucket, id)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.commands k
                          WHERE k.bucket = w.bucket AND k.id = w.id OFFSET 0) AS c"
);

/// Served by schedule_of_command, holds_of_command, attempts_pkey (read backwards) and
/// outcomes_pkey. Scalar queries and OFFSET 0 keep the planner from reading whole tables.
const STATUSES: &str = "
    SELECT w.id,
           (SELECT true FROM adjutant.schedule s
             WHERE s.bucket = w.bucket AND s.command_id = w.id AND s.reason IN ('not_before', 'immediate')
             LIMIT 1) IS NOT NULL AS scheduled,
           (SELECT h.state IN (2, 3) FROM adjutant.holds h
             WHERE h.partition = w.partition AND h.command_id = w.id) IS TRUE AS waiting,
           coalesce((SELECT a.attempt FROM adjutant.attempts a
                      WHERE a.partition = w.partition AND a.command_id = w.id
                      ORDER BY a.partition DESC, a.command_id DESC, a.attempt DESC LIMIT 1), 0)
               AS failed_attempt,
           o.status, o.attempts
      FROM unnest($1::smallint[], $2::smallint[], $3::uuid[]) AS w(partition, bucket, id)
      LEFT JOIN LATERAL (SELECT f.status, f.attempts FROM adjutant.outcomes f
                          WHERE f.partition = w.partition AND f.command_id = w.id OFFSET 0) AS o
             ON true";

/// Served by commands_newest, read backwards.
const NEWEST: &str = concat!(
    select_command!(
        "(SELECT * FROM adjutant.commands WHERE (accepted_at, id) < ($1, $2)
           ORDER BY accepted_at DESC, id DESC LIMIT $3) AS c"
    ),
    "ORDER BY c.accepted_at DESC, c.id DESC"
);

/// Served by commands_of_stream, read backwards.
const NEWEST_OF_STREAM: &str = concat!(
    select_command!(
        "(SELECT * FROM adjutant.commands WHERE stream = $4 AND (accepted_at, id) < ($1, $2)
           ORDER BY accepted_at DESC, id DESC LIMIT $3) AS c"
    ),
    "ORDER BY c.accepted_at DESC, c.id DESC"
);

/// Served by events_partition_stream_version_key.
const STREAM: &str = "
    SELECT version, \"offset\", type, schema_version, data::text AS data, command_id,
           metadata::text AS metadata, recorded_at
      FROM adjutant.events
     WHERE partition = $1 AND stream = $2 AND version > $3
     ORDER BY version LIMIT $4";

/// Served by views_pkey.
const VIEW: &str = "
    SELECT key, version, value::text AS value, as_of::text AS as_of, parked
      FROM adjutant.views WHERE view = $1 AND key = $2 AND value IS NOT NULL";

/// A document, and whether an event at or before a position waits for it, or for the streams that are
/// parked among two: that of the position, and the one with which the document waits. Served by
/// views_pkey, parked_references_pkey, parked_keys_pkey, events_pkey and
/// events_partition_stream_version_key.
const VIEW_AT: &str = "
    SELECT d.key, d.version, d.value::text AS value, d.as_of::text AS as_of, d.parked,
           EXISTS (SELECT 1 FROM adjutant.parked_references r
                    WHERE r.group_name = $1 AND r.generation = 1 AND r.key = $3
                      AND r.partition = $4 AND r.\"offset\" <= $5)
        OR EXISTS (SELECT 1
                     FROM adjutant.parked_keys k
                     JOIN adjutant.events e ON e.partition = k.partition AND e.stream = k.key
                                           AND e.version = k.cursor_version + 1
                    WHERE k.group_name = $1 AND k.generation = 1 AND k.scope = 1
                      AND k.key IN ((SELECT p.stream FROM adjutant.events p
                                      WHERE p.partition = $4 AND p.\"offset\" = $5), d.parked)
                      AND k.partition = $4 AND e.\"offset\" <= $5) AS waits
      FROM (SELECT 1) AS one
      LEFT JOIN adjutant.views d ON d.view = $2 AND d.key = $3";

/// A range of views_pkey; the prefix is a range too, because keys sort by bytes (COLLATE \"C\").
const VIEWS: &str = "
    SELECT key, version, value::text AS value, as_of::text AS as_of, parked
      FROM adjutant.views
     WHERE view = $1 AND key > $2 AND key >= $3 AND ($4::text IS NULL OR key < $4)
       AND value IS NOT NULL
     ORDER BY key LIMIT $5";

#[async_trait]
impl Queries for PostgresStore {
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        let found = sqlx::query(COMMAND).bind(self.bucket(id)).bind(id.0);
        let found = found.fetch_optional(&self.read).await.map_err(errors::read)?;
        let Some(mut found) = found.as_ref().map(command).transpose()? else { return Ok(None) };
        if found.failed_attempts > 0 {
            found.failures = self.failures(found.partition, id).await?;
        }
        Ok(Some(found))
    }

    async fn statuses(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, CommandProgress)>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let partitions: Vec<i16> = commands.iter().map(|(partition, _)| partition.0).collect();
        let buckets: Vec<i16> = commands.iter().map(|(_, id)| self.bucket(*id)).collect();
        let ids: Vec<_> = commands.iter().map(|(_, id)| id.0).collect();
        let rows = sqlx::query(STATUSES)
            .bind(partitions)
            .bind(buckets)
            .bind(ids)
            .fetch_all(&self.read)
            .await
            .map_err(errors::read)?;
        rows.iter().map(progress).collect()
    }

    async fn commands_with_ids(&self, ids: &[CommandId]) -> Result<Vec<CommandRecord>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let buckets: Vec<i16> = ids.iter().map(|id| self.bucket(*id)).collect();
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query(WITH_IDS).bind(buckets).bind(ids).fetch_all(&self.read).await;
        let mut found: Vec<CommandRecord> =
            rows.map_err(errors::read)?.iter().map(command).collect::<Result<_, _>>()?;
        for record in found.iter_mut().filter(|record| record.failed_attempts > 0) {
            record.failures = self.failures(record.partition, record.id).await?;
        }
        Ok(found)
    }

    async fn commands(
        &self,
        filter: &CommandFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<CommandRecord>, StoreError> {
        let mut page = CommandPage::after(filter, after, limit)?;
        loop {
            let rows = self.newest_commands(filter, page.cursor(), page.step()).await?;
            let rows = rows.iter().map(command).collect::<Result<Vec<_>, _>>()?;
            if let Some(page) = page.add(rows) {
                return Ok(page);
            }
        }
    }

    async fn stream_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: i64,
    ) -> Result<Vec<StoredStreamEvent>, StoreError> {
        let rows = sqlx::query(STREAM)
            .bind(self.partitions().of(stream).0)
            .bind(stream.as_str())
            .bind(after.0)
            .bind(limit)
            .fetch_all(&self.read)
            .await
            .map_err(errors::read)?;
        rows.iter().map(stream_event).collect()
    }

    async fn view(&self, view: &str, key: &str) -> Result<Option<ViewRecord>, StoreError> {
        let row = sqlx::query(VIEW).bind(view).bind(key).fetch_optional(&self.read).await;
        row.map_err(errors::read)?.as_ref().map(document).transpose()
    }

    async fn view_at(
        &self,
        view: &str,
        key: &str,
        position: Position,
    ) -> Result<ViewAt, StoreError> {
        let row = sqlx::query(VIEW_AT)
            .bind(columns::group_of(view).as_str().to_owned())
            .bind(view)
            .bind(key)
            .bind(position.partition.0)
            .bind(position.offset.0)
            .fetch_one(&self.read)
            .await
            .map_err(errors::read)?;
        let is_there = column::<Option<String>>(&row, "value")?.is_some();
        Ok(ViewAt {
            parked: column(&row, "waits")?,
            record: is_there.then(|| document(&row)).transpose()?,
        })
    }

    async fn views(
        &self,
        view: &str,
        prefix: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ViewRecord>, StoreError> {
        let rows = sqlx::query(VIEWS)
            .bind(view)
            .bind(after.unwrap_or_default())
            .bind(prefix)
            .bind(end_of_prefix(prefix))
            .bind(limit)
            .fetch_all(&self.read)
            .await
            .map_err(errors::read)?;
        rows.iter().map(document).collect()
    }
}

impl PostgresStore {
    async fn failures(
        &self,
        partition: Partition,
        id: CommandId,
    ) -> Result<Vec<FailedAttempt>, StoreError> {
        let rows = sqlx::query(FAILURES).bind(partition.0).bind(id.0).bind(MOST_FAILURES);
        let rows = rows.fetch_all(&self.read).await.map_err(errors::read)?;
        rows.iter().map(failed_attempt).collect()
    }

    async fn newest_commands(
        &self,
        filter: &CommandFilter,
        cursor: Cursor,
        limit: i64,
    ) -> Result<Vec<PgRow>, StoreError> {
        let query = match &filter.stream {
            None => sqlx::query(NEWEST),
            Some(_) => sqlx::query(NEWEST_OF_STREAM),
        };
        let query = query.bind(cursor.accepted_at).bind(cursor.id.0).bind(limit);
        let query = match &filter.stream {
            None => query,
            Some(stream) => query.bind(stream.as_str().to_owned()),
        };
        query.fetch_all(&self.read).await.map_err(errors::read)
    }
}

fn column<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    name: &str,
) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn command(row: &PgRow) -> Result<CommandRecord, StoreError> {
    let partition = Partition(column(row, "partition")?);
    Ok(CommandRecord {
        id: CommandId(column(row, "id")?),
        command_type: column(row, "type")?,
        stream: columns::stream(column(row, "stream")?)?,
        partition,
        lane: columns::lane(column(row, "lane")?)?,
        payload: RawJson::from_trusted(column(row, "payload")?),
        metadata: columns::metadata(column(row, "metadata")?)?,
        not_before: column(row, "not_before")?,
        not_after: column(row, "not_after")?,
        content_hash: columns::content_hash(column(row, "content_hash")?)?,
        accepted_at: column(row, "accepted_at")?,
        scheduled: column(row, "scheduled")?,
        waiting: column(row, "waiting")?,
        failed_attempts: column(row, "failed_attempts")?,
        failures: Vec::new(),
        outcome: outcome(row, partition)?,
    })
}

fn progress(row: &PgRow) -> Result<(CommandId, CommandProgress), StoreError> {
    let status = column::<Option<i16>>(row, "status")?.map(outcome_status).transpose()?;
    let attempts: Option<i32> = column(row, "attempts")?;
    let progress = CommandProgress {
        scheduled: column(row, "scheduled")?,
        waiting: column(row, "waiting")?,
        failed_attempt: column(row, "failed_attempt")?,
        ended: status.zip(attempts),
    };
    Ok((CommandId(column(row, "id")?), progress))
}

fn outcome_status(code: i16) -> Result<OutcomeStatus, StoreError> {
    let unknown = || StoreError::Corrupt(format!("there is no outcome status {code}"));
    OutcomeStatus::from_code(code).ok_or_else(unknown)
}

fn outcome(row: &PgRow, partition: Partition) -> Result<Option<Outcome>, StoreError> {
    let Some(status) = column::<Option<i16>>(row, "status")? else { return Ok(None) };
    Ok(Some(Outcome {
        status: outcome_status(status)?,
        positions: columns::positions(
            partition,
            column(row, "first_offset")?,
            column(row, "events")?,
        ),
        version: Version(column(row, "version")?),
        reply: columns::raw(column(row, "reply")?),
        error: columns::failure(column(row, "error")?)?,
        attempts: column(row, "attempts")?,
        completed_at: column(row, "completed_at")?,
    }))
}

fn failed_attempt(row: &PgRow) -> Result<FailedAttempt, StoreError> {
    let error: String = column(row, "error")?;
    Ok(FailedAttempt {
        attempt: Attempt(column(row, "attempt")?),
        error: columns::parse(&error)?,
        failed_at: column(row, "failed_at")?,
        next_due_at: column(row, "next_due_at")?,
    })
}

fn stream_event(row: &PgRow) -> Result<StoredStreamEvent, StoreError> {
    Ok(StoredStreamEvent {
        version: Version(column(row, "version")?),
        offset: Offset(column(row, "offset")?),
        event_type: column(row, "type")?,
        schema_version: column(row, "schema_version")?,
        data: RawJson::from_trusted(column(row, "data")?),
        command_id: CommandId(column(row, "command_id")?),
        metadata: columns::metadata(column(row, "metadata")?)?,
        recorded_at: column(row, "recorded_at")?,
    })
}

fn document(row: &PgRow) -> Result<DocumentRow, StoreError> {
    Ok(DocumentRow {
        key: column(row, "key")?,
        version: column(row, "version")?,
        value: columns::raw(column(row, "value")?),
        as_of: columns::as_of(column(row, "as_of")?)?,
        parked: column(row, "parked")?,
    })
}
