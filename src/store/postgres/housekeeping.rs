//! Removing what has served its time.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::{Statement, types::ToSql};

use super::{PostgresStore, errors, notices::millis, pool};
use crate::{
    message::{CommandId, GroupName, Partition, Timestamp},
    store::{CommandCursor, EndedRemoved, Housekeeping, Leftover, StoreError},
};

/// What is removed is one stretch from the log's beginning on, so that a hole stays a hole; where
/// it ends now is written down with it, and the next look begins there instead of reading over dead
/// rows. Served by command_log_pkey, retention_pkey, checkpoints_pkey and
/// outcomes_pkey.
const LOG_ENTRIES: &str = "
    WITH bound AS MATERIALIZED (
        SELECT LEAST(
            COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                       WHERE c.group_name = 'commands' AND c.partition = $1
                       ORDER BY c.previous DESC LIMIT 1), 0),
            COALESCE((SELECT l.\"offset\" FROM adjutant.command_log l WHERE l.partition = $1
                       ORDER BY l.\"offset\" DESC LIMIT 1), 0) - 1) AS last),
    page AS MATERIALIZED (
        SELECT l.\"offset\", l.command_id, l.recorded_at FROM adjutant.command_log l
         WHERE l.partition = $1 AND l.\"offset\" <= (SELECT last FROM bound)
           AND l.\"offset\" >= COALESCE((SELECT r.command_log_from FROM adjutant.retention r
                                        WHERE r.partition = $1), 1)
         ORDER BY l.\"offset\" LIMIT $3),
    stretch AS MATERIALIZED (
        SELECT min(p.\"offset\") AS first,
               COALESCE(min(p.\"offset\") FILTER (
                    WHERE o.completed_at IS NULL
                       OR o.completed_at >= statement_timestamp() - $2::bigint * interval '1 millisecond'
                       OR p.recorded_at >= statement_timestamp() - $2::bigint * interval '1 millisecond'),
                    max(p.\"offset\") + 1) AS behind
          FROM page p
          LEFT JOIN LATERAL (SELECT * FROM adjutant.outcomes f
                              WHERE f.partition = $1 AND f.command_id = p.command_id OFFSET 0) AS o
            ON true),
    removed AS (
        DELETE FROM adjutant.command_log l
         WHERE l.partition = $1 AND l.\"offset\" >= (SELECT first FROM stretch)
           AND l.\"offset\" < (SELECT behind FROM stretch)
        RETURNING 1),
    noted AS (
        INSERT INTO adjutant.retention AS r (partition, command_log_from)
        SELECT $1, behind FROM stretch WHERE behind > first
        ON CONFLICT (partition) DO UPDATE
           SET command_log_from = GREATEST(r.command_log_from, EXCLUDED.command_log_from))
    SELECT count(*) FROM removed";

/// The outcome goes first: whoever takes it back to run the command again, at the same time, either
/// finds it gone or keeps the command. A command has left the log when it ended before the first
/// entry that is left was recorded (an hour covers a clock that was set back), or when that is the
/// only one and another's. Rows are
/// deleted by their place: a join by key would be planned as one with the whole table, because the
/// size of a page is not known to the planner. Served by commands_newest, outcomes_pkey, schedule_of_command,
/// command_log_pkey, dead_letters_unended_of_command, and the primary keys of what hangs on a command.
const ENDED_COMMANDS: &str = "
    WITH page AS MATERIALIZED (
        SELECT c.bucket, c.id, c.partition, c.accepted_at, c.ctid AS place
          FROM adjutant.commands c
         WHERE (c.accepted_at, c.id) > ($2, $3)
           AND c.accepted_at < statement_timestamp() - $1::bigint * interval '1 millisecond'
         ORDER BY c.accepted_at, c.id LIMIT $4),
    logs AS MATERIALIZED (
        SELECT p.partition, first.\"offset\" = last.\"offset\" AS is_last, first.command_id,
               first.recorded_at
          FROM (SELECT DISTINCT partition FROM page) AS p
         CROSS JOIN LATERAL (SELECT l.* FROM adjutant.command_log l
                              WHERE l.partition = p.partition
                                AND l.\"offset\" >= COALESCE(
                                    (SELECT r.command_log_from FROM adjutant.retention r
                                      WHERE r.partition = p.partition), 1)
                              ORDER BY l.\"offset\" LIMIT 1) AS first
         CROSS JOIN LATERAL (SELECT l.* FROM adjutant.command_log l WHERE l.partition = p.partition
                              ORDER BY l.\"offset\" DESC LIMIT 1) AS last),
    ended AS MATERIALIZED (
        SELECT p.id, p.place, o.place AS outcome_place
          FROM page p
         CROSS JOIN LATERAL (SELECT f.completed_at, f.ctid AS place FROM adjutant.outcomes f
                              WHERE f.partition = p.partition AND f.command_id = p.id OFFSET 0) AS o
          LEFT JOIN logs ON logs.partition = p.partition
         WHERE o.completed_at < statement_timestamp() - $1::bigint * interval '1 millisecond'
           AND (logs.recorded_at IS NULL OR logs.recorded_at > o.completed_at + interval '1 hour'
                OR (logs.is_last AND logs.command_id <> p.id))
           AND NOT EXISTS (SELECT 1 FROM adjutant.schedule s
                            WHERE s.bucket = p.bucket AND s.command_id = p.id OFFSET 0)
           AND NOT EXISTS (SELECT 1 FROM adjutant.dead_letters d
                            WHERE d.partition = p.partition AND d.command_id = p.id
                              AND d.state IN (1, 2) OFFSET 0)),
    outcomes_removed AS (
        DELETE FROM adjutant.outcomes
         WHERE ctid = ANY(ARRAY(SELECT outcome_place FROM ended))
        RETURNING partition, command_id),
    attempts_removed AS (
        DELETE FROM adjutant.attempts WHERE ctid = ANY(ARRAY(
            SELECT a.place FROM outcomes_removed o
             CROSS JOIN LATERAL (SELECT f.ctid AS place FROM adjutant.attempts f
                                  WHERE f.partition = o.partition
                                    AND f.command_id = o.command_id OFFSET 0) AS a))),
    past_removed AS (
        DELETE FROM adjutant.past_outcomes WHERE ctid = ANY(ARRAY(
            SELECT a.place FROM outcomes_removed o
             CROSS JOIN LATERAL (SELECT f.ctid AS place FROM adjutant.past_outcomes f
                                  WHERE f.partition = o.partition
                                    AND f.command_id = o.command_id OFFSET 0) AS a))),
    edits_removed AS (
        DELETE FROM adjutant.command_edits WHERE ctid = ANY(ARRAY(
            SELECT a.place FROM outcomes_removed o
              JOIN page p ON p.id = o.command_id
             CROSS JOIN LATERAL (SELECT f.ctid AS place FROM adjutant.command_edits f
                                  WHERE f.bucket = p.bucket
                                    AND f.command_id = o.command_id OFFSET 0) AS a))),
    removed AS (
        DELETE FROM adjutant.commands
         WHERE ctid = ANY(ARRAY(SELECT e.place FROM ended e
                                  JOIN outcomes_removed o ON o.command_id = e.id))
        RETURNING 1),
    noted AS (
        INSERT INTO adjutant.retention AS r (partition, outcomes_before)
        SELECT DISTINCT partition,
               statement_timestamp() - $1::bigint * interval '1 millisecond'
          FROM outcomes_removed
        ON CONFLICT (partition) DO UPDATE
           SET outcomes_before = GREATEST(r.outcomes_before, EXCLUDED.outcomes_before))
    SELECT (SELECT count(*) FROM removed), (SELECT count(*) FROM page), l.accepted_at, l.id
      FROM (SELECT 1) AS one
      LEFT JOIN (SELECT accepted_at, id FROM page ORDER BY accepted_at DESC, id DESC LIMIT 1) AS l
        ON true";

/// Served by outbox_pkey and checkpoints_pkey.
const FINISHED_OUTBOX: &str = "
    DELETE FROM adjutant.outbox WHERE id = ANY(ARRAY(
        SELECT o.id
          FROM (SELECT id, partition, route, first_offset + entries - 1 AS last, recorded_at
                  FROM adjutant.outbox ORDER BY id LIMIT $3) AS o
         WHERE o.recorded_at < statement_timestamp() - $2::bigint * interval '1 millisecond'
           AND o.last IS NOT NULL AND o.route IN (1, 2)
           AND NOT EXISTS (
               SELECT 1 FROM unnest(CASE o.route WHEN 1 THEN ARRAY['commands'] ELSE $1::text[] END)
                             AS g(name)
                WHERE o.last > COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                                          WHERE c.group_name = g.name AND c.partition = o.partition
                                          ORDER BY c.previous DESC LIMIT 1), 0))))";

/// What was discarded of a parked key stays: it says which events a view does without. Served by
/// dead_letters_to_remove.
const DEAD_LETTERS: &str = "
    DELETE FROM adjutant.dead_letters WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM adjutant.dead_letters
         WHERE state IN (3, 4) AND NOT (kind = 2 AND state = 4)
           AND state_at < statement_timestamp() - $1::bigint * interval '1 millisecond'
         ORDER BY state_at LIMIT $2))";

/// Append-only, oldest first: served by its primary key.
const AUDIT: &str = "
    DELETE FROM adjutant.dead_letter_audit WHERE id = ANY(ARRAY(
        SELECT id FROM (SELECT id, at FROM adjutant.dead_letter_audit ORDER BY id LIMIT $2) AS a
         WHERE a.at < statement_timestamp() - $1::bigint * interval '1 millisecond'))";

/// The same.
const CANCELLATIONS: &str = "
    DELETE FROM adjutant.cancellations WHERE id = ANY(ARRAY(
        SELECT id FROM (SELECT id, at FROM adjutant.cancellations ORDER BY id LIMIT $2) AS a
         WHERE a.at < statement_timestamp() - $1::bigint * interval '1 millisecond'))";

/// The table holds a row a process: no index needed.
const MEMBERS: &str = "
    DELETE FROM adjutant.members WHERE id IN (
        SELECT id FROM adjutant.members
         WHERE heartbeat_at < statement_timestamp() - $1::bigint * interval '1 millisecond'
         ORDER BY heartbeat_at LIMIT $2)";

/// Both tables hold what was wrong lately: no index needed.
const NOTIFICATIONS: &str = "
    WITH sent AS (
        DELETE FROM adjutant.notifications WHERE id IN (
            SELECT id FROM adjutant.notifications
             WHERE (state IN (3, 4)
                    AND ended_at < statement_timestamp() - $1::bigint * interval '1 millisecond')
                   -- to webhooks that nobody has any more
                OR due_at < statement_timestamp() - $1::bigint * interval '1 millisecond'
             ORDER BY created_at LIMIT $2)
        RETURNING 1),
    ended AS (
        DELETE FROM adjutant.conditions WHERE (condition, subject) IN (
            SELECT condition, subject FROM adjutant.conditions
             WHERE state = 2
               AND changed_at < statement_timestamp() - $1::bigint * interval '1 millisecond'
             ORDER BY changed_at LIMIT $2)
        RETURNING 1)
    SELECT (SELECT count(*) FROM sent) + (SELECT count(*) FROM ended)";

/// The table is kept small by this.
const FOREIGN: &str = "
    DELETE FROM adjutant.foreign_messages
     WHERE (group_name, partition, log_id, reason) IN (
        SELECT group_name, partition, log_id, reason FROM adjutant.foreign_messages
         ORDER BY last_seen DESC, group_name, partition, log_id, reason OFFSET $1 LIMIT $2)";

#[async_trait]
impl Housekeeping for PostgresStore {
    async fn remove_log_entries(
        &self,
        partition: Partition,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let client = self.hot().await?;
        let remove = pool::prepare(&client, LOG_ENTRIES).await?;
        let row = client.query_one(&remove, &[&partition.0, &millis(age), &limit]).await;
        Ok(row.map_err(errors::after_commit)?.get::<_, i64>(0).unsigned_abs())
    }

    async fn remove_ended_commands(
        &self,
        age: Duration,
        from: Option<CommandCursor>,
        limit: i64,
    ) -> Result<EndedRemoved, StoreError> {
        let (accepted_at, id) =
            from.unwrap_or((Timestamp::UNIX_EPOCH, CommandId(uuid::Uuid::nil())));
        let client = self.hot().await?;
        let remove = pool::prepare(&client, ENDED_COMMANDS).await?;
        let row = client.query_one(&remove, &[&millis(age), &accepted_at, &id.0, &limit]).await;
        let row = row.map_err(errors::after_commit)?;
        let last: Option<Timestamp> = row.get(2);
        let looked_at: i64 = row.get(1);
        Ok(EndedRemoved {
            removed: row.get::<_, i64>(0).unsigned_abs(),
            next: last.filter(|_| looked_at == limit).map(|at| (at, CommandId(row.get(3)))),
        })
    }

    async fn remove_finished_outbox(
        &self,
        events: &[GroupName],
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let events: Vec<&str> = events.iter().map(GroupName::as_str).collect();
        self.remove(FINISHED_OUTBOX, &[&events, &millis(age), &limit]).await
    }

    async fn remove_leftovers(
        &self,
        what: Leftover,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        match what {
            Leftover::DeadLetters => self.remove(DEAD_LETTERS, &[&millis(age), &limit]).await,
            Leftover::DeadLetterAudit => self.remove(AUDIT, &[&millis(age), &limit]).await,
            Leftover::Cancellations => self.remove(CANCELLATIONS, &[&millis(age), &limit]).await,
            Leftover::Members => self.remove(MEMBERS, &[&millis(age), &limit]).await,
            Leftover::Notifications => {
                let client = self.hot().await?;
                let remove: Statement = pool::prepare(&client, NOTIFICATIONS).await?;
                let row = client.query_one(&remove, &[&millis(age), &limit]).await;
                Ok(row.map_err(errors::after_commit)?.get::<_, i64>(0).unsigned_abs())
            }
        }
    }

    async fn bound_foreign(&self, keep: i64, limit: i64) -> Result<u64, StoreError> {
        self.remove(FOREIGN, &[&keep, &limit]).await
    }
}

impl PostgresStore {
    async fn remove(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let client = self.hot().await?;
        let remove = pool::prepare(&client, sql).await?;
        client.execute(&remove, parameters).await.map_err(errors::after_commit)
    }
}
