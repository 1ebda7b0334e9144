//! Reading and clearing the outbox; promoting the schedule.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{PostgresStore, append::Appended, columns, errors, logs, pool};
use crate::{
    message::{MemberId, Offset, Partition, Route},
    store::{ClaimedCommand, Outbox, OutboxPage, OutboxRow, StoreError, outbox},
};

/// The bound and the rows come from one snapshot. Served by outbox_by_transaction: the ids are
/// looked up by the bound first, because a plan that walks the key in order reads every dead row
/// that a pinned snapshot holds. A page has about 8 MiB at most (and at least a row).
const READ: &str = "
    SELECT s.xmin::text, o.id, o.partition, o.route, o.queue, o.first_offset, o.entries,
           o.recorded_at, o.age_ms, o.correlation_id, o.content_type, o.headers::text, o.body,
           o.xid::text
      FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin) AS s
      LEFT JOIN LATERAL (
           WITH waiting AS MATERIALIZED (
               SELECT b.id, octet_length(b.body) AS bytes FROM adjutant.outbox b
                WHERE b.xid >= $2::text::xid8 AND b.partition = ANY($1::smallint[])
                  AND b.id <> ALL($3::bigint[])),
           page AS (SELECT w.id, sum(w.bytes) OVER (ORDER BY w.id) - w.bytes AS bytes_before
                      FROM (SELECT * FROM waiting ORDER BY id LIMIT $4) AS w)
           SELECT b.*, (EXTRACT(EPOCH FROM clock_timestamp() - b.recorded_at) * 1000)::bigint AS age_ms
             FROM page
            CROSS JOIN LATERAL (SELECT * FROM adjutant.outbox r WHERE r.id = page.id OFFSET 0) AS b
            WHERE page.bytes_before <= 8388608) AS o ON true
     ORDER BY o.id";

/// Served by outbox_pkey.
const DELETE: &str = "DELETE FROM adjutant.outbox WHERE id = ANY($1::bigint[])";

/// Served by outbox_pkey.
const DROP_AGED: &str = "
    DELETE FROM adjutant.outbox WHERE id IN (
        SELECT id FROM adjutant.outbox
         WHERE partition = ANY($1::smallint[]) AND first_offset IS NOT NULL
           AND recorded_at < clock_timestamp() - $2::bigint * interval '1 millisecond'
         ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)";

/// From the oldest transaction on that may have left a row. Served by outbox_by_transaction.
const DEPTH: &str = "
    SELECT count(*), COALESCE((EXTRACT(EPOCH FROM clock_timestamp() - min(recorded_at)) * 1000), 0)::bigint,
           LEAST(min(xid::text::bigint), pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
      FROM (SELECT recorded_at, xid FROM adjutant.outbox WHERE xid >= $2::text::xid8
             ORDER BY xid LIMIT $1) AS o";

/// The time is asked for once: as a bound of the index, and not of each row that is not due. A row whose
/// command is gone, or has ended, is an orphan: it is taken, and nothing is run. Served
/// by schedule_pkey, commands_pkey and outcomes_pkey; corrections, if
/// there are any, by command_edits_pkey.
const TAKE_DUE: &str = "
    WITH due AS (
        DELETE FROM adjutant.schedule s
         USING (SELECT partition, due_at, id FROM adjutant.schedule
                 WHERE partition = ANY($1::smallint[]) AND due_at <= (SELECT clock_timestamp())
                   AND (reason <> 'immediate'
                        OR due_at <= (SELECT clock_timestamp() - $3::bigint * interval '1 millisecond'))
                 ORDER BY partition, due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED) AS d
         WHERE s.partition = d.partition AND s.due_at = d.due_at AND s.id = d.id
        RETURNING s.partition, s.due_at, s.id AS place, s.command_id, s.bucket, s.attempt,
                  s.first_offset, s.edit)
    SELECT due.partition, c.id, c.type, c.stream,
           CASE due.edit WHEN 0 THEN c.payload ELSE (
               SELECT e.payload FROM adjutant.command_edits e
                WHERE e.bucket = due.bucket AND e.command_id = due.command_id
                  AND e.edit = due.edit)
           END::text, c.metadata::text,
           c.expected_version, c.reply_to::text, c.accepted_at, due.attempt, due.first_offset,
           due.edit, c.not_after, c.callback_url,
           c.id IS NULL OR o.ended
      FROM due
      LEFT JOIN LATERAL (SELECT * FROM adjutant.commands f
                          WHERE f.bucket = due.bucket AND f.id = due.command_id OFFSET 0) AS c
        ON true
     CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM adjutant.outcomes f
                                         WHERE f.partition = due.partition
                                           AND f.command_id = due.command_id) AS ended) AS o
     ORDER BY due.partition, due.due_at, due.place";

/// Served by schedule_for_lanes, commands_pkey and outcomes_pkey.
const CLAIM_DUE: &str = "
    WITH due AS (
        DELETE FROM adjutant.schedule s
         USING (SELECT partition, due_at, id FROM adjutant.schedule
                 WHERE partition = ANY($1::smallint[]) AND due_at <= (SELECT clock_timestamp())
                   AND reason = 'immediate'
                 ORDER BY partition, due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED) AS d
         WHERE s.partition = d.partition AND s.due_at = d.due_at AND s.id = d.id
        RETURNING s.partition, s.due_at, s.id AS place, s.command_id, s.bucket),
    found AS MATERIALIZED (
        SELECT due.partition, due.due_at, due.place, due.bucket, c.*, c.id IS NULL OR o.ended AS orphan
          FROM due
          LEFT JOIN LATERAL (
               SELECT f.id, f.type, f.stream, f.payload, f.metadata, f.expected_version, f.reply_to,
                      f.accepted_at, f.not_before, f.not_after, f.callback_url, f.content_hash
                 FROM adjutant.commands f
                WHERE f.bucket = due.bucket AND f.id = due.command_id OFFSET 0) AS c ON true
         CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM adjutant.outcomes f
                                             WHERE f.partition = due.partition
                                               AND f.command_id = due.command_id) AS ended) AS o),
    held AS (
        INSERT INTO adjutant.immediate (partition, command_id, bucket, owner, accepted_at)
        SELECT f.partition, f.id, f.bucket, $2::uuid, clock_timestamp()
          FROM found f WHERE NOT f.orphan ORDER BY f.partition, f.due_at, f.place)
    SELECT f.partition, f.id, f.type, f.stream, f.payload::text, f.metadata::text,
           f.expected_version, f.reply_to::text, f.accepted_at, 1, NULL::bigint, 0, f.not_after,
           f.callback_url, f.orphan, f.content_hash, f.not_before
      FROM found f ORDER BY f.partition, f.due_at, f.place";

/// Those that are gone are found by a walk over immediate_of_owner between the ids of those that live,
/// from owner to owner: the stretch of one that lives is not read at all. It may hold many commands,
/// and, while an old snapshot keeps them, very many that it has finished. The nil id is nobody's:
/// what was let go of has it. The rest is served by the same index, and by commands_pkey.
const TAKE_OVER: &str = "
    WITH gaps AS (
        SELECT lag(m.id, 1, '00000000-0000-0000-0000-000000000000') OVER (ORDER BY m.id) AS lower,
               m.id AS upper
          FROM (SELECT id FROM adjutant.members
                 WHERE heartbeat_at > clock_timestamp() - $2::bigint * interval '1 millisecond'
                 UNION ALL SELECT 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS m),
    gone AS MATERIALIZED (
        SELECT '00000000-0000-0000-0000-000000000000'::uuid AS owner
        UNION ALL
        SELECT o.owner FROM gaps
         CROSS JOIN LATERAL (
               WITH RECURSIVE owners AS (
                   (SELECT i.owner FROM adjutant.immediate i
                     WHERE i.owner > gaps.lower AND i.owner < gaps.upper ORDER BY i.owner LIMIT 1)
                   UNION ALL
                   SELECT (SELECT i.owner FROM adjutant.immediate i
                            WHERE i.owner > o.owner AND i.owner < gaps.upper
                            ORDER BY i.owner LIMIT 1)
                     FROM owners o WHERE o.owner IS NOT NULL)
               SELECT owner FROM owners WHERE owner IS NOT NULL) AS o),
    taken AS (
        DELETE FROM adjutant.immediate i
         WHERE i.ctid = ANY(ARRAY(
               SELECT held.place FROM gone
                CROSS JOIN LATERAL (
                      SELECT h.ctid AS place FROM adjutant.immediate h
                       WHERE h.owner = gone.owner AND h.partition = ANY($1::smallint[])
                       ORDER BY h.id LIMIT $3 FOR UPDATE SKIP LOCKED) AS held
                LIMIT $3))
        RETURNING i.partition, i.id, i.command_id, i.bucket)
    SELECT taken.partition, c.id, c.type, c.stream, c.payload::text, c.metadata::text,
           c.expected_version, c.reply_to::text, c.accepted_at, 1, NULL::bigint, 0, c.not_after,
           c.callback_url
      FROM taken
     CROSS JOIN LATERAL (SELECT * FROM adjutant.commands f
                          WHERE f.bucket = taken.bucket AND f.id = taken.command_id OFFSET 0) AS c
     ORDER BY taken.id";

/// Ten years: PostgreSQL cannot go back from now for ever.
const LONGEST_GRACE_MS: i64 = 10 * 365 * 24 * 3_600 * 1_000;

#[async_trait]
impl Outbox for PostgresStore {
    async fn read_outbox(
        &self,
        partitions: &[Partition],
        bound: u64,
        known: &[i64],
        limit: i64,
    ) -> Result<OutboxPage, StoreError> {
        let client = self.hot().await?;
        let read = pool::prepare(&client, READ).await?;
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0).collect();
        let rows = client
            .query(&read, &[&partitions, &bound.to_string(), &known, &limit])
            .await
            .map_err(errors::before_commit)?;
        let next_bound = rows
            .first()
            .and_then(|row| row.get::<_, String>(0).parse().ok())
            .ok_or_else(|| StoreError::Internal("pg_snapshot_xmin is not readable".into()))?;
        let rows = rows
            .iter()
            .filter(|row| row.get::<_, Option<i64>>(1).is_some())
            .map(outbox_row)
            .collect::<Result<_, _>>()?;
        Ok(OutboxPage { rows, next_bound })
    }

    async fn drop_aged(
        &self,
        partitions: &[Partition],
        age_ms: i64,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let client = self.hot().await?;
        let drop_aged = pool::prepare(&client, DROP_AGED).await?;
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0).collect();
        let dropped = client.execute(&drop_aged, &[&partitions, &age_ms, &limit]).await;
        dropped.map_err(errors::after_commit)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<(), StoreError> {
        let client = self.hot().await?;
        let delete = pool::prepare(&client, DELETE).await?;
        client.execute(&delete, &[&ids]).await.map(|_| ()).map_err(errors::after_commit)
    }

    async fn outbox_depth(&self, limit: i64) -> Result<(i64, i64), StoreError> {
        let client = self.hot().await?;
        let depth = pool::prepare(&client, DEPTH).await?;
        let bound = self.depth_bound.load(Ordering::Relaxed).to_string();
        let row = client.query_one(&depth, &[&limit, &bound]).await;
        let row = row.map_err(errors::before_commit)?;
        self.depth_bound.store(row.get::<_, i64>(2).unsigned_abs(), Ordering::Relaxed);
        Ok((row.get(0), row.get(1)))
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        lane_grace: Duration,
        limit: i64,
    ) -> Result<usize, StoreError> {
        let mut transaction = self.transaction().await?;
        let take = transaction.prepare(TAKE_DUE).await?;
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0).collect();
        let grace = i64::try_from(lane_grace.as_millis()).unwrap_or(i64::MAX).min(LONGEST_GRACE_MS);
        let rows = transaction.begin_with(&take, &[&partitions, &limit, &grace]).await?;
        if rows.is_empty() {
            transaction.roll_back().await?;
            return Ok(0);
        }
        let mut appended = Appended::new();
        let mut orphans = 0;
        for row in &rows {
            if row.get(14) {
                orphans += 1;
                continue;
            }
            let partition = Partition(row.get(0));
            appended.entry(partition).or_default().push(logs::envelope(row)?);
        }
        self.append_and_commit(transaction, &appended).await?;
        outbox::count_orphans(orphans);
        Ok(rows.len())
    }

    async fn claim_due(
        &self,
        partitions: &[Partition],
        owner: MemberId,
        limit: i64,
    ) -> Result<Vec<ClaimedCommand>, StoreError> {
        let client = self.hot().await?;
        let claim = pool::prepare(&client, CLAIM_DUE).await?;
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0).collect();
        let rows = client.query(&claim, &[&partitions, &owner.0, &limit]).await;
        let rows = rows.map_err(errors::after_commit)?;
        let (orphans, claimed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get(14));
        outbox::count_orphans(orphans.len() as u64);
        let mut commands = Vec::with_capacity(claimed.len());
        for row in claimed {
            match claimed_command(row, owner) {
                Ok(command) => commands.push(command),
                // It is held, and not here: that is found out, and the log has it. The others run.
                Err(error) => tracing::error!(%error, "a claimed command cannot be read"),
            }
        }
        Ok(commands)
    }

    async fn take_over(
        &self,
        partitions: &[Partition],
        ttl: Duration,
        limit: i64,
    ) -> Result<usize, StoreError> {
        let mut transaction = self.transaction().await?;
        let take = transaction.prepare(TAKE_OVER).await?;
        let partitions: Vec<i16> = partitions.iter().map(|partition| partition.0).collect();
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let rows = transaction.begin_with(&take, &[&partitions, &ttl, &limit]).await?;
        if rows.is_empty() {
            transaction.roll_back().await?;
            return Ok(0);
        }
        failpoint!(TakeOverFound);
        let mut appended = Appended::new();
        for row in &rows {
            appended.entry(Partition(row.get(0))).or_default().push(logs::envelope(row)?);
        }
        self.append_and_commit(transaction, &appended).await?;
        Ok(rows.len())
    }
}

fn claimed_command(row: &Row, owner: MemberId) -> Result<ClaimedCommand, StoreError> {
    let content_hash = columns::content_hash(row.get(15))?;
    Ok(ClaimedCommand::new(logs::envelope(row)?, owner, content_hash, row.get(16)))
}

fn outbox_row(row: &Row) -> Result<OutboxRow, StoreError> {
    let partition = Partition(row.get(2));
    let queue: Option<String> = row.get(4);
    let route = match (row.get::<_, i16>(3), queue) {
        (1, _) => Route::Commands(partition),
        (2, _) => Route::Events(partition),
        (3, Some(queue)) => Route::Reply { queue },
        (4, _) => Route::IntakeDeadLetter,
        (other, _) => return Err(StoreError::Corrupt(format!("there is no route {other}"))),
    };
    let headers: Option<String> = row.get(11);
    let headers = columns::headers(headers.as_deref())?;
    let transaction = row.get::<_, &str>(13).parse();
    Ok(OutboxRow {
        id: row.get(1),
        transaction: transaction.map_err(|_| StoreError::Corrupt("outbox.xid".into()))?,
        partition,
        route,
        first_offset: row.get::<_, Option<i64>>(5).map(Offset),
        entries: row.get(6),
        recorded_at: row.get(7),
        age_ms: row.get(8),
        correlation_id: row.get(9),
        content_type: row.get(10),
        headers,
        body: row.get(12),
    })
}
