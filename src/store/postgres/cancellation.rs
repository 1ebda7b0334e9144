//! Cancelling: who the commands are is looked up first (it never changes), then one function call does
//! everything and commits. And the walk over what has not ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    PostgresStore,
    columns::{self, Jsonb, json_text},
    errors, pool,
};
use crate::{
    message::{CommandId, OutcomeStatus, Partition},
    store::{
        CancelAnswer, Cancellation, CancelledBy, StoreError, Undecided, UndecidedPage, Walk,
        Whereabouts, cancellation::check_size,
    },
};

/// Served by commands_pkey.
const PLACES: &str = "
    SELECT c.id, c.partition, c.type
      FROM unnest($1::smallint[], $2::uuid[]) AS w(bucket, id)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.commands f
                          WHERE f.bucket = w.bucket AND f.id = w.id OFFSET 0) AS c";

/// See `migrations/0009_cancellation.sql`.
const CANCEL: &str = "
    SELECT r_result FROM adjutant.cancel_commands($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     ORDER BY r_place";

/// A page of some place, with what a filter asks for. Served by commands_pkey.
macro_rules! page_of {
    ($page:literal, $order:literal) => {
        concat!(
            "SELECT p.partition, p.command_id, c.type, c.stream, c.accepted_at, p.a, p.b
               FROM (",
            $page,
            ") AS p
               LEFT JOIN LATERAL (SELECT * FROM adjutant.commands f
                                   WHERE f.bucket = p.bucket AND f.id = p.command_id OFFSET 0) AS c
                 ON true
              ORDER BY ",
            $order
        )
    };
}

/// Served by immediate_pkey.
const HELD: &str = page_of!(
    "SELECT i.partition, i.command_id, i.bucket, NULL::text AS a, NULL::bigint AS b
       FROM adjutant.immediate i
      WHERE i.partition BETWEEN $1 AND $2 AND (i.partition, i.command_id) > ($3, $4)
      ORDER BY i.partition, i.command_id LIMIT $5",
    "p.partition, p.command_id"
);

/// Served by holds_pkey. Rows of other states are in the schedule or in the log, or dead.
const WAITING: &str = page_of!(
    "SELECT h.partition, h.command_id, h.bucket, h.stream AS a, h.first_offset AS b
       FROM adjutant.holds h
      WHERE h.partition BETWEEN $1 AND $2 AND h.state = 2
        AND (h.partition, h.stream, h.first_offset) > ($3, $4, $5)
      ORDER BY h.partition, h.stream, h.first_offset LIMIT $6",
    "p.partition, p.a, p.b"
);

/// Served by schedule_pkey. Times have microseconds, here and in the place.
const SCHEDULED: &str = page_of!(
    "SELECT s.partition, s.command_id, s.bucket, s.due_at,
            (EXTRACT(EPOCH FROM s.due_at) * 1000000)::bigint::text AS a, s.id AS b
       FROM adjutant.schedule s
      WHERE s.partition BETWEEN $1 AND $2
        AND (s.partition, s.due_at, s.id)
          > ($3, 'epoch'::timestamptz + $4::bigint * interval '1 microsecond', $5)
      ORDER BY s.partition, s.due_at, s.id LIMIT $6",
    "p.partition, p.due_at, p.b"
);

/// Served by command_log_pkey.
const LOGGED: &str = page_of!(
    "SELECT l.partition, l.command_id, l.bucket, NULL::text AS a, l.\"offset\" AS b
       FROM unnest($1::smallint[], $2::bigint[]) AS n(partition, behind)
      CROSS JOIN LATERAL (SELECT * FROM adjutant.command_log f
                           WHERE f.partition = n.partition AND f.\"offset\" > n.behind
                           ORDER BY f.\"offset\" LIMIT $3) AS l
      ORDER BY l.partition, l.\"offset\" LIMIT $3",
    "p.partition, p.b"
);

#[async_trait]
impl Cancellation for PostgresStore {
    async fn cancel_commands(
        &self,
        commands: &[CommandId],
        by: &CancelledBy,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        check_size(commands.len())?;
        let places = self.places_of(commands).await?;
        if places.is_empty() && by.job.is_none() {
            return Ok(commands.iter().map(|_| CancelAnswer::NotFound).collect());
        }
        let columns = Columns::of(self, &places);
        let error = json_text(&by.failure())?;
        let walk = by.job.as_ref().map(|step| json_text(&step.walk)).transpose()?;
        let transaction = self.transaction().await?;
        let cancel = transaction.prepare(CANCEL).await?;
        let rows = transaction
            .run_with(
                &cancel,
                &[
                    &columns.logs,
                    &columns.ids,
                    &columns.partitions,
                    &columns.buckets,
                    &by.who,
                    &by.reason,
                    &Jsonb(&error),
                    &by.job.as_ref().map(|step| step.id.0),
                    &by.job.as_ref().map(|step| step.owner.0),
                    &walk.as_deref().map(Jsonb),
                ],
            )
            .await?;
        answers(commands, places, &columns.ids, &rows)
    }

    async fn undecided(&self, walk: &Walk, limit: i64) -> Result<UndecidedPage, StoreError> {
        let rows = self.page_of(walk, limit).await?;
        let mut commands = Vec::with_capacity(rows.len());
        for row in &rows {
            commands.extend(undecided(row)?);
        }
        let last = rows.last().filter(|_| rows.len() as i64 == limit);
        let last = last.map(|row| place(walk.at, row));
        Ok(UndecidedPage { commands, next: walk.further(last) })
    }
}

/// The partitions and types of commands, by where they are cancelled: in order.
type Places = BTreeMap<(Partition, CommandId), String>;

/// Commands as the function's parameters.
struct Columns {
    logs: Vec<i16>,
    ids: Vec<Uuid>,
    partitions: Vec<i16>,
    buckets: Vec<i16>,
}

impl Columns {
    fn of(store: &PostgresStore, places: &Places) -> Self {
        let logs: BTreeSet<i16> = places.keys().map(|(partition, _)| partition.0).collect();
        Self {
            logs: logs.into_iter().collect(),
            ids: places.keys().map(|(_, id)| id.0).collect(),
            partitions: places.keys().map(|(partition, _)| partition.0).collect(),
            buckets: places.keys().map(|(_, id)| store.bucket(*id)).collect(),
        }
    }
}

impl PostgresStore {
    async fn places_of(&self, commands: &[CommandId]) -> Result<Places, StoreError> {
        if commands.is_empty() {
            return Ok(Places::new());
        }
        let buckets: Vec<i16> = commands.iter().map(|id| self.bucket(*id)).collect();
        let ids: Vec<Uuid> = commands.iter().map(|id| id.0).collect();
        let client = self.hot().await?;
        let select = pool::prepare(&client, PLACES).await?;
        let rows = client.query(&select, &[&buckets, &ids]).await;
        let rows = rows.map_err(errors::before_commit)?;
        let place = |row: &Row| ((Partition(row.get(1)), CommandId(row.get(0))), row.get(2));
        Ok(rows.iter().map(place).collect())
    }

    async fn page_of(&self, walk: &Walk, limit: i64) -> Result<Vec<Row>, StoreError> {
        let Some(within) = range(walk) else { return Ok(Vec::new()) };
        let (first, last) = (within.start(), within.end());
        match walk.at {
            Whereabouts::Held => {
                let (partition, id): (i16, Uuid) = behind(walk, (first - 1, Uuid::max()))?;
                self.rows_of(HELD, &[first, last, &partition, &id, &limit]).await
            }
            Whereabouts::Waiting => {
                let from = (*first, String::new(), 0);
                let (partition, stream, offset): (i16, String, i64) = behind(walk, from)?;
                let params: [&(dyn ToSql + Sync); 6] =
                    [first, last, &partition, &stream, &offset, &limit];
                self.rows_of(WAITING, &params).await
            }
            Whereabouts::Scheduled => {
                // A command may be due long ago.
                let (partition, due_at, id): (i16, i64, i64) = behind(walk, (*first, 0, 0))?;
                let params: [&(dyn ToSql + Sync); 6] =
                    [first, last, &partition, &due_at, &id, &limit];
                self.rows_of(SCHEDULED, &params).await
            }
            Whereabouts::Logged => {
                let (partition, offset): (i16, i64) = behind(walk, (*first, 0))?;
                let logs = walk.logs.iter().filter(|(log, _)| log.0 >= partition);
                let (partitions, behind): (Vec<i16>, Vec<i64>) = logs
                    .map(|(log, begins)| {
                        let reached = if log.0 == partition { offset } else { 0 };
                        (log.0, begins.0.max(reached))
                    })
                    .unzip();
                self.rows_of(LOGGED, &[&partitions, &behind, &limit]).await
            }
        }
    }

    async fn rows_of(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, sql).await?;
        client.query(&statement, params).await.map_err(errors::before_commit)
    }
}

/// The partitions of a walk: all of them, or one.
fn range(walk: &Walk) -> Option<RangeInclusive<i16>> {
    let partitions = || walk.logs.iter().map(|(partition, _)| partition.0);
    Some(partitions().min()?..=partitions().max()?)
}

/// Where the walk goes on.
fn behind<T: DeserializeOwned>(walk: &Walk, beginning: T) -> Result<T, StoreError> {
    let Some(after) = &walk.after else { return Ok(beginning) };
    serde_json::from_value(after.clone())
        .map_err(|error| StoreError::Corrupt(format!("a walk stands at {after}: {error}")))
}

/// Where the walk is, behind this row.
fn place(at: Whereabouts, row: &Row) -> Value {
    let (partition, id): (i16, Uuid) = (row.get(0), row.get(1));
    let (a, b): (Option<&str>, Option<i64>) = (row.get(5), row.get(6));
    match at {
        Whereabouts::Held => json!([partition, id]),
        Whereabouts::Waiting => json!([partition, a, b]),
        Whereabouts::Scheduled => {
            let due_at = a.and_then(|micros| micros.parse::<i64>().ok()).unwrap_or_default();
            json!([partition, due_at, b])
        }
        Whereabouts::Logged => json!([partition, b]),
    }
}

/// `None`: the command is not kept any more.
fn undecided(row: &Row) -> Result<Option<Undecided>, StoreError> {
    let Some(command_type) = row.get::<_, Option<String>>(2) else { return Ok(None) };
    Ok(Some(Undecided {
        partition: Partition(row.get(0)),
        id: CommandId(row.get(1)),
        command_type,
        stream: columns::stream(row.get(3))?,
        accepted_at: row.get(4),
    }))
}

/// One answer for each of `commands`, of which one may stand there twice.
fn answers(
    commands: &[CommandId],
    places: Places,
    ids: &[Uuid],
    rows: &[Row],
) -> Result<Vec<CancelAnswer>, StoreError> {
    let mut types: BTreeMap<CommandId, String> =
        places.into_iter().map(|((_, id), command_type)| (id, command_type)).collect();
    let results: BTreeMap<CommandId, i16> =
        ids.iter().zip(rows).map(|(id, row)| (CommandId(*id), row.get(0))).collect();
    let answer = |id: &CommandId| {
        Ok(match results.get(id) {
            None | Some(-1) => CancelAnswer::NotFound,
            Some(0) => match types.remove(id) {
                Some(command_type) => CancelAnswer::Cancelled { command_type },
                None => CancelAnswer::AlreadyEnded(OutcomeStatus::Cancelled),
            },
            Some(status) => {
                let unknown =
                    || StoreError::Corrupt(format!("there is no outcome status {status}"));
                CancelAnswer::AlreadyEnded(OutcomeStatus::from_code(*status).ok_or_else(unknown)?)
            }
        })
    };
    commands.iter().map(answer).collect()
}
