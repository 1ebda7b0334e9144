//! Removing what has served its time.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::params;

use super::{
    SqliteStore,
    clock::to_micros,
    notices::micros,
    transaction::{Transaction, column, id, time},
};
use crate::{
    message::{CommandId, GroupName, Partition, Timestamp},
    store::{CommandCursor, EndedRemoved, Housekeeping, Leftover, StoreError, stored::json_text},
};

/// A command that ended has left the log when it ended this much before the first entry that is
/// left was recorded, in microseconds: for a clock that was set back.
const MARGIN: i64 = 3_600 * 1_000_000;

/// Served by the primary keys of checkpoints and command_log.
const BOUND: &str = "
    SELECT min(
        COALESCE((SELECT reached FROM checkpoints
                   WHERE group_name = 'commands' AND partition = ?1), 0),
        COALESCE((SELECT max(\"offset\") FROM command_log WHERE partition = ?1), 0) - 1)";

/// Served by the primary keys of command_log and outcomes.
const PAGE: &str = "
    SELECT l.\"offset\", l.recorded_at < ?3 AND COALESCE(o.completed_at < ?3, 0)
      FROM command_log l
      LEFT JOIN outcomes o ON o.partition = l.partition AND o.command_id = l.command_id
     WHERE l.partition = ?1 AND l.\"offset\" <= ?2
     ORDER BY l.\"offset\" LIMIT ?4";

const LOG_ENTRIES: &str = "DELETE FROM command_log WHERE partition = ?1 AND \"offset\" < ?2";

const NOTE_LOG: &str = "
    INSERT INTO retention AS r (partition, command_log_from) VALUES (?1, ?2)
    ON CONFLICT (partition) DO UPDATE
       SET command_log_from = max(r.command_log_from, excluded.command_log_from)";

/// Served by commands_newest.
const COMMANDS: &str = "
    SELECT id, partition, accepted_at FROM commands
     WHERE (accepted_at, id) > (?2, ?3) AND accepted_at < ?1
     ORDER BY accepted_at, id LIMIT ?4";

/// Whether a command may go. Served by the primary keys of outcomes and command_log, by
/// schedule_of_command and dead_letters_unended_of_command.
const MAY_GO: &str = "
    SELECT 1 FROM outcomes o
     WHERE o.partition = ?1 AND o.command_id = ?2 AND o.completed_at < ?3
       AND NOT EXISTS (SELECT 1 FROM schedule s WHERE s.command_id = ?2)
       AND NOT EXISTS (SELECT 1 FROM dead_letters d
                        WHERE d.partition = ?1 AND d.command_id = ?2 AND d.state IN (1, 2))
       AND COALESCE((SELECT f.recorded_at > o.completed_at + ?4
                            OR (f.command_id <> ?2 AND f.\"offset\" =
                                (SELECT max(\"offset\") FROM command_log WHERE partition = ?1))
                       FROM command_log f WHERE f.partition = ?1
                      ORDER BY f.\"offset\" LIMIT 1), 1)";

const OUTCOME: &str = "DELETE FROM outcomes WHERE partition = ?1 AND command_id = ?2";
const ATTEMPTS: &str = "DELETE FROM attempts WHERE partition = ?1 AND command_id = ?2";
const PAST_OUTCOMES: &str = "DELETE FROM past_outcomes WHERE partition = ?1 AND command_id = ?2";
const EDITS: &str = "DELETE FROM command_edits WHERE command_id = ?1";
const COMMAND: &str = "DELETE FROM commands WHERE id = ?1";

const NOTE_OUTCOMES: &str = "
    INSERT INTO retention AS r (partition, outcomes_before) VALUES (?1, ?2)
    ON CONFLICT (partition) DO UPDATE
       SET outcomes_before = max(COALESCE(r.outcomes_before, 0), excluded.outcomes_before)";

/// Served by the primary keys of outbox and checkpoints.
const FINISHED_OUTBOX: &str = "
    DELETE FROM outbox WHERE id IN (
        SELECT o.id
          FROM (SELECT id, partition, route, first_offset + entries - 1 AS last, recorded_at
                  FROM outbox ORDER BY id LIMIT ?3) AS o
         WHERE o.recorded_at < ?2 AND o.last IS NOT NULL AND o.route IN (1, 2)
           AND NOT EXISTS (
               SELECT 1 FROM json_each(CASE o.route WHEN 1 THEN '[\"commands\"]' ELSE ?1 END) AS g
                WHERE o.last > COALESCE((SELECT c.reached FROM checkpoints c
                                          WHERE c.group_name = g.value
                                            AND c.partition = o.partition), 0)))";

/// What was discarded of a parked key stays: it says which events a view does without. Served by
/// dead_letters_to_remove.
const DEAD_LETTERS: &str = "
    DELETE FROM dead_letters WHERE rowid IN (
        SELECT rowid FROM dead_letters WHERE state IN (3, 4)
           AND NOT (kind = 2 AND state = 4) AND state_at < ?1
         ORDER BY state_at LIMIT ?2)";

/// Append-only, oldest first: served by its primary key.
const AUDIT: &str = "
    DELETE FROM dead_letter_audit WHERE id IN (
        SELECT id FROM (SELECT id, at FROM dead_letter_audit ORDER BY id LIMIT ?2) WHERE at < ?1)";

/// The same.
const CANCELLATIONS: &str = "
    DELETE FROM cancellations WHERE id IN (
        SELECT id FROM (SELECT id, at FROM cancellations ORDER BY id LIMIT ?2) WHERE at < ?1)";

/// The table holds a row a process: no index needed.
const MEMBERS: &str = "
    DELETE FROM members WHERE id IN (
        SELECT id FROM members WHERE heartbeat_at < ?1 ORDER BY heartbeat_at LIMIT ?2)";

/// Sent, given up, or to a webhook that nobody has any more. The table is small.
const NOTIFICATIONS: &str = "
    DELETE FROM notifications WHERE id IN (
        SELECT id FROM notifications
         WHERE (state IN (3, 4) AND ended_at < ?1) OR due_at < ?1
         ORDER BY created_at LIMIT ?2)";

/// The table is small.
const CONDITIONS: &str = "DELETE FROM conditions WHERE state = 2 AND changed_at < ?1";

/// The table is kept small by this.
const FOREIGN: &str = "
    DELETE FROM foreign_messages
     WHERE (group_name, partition, log_id, reason) IN (
        SELECT group_name, partition, log_id, reason FROM foreign_messages
         ORDER BY last_seen DESC, group_name, partition, log_id, reason LIMIT ?2 OFFSET ?1)";

#[async_trait]
impl Housekeeping for SqliteStore {
    async fn remove_log_entries(
        &self,
        partition: Partition,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let work = move |transaction: &Transaction<'_>| {
            let before = transaction.now.saturating_sub(micros(age));
            let bound = transaction.number(BOUND, [partition.0])?;
            let read = params![partition.0, bound, before, limit];
            let page: Vec<(i64, bool)> = transaction
                .all(PAGE, read, |row| Ok((column(row, 0)?, column::<i64>(row, 1)? != 0)))?;
            let gone = page.iter().take_while(|(_, may_go)| *may_go).last();
            let Some((last, _)) = gone else { return Ok(0) };
            let removed = transaction.execute(LOG_ENTRIES, params![partition.0, last + 1])?;
            transaction.execute(NOTE_LOG, params![partition.0, last + 1])?;
            Ok(removed as u64)
        };
        self.engine.write(work).await
    }

    async fn remove_ended_commands(
        &self,
        age: Duration,
        from: Option<CommandCursor>,
        limit: i64,
    ) -> Result<EndedRemoved, StoreError> {
        let work = move |transaction: &Transaction<'_>| {
            let before = transaction.now.saturating_sub(micros(age));
            remove_ended(transaction, before, from, limit)
        };
        self.engine.write(work).await
    }

    async fn remove_finished_outbox(
        &self,
        events: &[GroupName],
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let events: Vec<&str> = events.iter().map(GroupName::as_str).collect();
        let events = json_text(&events)?;
        let work = move |transaction: &Transaction<'_>| {
            let before = transaction.now.saturating_sub(micros(age));
            transaction.execute(FINISHED_OUTBOX, params![events, before, limit])
        };
        Ok(self.engine.write(work).await? as u64)
    }

    async fn remove_leftovers(
        &self,
        what: Leftover,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let work = move |transaction: &Transaction<'_>| {
            let before = transaction.now.saturating_sub(micros(age));
            let sql = match what {
                Leftover::DeadLetters => DEAD_LETTERS,
                Leftover::DeadLetterAudit => AUDIT,
                Leftover::Cancellations => CANCELLATIONS,
                Leftover::Members => MEMBERS,
                Leftover::Notifications => {
                    let over = transaction.execute(CONDITIONS, [before])?;
                    return Ok(over + transaction.execute(NOTIFICATIONS, [before, limit])?);
                }
            };
            transaction.execute(sql, [before, limit])
        };
        Ok(self.engine.write(work).await? as u64)
    }

    async fn bound_foreign(&self, keep: i64, limit: i64) -> Result<u64, StoreError> {
        let bound =
            self.engine.write(move |transaction| transaction.execute(FOREIGN, [keep, limit]));
        Ok(bound.await? as u64)
    }
}

fn remove_ended(
    transaction: &Transaction<'_>,
    before: i64,
    from: Option<CommandCursor>,
    limit: i64,
) -> Result<EndedRemoved, StoreError> {
    let (accepted_at, after) =
        from.unwrap_or((Timestamp::UNIX_EPOCH, CommandId(uuid::Uuid::nil())));
    let read = params![before, to_micros(accepted_at), after.0.as_bytes(), limit];
    let page = transaction.all(COMMANDS, read, |row| {
        Ok((CommandId(id(row, 0)?), column::<i16>(row, 1)?, time(row, 2)?))
    })?;
    let mut removed = 0;
    for (command, partition, _) in &page {
        let bytes = command.0.as_bytes();
        if transaction.exists(MAY_GO, params![partition, bytes, before, MARGIN])? {
            transaction.execute(OUTCOME, params![partition, bytes])?;
            transaction.execute(ATTEMPTS, params![partition, bytes])?;
            transaction.execute(PAST_OUTCOMES, params![partition, bytes])?;
            transaction.execute(EDITS, [bytes])?;
            transaction.execute(COMMAND, [bytes])?;
            transaction.execute(NOTE_OUTCOMES, params![partition, before])?;
            removed += 1;
        }
    }
    let full = page.len() as i64 == limit;
    let next = page.last().filter(|_| full).map(|(command, _, at)| (*at, *command));
    Ok(EndedRemoved { removed, next })
}
