//! Reading and clearing the outbox; promoting the schedule.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore,
    append::{Appended, COMMANDS, EVENTS},
    intake,
    logs::envelope,
    transaction::{Transaction, column, maybe_time, numbers, partition, partition_numbers, time},
};
use crate::{
    message::{MemberId, Offset, Partition, Route},
    store::{
        ClaimedCommand, Outbox, OutboxPage, OutboxRow, StoreError, outbox,
        stored::{content_hash, headers},
    },
};

/// A page has about this many bytes at most (and at least a row).
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// The newest id that was ever given.
const NEWEST: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'";

/// Served by the primary key.
const READ: &str = "
    SELECT id, partition, route, queue, first_offset, entries, recorded_at, correlation_id,
           content_type, headers, body
      FROM outbox
     WHERE id >= ?1 AND partition IN (SELECT value FROM json_each(?2))
       AND id NOT IN (SELECT value FROM json_each(?3))
     ORDER BY id LIMIT ?4";

/// Served by the primary key.
const DELETE: &str = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?1))";

/// Reads from the oldest row on.
const DROP_AGED: &str = "
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox
         WHERE partition IN (SELECT value FROM json_each(?1)) AND first_offset IS NOT NULL
           AND recorded_at < ?2
         ORDER BY id LIMIT ?3)";

const DEPTH: &str = "
    SELECT count(*), min(recorded_at)
      FROM (SELECT recorded_at FROM outbox ORDER BY id LIMIT ?1)";

/// A row whose command is gone, or has ended, is an orphan: it is taken, and nothing is run. Served
/// by schedule_by_time and the primary keys of commands and outcomes.
const DUE: &str = "
    SELECT s.id, c.id, c.type, c.stream,
           CASE s.edit WHEN 0 THEN c.payload ELSE (
               SELECT e.payload FROM command_edits e
                WHERE e.command_id = s.command_id AND e.edit = s.edit) END,
           c.metadata, c.expected_version, c.reply_to, c.accepted_at, s.attempt, s.first_offset,
           s.edit, c.not_after, c.callback_url, s.partition,
           c.id IS NULL OR EXISTS (SELECT 1 FROM outcomes o WHERE o.partition = s.partition
                                      AND o.command_id = s.command_id)
      FROM schedule s LEFT JOIN commands c ON c.id = s.command_id
     WHERE s.partition IN (SELECT value FROM json_each(?1)) AND s.due_at <= ?2
       AND (s.reason <> 'immediate' OR s.due_at <= ?4)
     ORDER BY s.partition, s.due_at, s.id LIMIT ?3";

/// Served by schedule_for_lanes and the primary keys.
const DUE_FOR_LANES: &str = "
    SELECT s.id, c.id, c.type, c.stream, c.payload, c.metadata, c.expected_version, c.reply_to,
           c.accepted_at, 1, NULL, 0, c.not_after, c.callback_url,
           c.id IS NULL OR EXISTS (SELECT 1 FROM outcomes o WHERE o.partition = s.partition
                                                              AND o.command_id = s.command_id),
           c.content_hash, c.not_before
      FROM schedule s LEFT JOIN commands c ON c.id = s.command_id
     WHERE s.partition IN (SELECT value FROM json_each(?1)) AND s.due_at <= ?2
       AND s.reason = 'immediate'
     ORDER BY s.partition, s.due_at, s.id LIMIT ?3";

const TAKEN: &str = "DELETE FROM schedule WHERE id IN (SELECT value FROM json_each(?1))";

/// Served by the primary keys.
const GONE: &str = "
    SELECT i.id, c.id, c.type, c.stream, c.payload, c.metadata, c.expected_version, c.reply_to,
           c.accepted_at, 1, NULL, 0, c.not_after, c.callback_url, i.partition
      FROM immediate i JOIN commands c ON c.id = i.command_id
     WHERE i.partition IN (SELECT value FROM json_each(?1))
       AND i.owner NOT IN (SELECT m.id FROM members m WHERE m.heartbeat_at > ?2)
     ORDER BY i.id LIMIT ?3";

const TAKEN_OVER: &str = "DELETE FROM immediate WHERE id IN (SELECT value FROM json_each(?1))";

#[async_trait]
impl Outbox for SqliteStore {
    async fn read_outbox(
        &self,
        partitions: &[Partition],
        bound: u64,
        known: &[i64],
        limit: i64,
    ) -> Result<OutboxPage, StoreError> {
        let (partitions, known) = (partition_numbers(partitions), numbers(known.iter().copied()));
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        let page = self.engine.read(move |transaction| {
            // One writer: ids are in commit order, and what this snapshot does not hold gets an id
            // beyond the newest one.
            let next_bound = transaction.number(NEWEST, ())?.unsigned_abs() + 1;
            let params = params![bound, partitions, known, limit];
            let bytes = |row: &OutboxRow| row.body.len();
            let read = |row: &Row<'_>| outbox_row(row, transaction.now);
            let rows = transaction.within(PAGE_BYTES, READ, params, bytes, read)?;
            Ok(OutboxPage { rows, next_bound })
        });
        page.await
    }

    async fn drop_aged(
        &self,
        partitions: &[Partition],
        age_ms: i64,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let partitions = partition_numbers(partitions);
        let dropped = self.engine.write(move |transaction| {
            let before = transaction.now.saturating_sub(age_ms.saturating_mul(1_000));
            transaction.execute(DROP_AGED, params![partitions, before, limit])
        });
        Ok(dropped.await? as u64)
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = numbers(ids.iter().copied());
        self.engine.write(move |transaction| transaction.execute(DELETE, [ids])).await?;
        Ok(())
    }

    async fn outbox_depth(&self, limit: i64) -> Result<(i64, i64), StoreError> {
        let depth = self.engine.read(move |transaction| {
            let depth = transaction.first(DEPTH, [limit], |row| {
                let oldest: Option<i64> = column(row, 1)?;
                let age = oldest.map_or(0, |oldest| age_ms(transaction.now, oldest));
                Ok((column(row, 0)?, age))
            })?;
            Ok(depth.unwrap_or_default())
        });
        depth.await
    }

    async fn promote_due(
        &self,
        partitions: &[Partition],
        lane_grace: Duration,
        limit: i64,
    ) -> Result<usize, StoreError> {
        let asked = Due { partitions: partition_numbers(partitions), lane_grace, limit };
        if planted!(DueCommandForgotten) {
            return self.promote_in_two_steps(asked).await;
        }
        self.engine.write(move |transaction| promote_due(transaction, &asked)).await
    }

    async fn claim_due(
        &self,
        partitions: &[Partition],
        owner: MemberId,
        limit: i64,
    ) -> Result<Vec<ClaimedCommand>, StoreError> {
        let partitions = partition_numbers(partitions);
        let claim =
            move |transaction: &Transaction<'_>| claim_due(transaction, &partitions, owner, limit);
        self.engine.write(claim).await
    }

    async fn take_over(
        &self,
        partitions: &[Partition],
        ttl: Duration,
        limit: i64,
    ) -> Result<usize, StoreError> {
        let partitions = partition_numbers(partitions);
        self.engine.write(move |transaction| take_over(transaction, &partitions, ttl, limit)).await
    }
}

/// Takes commands out of the hands of processes that are gone.
fn take_over(
    transaction: &Transaction<'_>,
    partitions: &str,
    ttl: Duration,
    limit: i64,
) -> Result<usize, StoreError> {
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let since = transaction.now.saturating_sub(ttl);
    let gone = transaction.all(GONE, params![partitions, since, limit], |row| {
        Ok((column::<i64>(row, 0)?, partition(row, 14)?, envelope(row)?))
    })?;
    if gone.is_empty() {
        return Ok(0);
    }
    failpoint!(TakeOverFound);
    transaction.execute(TAKEN_OVER, [numbers(gone.iter().map(|(id, ..)| *id))])?;
    let count = gone.len();
    let mut appended = Appended::new();
    for (_, partition, command) in gone {
        appended.entry(partition).or_default().push(command);
    }
    if !planted!(TakeOverForgets) {
        transaction.append(&appended)?;
    }
    Ok(count)
}

impl SqliteStore {
    async fn promote_in_two_steps(&self, asked: Due) -> Result<usize, StoreError> {
        let taken = self.engine.write(move |transaction| take_due(transaction, &asked));
        let (count, appended) = taken.await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.engine.write(move |transaction| transaction.append(&appended)).await?;
        Ok(count)
    }
}

/// Which rows of the schedule a relay asks for.
struct Due {
    partitions: String,
    lane_grace: Duration,
    limit: i64,
}

/// Puts what is due for the immediate lane into the hands of `owner`.
fn claim_due(
    transaction: &Transaction<'_>,
    partitions: &str,
    owner: MemberId,
    limit: i64,
) -> Result<Vec<ClaimedCommand>, StoreError> {
    let due =
        transaction.all(DUE_FOR_LANES, params![partitions, transaction.now, limit], |row| {
            let is_orphan: bool = column(row, 14)?;
            let claimed = || {
                let hash = content_hash(&column::<Vec<u8>>(row, 15)?)?;
                Ok::<_, StoreError>(ClaimedCommand::new(
                    envelope(row)?,
                    owner,
                    hash,
                    maybe_time(row, 16)?,
                ))
            };
            Ok((column::<i64>(row, 0)?, if is_orphan { None } else { Some(claimed()?) }))
        })?;
    if due.is_empty() {
        return Ok(Vec::new());
    }
    transaction.execute(TAKEN, [numbers(due.iter().map(|(id, _)| *id))])?;
    let rows = due.len();
    let claimed: Vec<_> = due.into_iter().filter_map(|(_, claimed)| claimed).collect();
    outbox::count_orphans((rows - claimed.len()) as u64);
    if !planted!(ClaimHoldsNothing) {
        for ClaimedCommand { command, .. } in &claimed {
            intake::hold(transaction, transaction.partitions.of(&command.stream), command)?;
        }
    }
    Ok(claimed)
}

fn promote_due(transaction: &Transaction<'_>, asked: &Due) -> Result<usize, StoreError> {
    let (count, appended) = take_due(transaction, asked)?;
    transaction.append(&appended)?;
    Ok(count)
}

/// Takes due rows out of the schedule; they are to be appended.
fn take_due(
    transaction: &Transaction<'_>,
    Due { partitions, lane_grace, limit }: &Due,
) -> Result<(usize, Appended), StoreError> {
    let grace = i64::try_from(lane_grace.as_micros()).unwrap_or(i64::MAX);
    let unclaimed = transaction.now.saturating_sub(grace);
    let due =
        transaction.all(DUE, params![partitions, transaction.now, limit, unclaimed], |row| {
            let is_orphan: bool = column(row, 15)?;
            let command = if is_orphan { None } else { Some(envelope(row)?) };
            Ok((column::<i64>(row, 0)?, partition(row, 14)?, command))
        })?;
    if due.is_empty() {
        return Ok((0, Appended::new()));
    }
    transaction.execute(TAKEN, [numbers(due.iter().map(|(id, ..)| *id))])?;
    let count = due.len();
    let mut appended = Appended::new();
    let mut orphans = 0;
    for (_, partition, command) in due {
        match command {
            Some(command) => appended.entry(partition).or_default().push(command),
            None => orphans += 1,
        }
    }
    outbox::count_orphans(orphans);
    Ok((count, appended))
}

fn age_ms(now: i64, then: i64) -> i64 {
    now.saturating_sub(then) / 1_000
}

fn outbox_row(row: &Row<'_>, now: i64) -> Result<OutboxRow, StoreError> {
    let id: i64 = column(row, 0)?;
    let partition = partition(row, 1)?;
    let route = match (column::<i16>(row, 2)?, column::<Option<String>>(row, 3)?) {
        (COMMANDS, _) => Route::Commands(partition),
        (EVENTS, _) => Route::Events(partition),
        (3, Some(queue)) => Route::Reply { queue },
        (4, _) => Route::IntakeDeadLetter,
        (other, _) => return Err(StoreError::Corrupt(format!("there is no route {other}"))),
    };
    Ok(OutboxRow {
        id,
        transaction: id.unsigned_abs(),
        partition,
        route,
        first_offset: column::<Option<i64>>(row, 4)?.map(Offset),
        entries: column(row, 5)?,
        recorded_at: time(row, 6)?,
        age_ms: age_ms(now, column(row, 6)?),
        correlation_id: column(row, 7)?,
        content_type: column(row, 8)?,
        headers: headers(column::<Option<String>>(row, 9)?.as_deref())?,
        body: column(row, 10)?,
    })
}
