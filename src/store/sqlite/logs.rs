//! Reading the logs, their heads and the checkpoints.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore, storable,
    transaction::{Transaction, column, id, maybe_time, time},
};
use crate::{
    message::{
        Attempt, CommandEnvelope, CommandId, EventEnvelope, GroupName, Offset, Partition, RawJson,
        Version,
    },
    store::{
        CheckpointMove, CommandEntry, Entry, EventEntry, Fence, ForeignMessage, Heads, LogKind,
        Logs, StoreError,
        stored::{metadata, no_edit, raw, reply_to, stream},
    },
};

/// A page of a log holds about this many bytes of payload at most (and at least one entry).
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Served by the primary keys.
const READ_COMMANDS: &str = "
    SELECT l.\"offset\", c.id, c.type, c.stream,
           CASE l.edit WHEN 0 THEN c.payload ELSE (
               SELECT e.payload FROM command_edits e
                WHERE e.command_id = l.command_id AND e.edit = l.edit) END,
           c.metadata, c.expected_version, c.reply_to, c.accepted_at, l.attempt, l.first_offset,
           l.edit, c.not_after, c.callback_url
      FROM command_log l CROSS JOIN commands c ON c.id = l.command_id
     WHERE l.partition = ?1 AND l.\"offset\" >= ?2
     ORDER BY l.\"offset\" LIMIT ?3";

/// Served by the primary key.
const READ_EVENTS: &str = "
    SELECT \"offset\", recorded_at, stream, version, type, schema_version, data, command_id,
           metadata
      FROM events WHERE partition = ?1 AND \"offset\" >= ?2
     ORDER BY \"offset\" LIMIT ?3";

/// Served by the primary key.
const CHECKPOINT: &str = "SELECT reached FROM checkpoints WHERE group_name = ?1 AND partition = ?2";

const MOVE: &str = "
    INSERT INTO checkpoints (group_name, partition, reached, moved_at) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (group_name, partition) DO UPDATE
       SET reached = excluded.reached, moved_at = excluded.moved_at";

const RECORD_FOREIGN: &str = "
    INSERT INTO foreign_messages AS f
           (group_name, partition, log_id, reason, count, first_seen, last_seen)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
    ON CONFLICT (group_name, partition, log_id, reason) DO UPDATE
       SET count = f.count + excluded.count, last_seen = excluded.last_seen";

#[async_trait]
impl Logs for SqliteStore {
    async fn read_log(
        &self,
        log: LogKind,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (sql, read): (_, fn(&Row<'_>) -> Result<Entry, StoreError>) = match log {
            LogKind::Commands => (READ_COMMANDS, command_entry),
            LogKind::Events => (READ_EVENTS, event_entry),
        };
        let page = self.engine.read(move |transaction| {
            let params = params![partition.0, from.0, limit];
            transaction.within(PAGE_BYTES, sql, params, payload_bytes, read)
        });
        page.await
    }

    async fn heads(&self) -> Result<Heads, StoreError> {
        let heads = self.engine.read(|transaction| {
            let all = transaction.partitions.all();
            Ok(Heads {
                commands: all
                    .clone()
                    .map(|partition| transaction.command_head(partition))
                    .collect::<Result<_, _>>()?,
                events: all
                    .map(|partition| transaction.event_head(partition))
                    .collect::<Result<_, _>>()?,
            })
        });
        heads.await
    }

    async fn checkpoints(&self, group: &GroupName) -> Result<Vec<Offset>, StoreError> {
        let group = group.clone();
        let checkpoints = self.engine.read(move |transaction| {
            let all = transaction.partitions.all();
            all.map(|partition| transaction.checkpoint(&group, partition)).collect()
        });
        checkpoints.await
    }

    async fn record_foreign(&self, messages: &[ForeignMessage]) -> Result<(), StoreError> {
        let messages = messages.to_vec();
        let recorded = self.engine.write(move |transaction| {
            for message in &messages {
                let log_id = message.log_id.map(|id| id.to_string()).unwrap_or_default();
                let (group, reason) = (message.group.as_str(), storable::text(&message.reason)?);
                let (partition, now) = (message.partition.0, transaction.now);
                transaction.execute(
                    RECORD_FOREIGN,
                    params![group, partition, log_id, reason, message.count, now],
                )?;
            }
            Ok(())
        });
        recorded.await
    }

    /// There is no history to remove: a checkpoint is one row that is moved in place.
    async fn purge_checkpoints(&self, _: i64) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl Transaction<'_> {
    pub(super) fn checkpoint(
        &self,
        group: &GroupName,
        partition: Partition,
    ) -> Result<Offset, StoreError> {
        self.number(CHECKPOINT, params![group.as_str(), partition.0]).map(Offset)
    }

    /// Moves checkpoints by compare-and-set. One never passes the head of its log, so that messages
    /// of entries that were lost with an older file are not applied.
    pub(super) fn move_checkpoints(
        &self,
        log: LogKind,
        moves: &[CheckpointMove],
    ) -> Result<(), StoreError> {
        for moved in moves {
            let head = match log {
                LogKind::Commands => self.command_head(moved.partition)?,
                LogKind::Events => self.event_head(moved.partition)?,
            };
            if moved.to > head || moved.to < Offset(1) {
                return Err(StoreError::Fenced(Fence::NotInLog));
            }
        }
        for moved in moves {
            let deduplicates = !planted!(OutcomeReplaced) || log == LogKind::Events;
            if deduplicates
                && !planted!(CheckpointWithoutCompare)
                && self.checkpoint(&moved.group, moved.partition)? != moved.from
            {
                return Err(StoreError::Fenced(Fence::Checkpoint));
            }
            if moved.to <= moved.from {
                let group = &moved.group;
                return Err(StoreError::Internal(format!("checkpoint of {group} moves back")));
            }
            let (group, partition) = (moved.group.as_str(), moved.partition.0);
            self.execute(MOVE, params![group, partition, moved.to.0, self.now])?;
        }
        Ok(())
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Command(entry) => entry.command.payload.as_str().len(),
        Entry::Event(entry) => entry.event.data.as_str().len(),
    }
}

fn command_entry(row: &Row<'_>) -> Result<Entry, StoreError> {
    Ok(Entry::Command(CommandEntry { offset: Offset(column(row, 0)?), command: envelope(row)? }))
}

/// A command from columns 1 to 13 of a row.
pub(super) fn envelope(row: &Row<'_>) -> Result<CommandEnvelope, StoreError> {
    Ok(CommandEnvelope {
        id: CommandId(id(row, 1)?),
        command_type: column(row, 2)?,
        stream: stream(&column::<String>(row, 3)?)?,
        payload: raw(column(row, 4)?).ok_or_else(no_edit)?,
        metadata: metadata(column::<Option<String>>(row, 5)?.as_deref())?,
        expected_version: column::<Option<i64>>(row, 6)?.map(Version),
        reply_to: reply_to(column::<Option<String>>(row, 7)?.as_deref())?,
        accepted_at: time(row, 8)?,
        attempt: Attempt(column(row, 9)?),
        first_offset: column::<Option<i64>>(row, 10)?.map(Offset),
        edit: column(row, 11)?,
        not_after: maybe_time(row, 12)?,
        callback_url: column(row, 13)?,
    })
}

fn event_entry(row: &Row<'_>) -> Result<Entry, StoreError> {
    Ok(Entry::Event(EventEntry {
        offset: Offset(column(row, 0)?),
        recorded_at: time(row, 1)?,
        event: EventEnvelope {
            stream: stream(&column::<String>(row, 2)?)?,
            version: Version(column(row, 3)?),
            event_type: column(row, 4)?,
            schema_version: column(row, 5)?,
            data: RawJson::from_trusted(column(row, 6)?),
            command_id: CommandId(id(row, 7)?),
            metadata: metadata(column::<Option<String>>(row, 8)?.as_deref())?,
        },
    }))
}
