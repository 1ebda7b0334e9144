//! Reading the logs, their heads and the checkpoints.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{PostgresStore, columns, errors, pool};
use crate::{
    message::{
        Attempt, CommandEnvelope, CommandId, EventEnvelope, GroupName, Offset, Partition, RawJson,
        Version,
    },
    store::{CommandEntry, Entry, EventEntry, ForeignMessage, Heads, LogKind, Logs, StoreError},
};

/// A page of a log holds about this many bytes of payload at most (and at least one entry).
const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Served by command_log_pkey and commands_pkey; corrections, if there are any, by
/// command_edits_pkey.
const READ_COMMANDS: &str = "
    SELECT * FROM (
        SELECT l.\"offset\", c.id, c.type, c.stream,
               CASE l.edit WHEN 0 THEN c.payload ELSE (
                   SELECT e.payload FROM adjutant.command_edits e
                    WHERE e.bucket = l.bucket AND e.command_id = l.command_id AND e.edit = l.edit)
               END::text AS payload, c.metadata::text,
               c.expected_version, c.reply_to::text, c.accepted_at, l.attempt, l.first_offset,
               l.edit, c.not_after, c.callback_url,
               sum(octet_length(c.payload::text)) OVER (ORDER BY l.\"offset\")
                   - octet_length(c.payload::text) AS bytes_before
          FROM adjutant.command_log l
         CROSS JOIN LATERAL (SELECT * FROM adjutant.commands f
                              WHERE f.bucket = l.bucket AND f.id = l.command_id OFFSET 0) AS c
         WHERE l.partition = $1 AND l.\"offset\" >= $2
         ORDER BY l.\"offset\" LIMIT $3) AS page
     WHERE bytes_before <= $4::bigint
     ORDER BY \"offset\"";

/// Served by events_pkey.
const READ_EVENTS: &str = "
    SELECT * FROM (
        SELECT e.\"offset\", e.recorded_at, e.stream, e.version, e.type, e.schema_version,
               e.data::text, e.command_id, e.metadata::text,
               sum(octet_length(e.data::text)) OVER (ORDER BY e.\"offset\")
                   - octet_length(e.data::text) AS bytes_before
          FROM adjutant.events e
         WHERE e.partition = $1 AND e.\"offset\" >= $2
         ORDER BY e.\"offset\" LIMIT $3) AS page
     WHERE bytes_before <= $4::bigint
     ORDER BY \"offset\"";

/// Served by command_log_pkey and events_pkey, read backwards.
const HEADS: &str = "
    SELECT COALESCE((SELECT l.\"offset\" FROM adjutant.command_log l WHERE l.partition = p
                     ORDER BY l.\"offset\" DESC LIMIT 1), 0),
           COALESCE((SELECT e.\"offset\" FROM adjutant.events e WHERE e.partition = p
                     ORDER BY e.\"offset\" DESC LIMIT 1), 0)
      FROM generate_series(0, $1::integer - 1) AS p
     ORDER BY p";

/// Served by checkpoints_pkey, read backwards.
const CHECKPOINTS: &str = "
    SELECT COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                     WHERE c.group_name = $1 AND c.partition = p
                     ORDER BY c.previous DESC LIMIT 1), 0)
      FROM generate_series(0, $2::integer - 1) AS p
     ORDER BY p";

/// The chain's older moves. A compare that is still running began less than a minute ago: its
/// statement timeout is shorter. Served by checkpoints_pkey.
const PURGE_CHECKPOINTS: &str = "
    DELETE FROM adjutant.checkpoints c
     USING (SELECT o.group_name, o.partition, o.previous
              FROM adjutant.checkpoints o
             WHERE o.moved_at < clock_timestamp() - interval '1 minute'
               AND EXISTS (SELECT 1 FROM adjutant.checkpoints n
                            WHERE n.group_name = o.group_name AND n.partition = o.partition
                              AND n.previous > o.previous)
             LIMIT $1) AS old
     WHERE c.group_name = old.group_name AND c.partition = old.partition
       AND c.previous = old.previous";

const RECORD_FOREIGN: &str = "
    INSERT INTO adjutant.foreign_messages AS f
           (group_name, partition, log_id, reason, count, first_seen, last_seen)
    VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
    ON CONFLICT (group_name, partition, log_id, reason) DO UPDATE
       SET count = f.count + EXCLUDED.count, last_seen = EXCLUDED.last_seen";

#[async_trait]
impl Logs for PostgresStore {
    async fn read_log(
        &self,
        log: LogKind,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (sql, read): (_, fn(&Row) -> Result<Entry, StoreError>) = match log {
            LogKind::Commands => (READ_COMMANDS, command_entry),
            LogKind::Events => (READ_EVENTS, event_entry),
        };
        let client = self.hot().await?;
        let statement = pool::prepare(&client, sql).await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = client
            .query(&statement, &[&partition.0, &from.0, &limit, &PAGE_BYTES])
            .await
            .map_err(errors::before_commit)?;
        rows.iter().map(read).collect()
    }

    async fn heads(&self) -> Result<Heads, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, HEADS).await?;
        let count = i32::from(self.partitions().get());
        let rows = client.query(&statement, &[&count]).await.map_err(errors::before_commit)?;
        let column = |i: usize| rows.iter().map(|row| Offset(row.get(i))).collect();
        Ok(Heads { commands: column(0), events: column(1) })
    }

    async fn checkpoints(&self, group: &GroupName) -> Result<Vec<Offset>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, CHECKPOINTS).await?;
        let count = i32::from(self.partitions().get());
        let rows = client.query(&statement, &[&group.as_str(), &count]).await;
        let rows = rows.map_err(errors::before_commit)?;
        Ok(rows.iter().map(|row| Offset(row.get(0))).collect())
    }

    async fn record_foreign(&self, messages: &[ForeignMessage]) -> Result<(), StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, RECORD_FOREIGN).await?;
        for message in messages {
            let log_id = message.log_id.map(|id| id.to_string()).unwrap_or_default();
            let group = message.group.as_str();
            client
                .execute(
                    &statement,
                    &[&group, &message.partition.0, &log_id, &message.reason, &message.count],
                )
                .await
                .map_err(errors::after_commit)?;
        }
        Ok(())
    }

    async fn purge_checkpoints(&self, limit: i64) -> Result<u64, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, PURGE_CHECKPOINTS).await?;
        client.execute(&statement, &[&limit]).await.map_err(errors::after_commit)
    }
}

fn command_entry(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry::Command(CommandEntry { offset: Offset(row.get(0)), command: envelope(row)? }))
}

/// A command from columns 1 to 13 of a row.
pub(super) fn envelope(row: &Row) -> Result<CommandEnvelope, StoreError> {
    Ok(CommandEnvelope {
        id: CommandId(row.get(1)),
        command_type: row.get(2),
        stream: columns::stream(row.get(3))?,
        payload: columns::raw(row.get(4)).ok_or_else(columns::no_edit)?,
        metadata: columns::metadata(row.get(5))?,
        expected_version: row.get::<_, Option<i64>>(6).map(Version),
        reply_to: columns::reply_to(row.get(7))?,
        accepted_at: row.get(8),
        attempt: Attempt(row.get(9)),
        first_offset: row.get::<_, Option<i64>>(10).map(Offset),
        edit: row.get(11),
        not_after: row.get(12),
        callback_url: row.get(13),
    })
}

fn event_entry(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry::Event(EventEntry {
        offset: Offset(row.get(0)),
        recorded_at: row.get(1),
        event: EventEnvelope {
            stream: columns::stream(row.get(2))?,
            version: Version(row.get(3)),
            event_type: row.get(4),
            schema_version: row.get(5),
            data: RawJson::from_trusted(row.get(6)),
            command_id: CommandId(row.get(7)),
            metadata: columns::metadata(row.get(8))?,
        },
    }))
}
