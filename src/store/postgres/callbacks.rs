//! Callbacks: owed with the outcome, claimed with a lease, gone when they were delivered. Times are
//! those of the statement: an index cannot serve a clock that moves within it.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{PostgresStore, columns, dead_letters::state_of, errors, notices::millis, pool};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind},
    message::{CommandId, Partition, Version},
    store::{
        Acted, ActedBy, CALLBACKS, CallbackAction, CallbackBacklog, CallbackEnd, CallbackHost,
        Callbacks, ClaimedCallback, CommandCommit, DeadCallback, MOST_COUNTED, PastOutcome,
        StoreError,
    },
};

/// Fresh rows: nothing that it could wait for.
pub(super) const OWE: &str = "
    INSERT INTO adjutant.callbacks (partition, command_id, type, ended_after, url, owed_at, due_at)
    SELECT o.*, clock_timestamp(), clock_timestamp()
      FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::integer[], $5::text[]) AS o";

/// Served by callbacks_oldest, a look a partition.
const PARTITIONS: &str = "
    SELECT p FROM unnest($1::smallint[]) AS p
     WHERE (SELECT c.partition FROM adjutant.callbacks c WHERE c.partition = p AND c.state = 1
             ORDER BY c.partition, c.owed_at LIMIT 1) IS NOT NULL";

/// A walk over callbacks_due that skips from host to host: many callbacks may wait, of few hosts. No
/// host comes before the empty text, and none is it.
const HOSTS: &str = "
    WITH RECURSIVE hosts AS (
        (SELECT c.host, 1 AS place FROM adjutant.callbacks c
          WHERE c.partition = $1 AND c.state = 1 AND c.host > $2
          ORDER BY c.partition, c.host LIMIT 1)
        UNION ALL
        SELECT (SELECT c.host FROM adjutant.callbacks c
                 WHERE c.partition = $1 AND c.state = 1 AND c.host > h.host
                 ORDER BY c.partition, c.host LIMIT 1), h.place + 1
          FROM hosts h WHERE h.host IS NOT NULL AND h.place < $3)
    SELECT h.host, EXISTS (SELECT 1 FROM adjutant.callbacks c
                            WHERE c.partition = $1 AND c.state = 1 AND c.host = h.host
                              AND c.due_at <= statement_timestamp() OFFSET 0)
      FROM hosts h WHERE h.host IS NOT NULL ORDER BY h.place";

macro_rules! claimed {
    () => {
        " RETURNING c.partition, c.id, c.command_id, c.type, c.ended_after, c.url, c.host,
                    c.attempts, c.attempts - c.first_attempt + 1, c.owed_at, statement_timestamp(),
                    c.error"
    };
}

/// Served by callbacks_due, a look a host; then callbacks_pkey.
const CLAIM: &str = concat!(
    "WITH due AS MATERIALIZED (
        SELECT d.id FROM unnest($2::text[], $3::bigint[]) AS h(host, room)
         CROSS JOIN LATERAL (
               SELECT f.id FROM adjutant.callbacks f
                WHERE f.partition = $1 AND f.state = 1 AND f.host = h.host
                  AND f.due_at <= statement_timestamp()
                ORDER BY f.due_at LIMIT h.room FOR UPDATE SKIP LOCKED) AS d)
     UPDATE adjutant.callbacks c
        SET attempts = c.attempts + 1,
            due_at = statement_timestamp() + $4::bigint * interval '1 millisecond'
      WHERE c.partition = $1 AND c.id = ANY(ARRAY(SELECT id FROM due))",
    claimed!()
);

/// Served by callbacks_due (or, if few are that old, by callbacks_oldest); then callbacks_pkey.
const CLAIM_AGED: &str = concat!(
    "WITH aged AS MATERIALIZED (
        SELECT f.id FROM adjutant.callbacks f
         WHERE f.partition = $1 AND f.state = 1 AND f.host = ANY($2::text[])
           AND f.owed_at < statement_timestamp() - $3::bigint * interval '1 millisecond'
           AND f.due_at <= statement_timestamp()
         ORDER BY f.partition, f.owed_at LIMIT $4 FOR UPDATE SKIP LOCKED)
     UPDATE adjutant.callbacks c
        SET due_at = statement_timestamp() + $5::bigint * interval '1 millisecond'
      WHERE c.partition = $1 AND c.id = ANY(ARRAY(SELECT id FROM aged))",
    claimed!()
);

/// What a person retried has been delivered, or has left another dead letter. Served by
/// callbacks_pkey and dead_letters_newest.
const DELIVERED: &str = "
    WITH gone AS (
        DELETE FROM adjutant.callbacks
         WHERE partition = $1 AND id = $2 AND attempts = $3 AND state = 1
        RETURNING dead_letter_id),
    resolved AS (
        UPDATE adjutant.dead_letters SET state = 3, state_at = statement_timestamp()
         WHERE id = (SELECT dead_letter_id FROM gone) AND kind = 3 AND state = 2)
    SELECT count(*) FROM gone";

/// Served by callbacks_pkey.
const AGAIN: &str = "
    UPDATE adjutant.callbacks
       SET error = $4, due_at = statement_timestamp() + $5::bigint * interval '1 millisecond'
     WHERE partition = $1 AND id = $2 AND attempts = $3 AND state = 1";

/// Served by callbacks_pkey and dead_letters_newest.
const DEAD: &str = "
    WITH failed AS MATERIALIZED (
        SELECT * FROM adjutant.callbacks
         WHERE partition = $1 AND id = $2 AND attempts = $3 AND state = 1 FOR UPDATE),
    dead AS (
        UPDATE adjutant.callbacks c SET state = 2, error = $4, dead_letter_id = $5 FROM failed f
         WHERE c.partition = f.partition AND c.id = f.id),
    resolved AS (
        UPDATE adjutant.dead_letters SET state = 3, state_at = statement_timestamp()
         WHERE id = (SELECT dead_letter_id FROM failed) AND kind = 3 AND state = 2),
    letter AS (
        INSERT INTO adjutant.dead_letters (partition, id, kind, group_name, key, type, command_id,
                                           error, fingerprint, attempts, died_at, state_at)
        SELECT f.partition, $5, $8, $9, f.host, f.type, f.command_id, $6, $7, f.attempts,
               statement_timestamp(), statement_timestamp()
          FROM failed f)
    SELECT count(*) FROM failed";

/// Served by past_outcomes_pkey.
const PAST_OUTCOME: &str = "
    SELECT attempts, version, error::text, completed_at, taken_back_at FROM adjutant.past_outcomes
     WHERE partition = $1 AND command_id = $2 AND attempts >= $3 ORDER BY attempts LIMIT 1";

/// Whoever comes second waits for the first one's letter, and finds it moved. Served by
/// dead_letters_newest, callbacks_of_dead_letter and callbacks_pkey.
const RETRY: &str = "
    WITH letter AS (
        UPDATE adjutant.dead_letters d SET state = 2, state_at = statement_timestamp()
         WHERE d.id = $1 AND d.kind = 3 AND d.state = 1
           AND EXISTS (SELECT 1 FROM adjutant.callbacks c
                        WHERE c.dead_letter_id = $1 AND c.partition = d.partition)
        RETURNING d.partition, d.id),
    due AS (
        UPDATE adjutant.callbacks c
           SET state = 1, owed_at = statement_timestamp(), due_at = statement_timestamp(),
               first_attempt = c.attempts + 1
          FROM letter l WHERE c.partition = l.partition AND c.dead_letter_id = l.id),
    audited AS (
        INSERT INTO adjutant.dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
        SELECT statement_timestamp(), l.id, 'retry', $2, $3, $4 FROM letter l)
    SELECT count(*) FROM letter";

/// Served as RETRY is.
const DISCARD: &str = "
    WITH letter AS (
        UPDATE adjutant.dead_letters d SET state = 4, state_at = statement_timestamp()
         WHERE d.id = $1 AND d.kind = 3 AND d.state = 1
        RETURNING d.partition, d.id),
    gone AS (
        DELETE FROM adjutant.callbacks c USING letter l
         WHERE c.partition = l.partition AND c.dead_letter_id = l.id),
    audited AS (
        INSERT INTO adjutant.dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
        SELECT statement_timestamp(), l.id, 'discard', $2, $3, $4 FROM letter l)
    SELECT count(*) FROM letter";

/// Served by dead_letters_newest.
const LETTER: &str = "SELECT state FROM adjutant.dead_letters WHERE id = $1 AND kind = 3";

/// Served by callbacks_oldest, read from its beginning in each partition.
const BACKLOG: &str = "
    SELECT COALESCE(sum(c.pending), 0)::bigint,
           COALESCE(max(EXTRACT(EPOCH FROM statement_timestamp() - c.oldest) * 1000), 0)::bigint
      FROM unnest($1::smallint[]) AS p
     CROSS JOIN LATERAL (
           SELECT count(*) AS pending, min(owed_at) AS oldest
             FROM (SELECT owed_at FROM adjutant.callbacks f
                    WHERE f.partition = p AND f.state = 1
                    ORDER BY f.partition, f.owed_at LIMIT $2) AS counted) AS c";

/// The parameters of [`OWE`].
pub(super) struct OwedColumns<'a> {
    partitions: Vec<i16>,
    commands: Vec<Uuid>,
    types: Vec<&'a str>,
    ended_after: Vec<i32>,
    urls: Vec<&'a str>,
}

impl<'a> OwedColumns<'a> {
    /// `None` if nobody is to be called back.
    pub(super) fn of(commit: &'a CommandCommit) -> Option<Self> {
        if !commit.owes_callbacks() {
            return None;
        }
        let mut columns = Self {
            partitions: Vec::new(),
            commands: Vec::new(),
            types: Vec::new(),
            ended_after: Vec::new(),
            urls: Vec::new(),
        };
        for outcome in &commit.outcomes {
            let Some(callback) = &outcome.callback else { continue };
            columns.partitions.push(outcome.partition.0);
            columns.commands.push(outcome.command_id.0);
            columns.types.push(&callback.command_type);
            columns.ended_after.push(outcome.attempts);
            columns.urls.push(&callback.url);
        }
        Some(columns)
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![&self.partitions, &self.commands, &self.types, &self.ended_after, &self.urls]
    }
}

#[async_trait]
impl Callbacks for PostgresStore {
    async fn partitions_with_callbacks(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<Partition>, StoreError> {
        let rows = self.look(PARTITIONS, &[&numbers(partitions)]).await?;
        Ok(rows.iter().map(|row| Partition(row.get(0))).collect())
    }

    async fn callback_hosts(
        &self,
        partition: Partition,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<CallbackHost>, StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let after = after.unwrap_or_default();
        let rows = self.look(HOSTS, &[&partition.0, &after, &limit]).await?;
        Ok(rows.iter().map(|row| CallbackHost { host: row.get(0), due: row.get(1) }).collect())
    }

    async fn claim_callbacks(
        &self,
        partition: Partition,
        hosts: &[(String, i64)],
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        let (names, rooms): (Vec<&str>, Vec<i64>) =
            hosts.iter().map(|(host, room)| (host.as_str(), *room)).unzip();
        let rows = self.change(CLAIM, &[&partition.0, &names, &rooms, &millis(lease)]).await?;
        Ok(rows.iter().map(claimed).collect())
    }

    async fn claim_aged_callbacks(
        &self,
        partition: Partition,
        hosts: &[String],
        age: Duration,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        let params: [&(dyn ToSql + Sync); 5] =
            [&partition.0, &hosts, &millis(age), &limit, &millis(lease)];
        Ok(self.change(CLAIM_AGED, &params).await?.iter().map(claimed).collect())
    }

    async fn end_callback(
        &self,
        claimed: &ClaimedCallback,
        end: CallbackEnd,
    ) -> Result<bool, StoreError> {
        let (partition, id, attempts) = (claimed.partition.0, claimed.id, claimed.attempts);
        match end {
            CallbackEnd::Delivered => {
                self.count(DELIVERED, &[&partition, &id, &attempts]).await.map(|n| n == 1)
            }
            CallbackEnd::Again(after, error) => {
                let client = self.hot().await?;
                let again = pool::prepare(&client, AGAIN).await?;
                let params: [&(dyn ToSql + Sync); 5] =
                    [&partition, &id, &attempts, &error, &millis(after)];
                let changed = client.execute(&again, &params).await;
                Ok(changed.map_err(errors::after_commit)? == 1)
            }
            CallbackEnd::Dead(DeadCallback { letter, error, fingerprint }) => {
                let failure = columns::OwnedJsonb(columns::json_text(&error)?);
                let params: [&(dyn ToSql + Sync); 9] = [
                    &partition,
                    &id,
                    &attempts,
                    &error.message,
                    &letter.0,
                    &failure,
                    &fingerprint,
                    &DeadLetterKind::Callback.code(),
                    &CALLBACKS,
                ];
                self.count(DEAD, &params).await.map(|n| n == 1)
            }
        }
    }

    async fn past_outcome(
        &self,
        partition: Partition,
        command: CommandId,
        attempts: i32,
    ) -> Result<Option<PastOutcome>, StoreError> {
        let rows = self.look(PAST_OUTCOME, &[&partition.0, &command.0, &attempts]).await?;
        let read = |row: &Row| {
            Ok(PastOutcome {
                attempts: row.get(0),
                version: Version(row.get(1)),
                error: columns::failure(row.get(2))?,
                completed_at: row.get(3),
                taken_back_at: row.get(4),
            })
        };
        rows.first().map(read).transpose()
    }

    async fn act_on_callback(
        &self,
        letter: DeadLetterId,
        action: CallbackAction,
        by: &ActedBy,
    ) -> Result<Acted, StoreError> {
        let sql = match action {
            CallbackAction::Retry => RETRY,
            CallbackAction::Discard => DISCARD,
        };
        let job = by.job.map(|step| step.id.0);
        if self.count(sql, &[&letter.0, &by.who, &by.reason, &job]).await? == 1 {
            return Ok(Acted::Done);
        }
        let found = self.look(LETTER, &[&letter.0]).await?;
        Ok(match found.first().map(|row| row.get::<_, i16>(0)) {
            None => Acted::NotFound,
            Some(1) => Acted::NothingToRetry,
            Some(state) => Acted::NotOpen(state_of(state)?),
        })
    }

    async fn callback_backlog(
        &self,
        partitions: &[Partition],
    ) -> Result<CallbackBacklog, StoreError> {
        let rows = self.look(BACKLOG, &[&numbers(partitions), &MOST_COUNTED]).await?;
        Ok(rows.first().map_or_else(CallbackBacklog::default, |row| CallbackBacklog {
            pending: row.get(0),
            oldest: Duration::from_millis(row.get::<_, i64>(1).max(0).unsigned_abs()),
        }))
    }
}

impl PostgresStore {
    async fn change(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, sql).await?;
        client.query(&statement, params).await.map_err(errors::after_commit)
    }

    /// A statement that answers how many it did something to.
    async fn count(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<i64, StoreError> {
        Ok(self.change(sql, params).await?.first().map_or(0, |row| row.get(0)))
    }
}

fn numbers(partitions: &[Partition]) -> Vec<i16> {
    partitions.iter().map(|partition| partition.0).collect()
}

fn claimed(row: &Row) -> ClaimedCallback {
    ClaimedCallback {
        partition: Partition(row.get(0)),
        id: row.get(1),
        command_id: CommandId(row.get(2)),
        command_type: row.get(3),
        ended_after: row.get(4),
        url: row.get(5),
        host: row.get(6),
        attempts: row.get(7),
        tries: row.get(8),
        owed_at: row.get(9),
        now: row.get(10),
        error: row.get(11),
    }
}
