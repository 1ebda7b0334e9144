//! Recurring commands: one table, and compare-and-set in every change.

use async_trait::async_trait;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    PostgresStore,
    columns::{Jsonb, lane, lane_code, metadata, metadata_json, stream},
    errors, pool,
};
use crate::{
    message::{CommandId, RawJson, Timestamp, Version},
    store::{
        CommandTemplate, DecidedRuns, DueRecurring, MissedRuns, NextDue, Page, Recurring,
        RecurringCommand, RecurringName, RecurringState, RecurringTerms, SettledRuns, StoreError,
        Turn,
    },
};

macro_rules! columns {
    () => {
        "r.name, r.created_at, r.turn, r.state, r.cron, r.time_zone, r.missed_runs, r.type, r.stream,
         r.lane, r.payload::text, r.metadata::text, r.expected_version, r.revision, r.next_due_at,
         r.owed, r.runs, r.missed, r.last_due_at, r.last_command_id, r.created_by, r.changed_at,
         r.changed_by"
    };
}

/// Served by recurring_pkey.
const ONE: &str = concat!("SELECT ", columns!(), " FROM adjutant.recurring r WHERE r.name = $1");

/// Served by recurring_pkey.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM adjutant.recurring r WHERE r.name > $1 ORDER BY r.name LIMIT $2"
);

const MAKE: &str = concat!(
    "INSERT INTO adjutant.recurring AS r
         (name, state, cron, time_zone, missed_runs, type, stream, lane, payload, metadata,
          expected_version, next_due_at, revision, turn, created_at, created_by, changed_at,
          changed_by)
     SELECT $1::text, $2::smallint, $3::text, $4::text, $5::smallint, $6::text, $7::text,
            $8::smallint, $9::jsonb, $10::jsonb, $11::bigint, $12::timestamptz, 1, 1, clock.now,
            $13::text, clock.now, $13::text
       FROM (SELECT clock_timestamp() AS now) AS clock
     ON CONFLICT (name) DO NOTHING RETURNING ",
    columns!()
);

/// Compare-and-set. Served by recurring_pkey.
const CHANGE: &str = concat!(
    "UPDATE adjutant.recurring r
        SET state = $2, cron = $3, time_zone = $4, missed_runs = $5, type = $6, stream = $7,
            lane = $8, payload = $9, metadata = $10, expected_version = $11,
            next_due_at = CASE WHEN $14::boolean THEN r.next_due_at ELSE $12::timestamptz END,
            owed = CASE $2::smallint WHEN 1 THEN r.owed ELSE '{}' END,
            revision = r.revision + 1, turn = r.turn + 1,
            changed_at = clock_timestamp(), changed_by = $13
      WHERE r.name = $1 AND r.revision = $15 RETURNING ",
    columns!()
);

/// Served by recurring_pkey.
const REMOVE: &str = concat!(
    "DELETE FROM adjutant.recurring r
      WHERE r.name = $1 AND ($2::bigint IS NULL OR r.revision = $2) RETURNING ",
    columns!()
);

/// The time of the statement, which an index can be searched by. Served by recurring_due.
const LOOK: &str = "
    SELECT statement_timestamp(),
           EXISTS (SELECT 1 FROM adjutant.recurring r
                    WHERE r.state = 1 AND r.wake_at <= statement_timestamp()),
           (SELECT r.wake_at FROM adjutant.recurring r
             WHERE r.state = 1 AND r.wake_at > statement_timestamp()
             ORDER BY r.wake_at LIMIT 1)";

/// Served by recurring_due.
const DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM adjutant.recurring r
      WHERE r.state = 1 AND r.wake_at <= $1 AND r.name <> ALL($2::text[])
      ORDER BY r.wake_at, r.name LIMIT $3"
);

/// Sorted by name by the caller. Served by recurring_pkey.
const DECIDE: &str = "
    UPDATE adjutant.recurring r
       SET owed = d.owed::timestamptz[], missed = r.missed + d.missed, next_due_at = d.next_due_at,
           turn = r.turn + 1
      FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::text[], $5::bigint[],
                  $6::timestamptz[]) AS d(name, created_at, turn, owed, missed, next_due_at)
     WHERE r.name = d.name AND r.created_at = d.created_at AND r.turn = d.turn AND r.state = 1
    RETURNING r.name";

/// Sorted by name by the caller. Served by recurring_pkey.
const SETTLE: &str = "
    UPDATE adjutant.recurring r
       SET owed = '{}', runs = r.runs + s.runs, missed = r.missed + s.missed,
           last_due_at = COALESCE(s.last_due_at, r.last_due_at),
           last_command_id = COALESCE(s.last_command_id, r.last_command_id),
           turn = r.turn + 1
      FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::bigint[],
                  $6::timestamptz[], $7::uuid[])
           AS s(name, created_at, turn, runs, missed, last_due_at, last_command_id)
     WHERE r.name = s.name AND r.created_at = s.created_at AND r.turn = s.turn
    RETURNING r.name";

#[async_trait]
impl Recurring for PostgresStore {
    async fn recurring(
        &self,
        name: &RecurringName,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        self.recurring_rows(ONE, &[&name.as_str()]).await?.first().map(read).transpose()
    }

    async fn all_recurring(
        &self,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<RecurringCommand>, StoreError> {
        let rows = self.recurring_rows(LIST, &[&after.unwrap_or_default(), &limit]).await?;
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let last = items.last().filter(|_| items.len() as i64 == limit);
        Ok(Page { next: last.map(|last| last.name().to_string()), items })
    }

    async fn put_recurring(
        &self,
        name: &RecurringName,
        terms: &RecurringTerms,
        next_due: NextDue,
        revision: Option<i64>,
        by: &str,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let command = &terms.command;
        let metadata = metadata_json(&command.metadata)?;
        let (keeps, next_due_at) = match next_due {
            NextDue::Keep => (true, None),
            NextDue::At(time) => (false, time),
        };
        let (name, state) = (name.as_str(), terms.state.code());
        let (missed_runs, lane) = (terms.missed_runs.code(), lane_code(command.lane));
        let (stream, payload) = (command.stream.as_str(), Jsonb(command.payload.as_str()));
        let metadata = metadata.as_deref().map(Jsonb);
        let expected_version = command.expected_version.map(|version| version.0);
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![
            &name,
            &state,
            &terms.cron,
            &terms.time_zone,
            &missed_runs,
            &command.command_type,
            &stream,
            &lane,
            &payload,
            &metadata,
            &expected_version,
            &next_due_at,
            &by,
        ];
        let rows = match &revision {
            None => self.recurring_rows(MAKE, &params).await?,
            Some(revision) => {
                params.push(&keeps);
                params.push(revision);
                self.recurring_rows(CHANGE, &params).await?
            }
        };
        rows.first().map(read).transpose()
    }

    async fn remove_recurring(
        &self,
        name: &RecurringName,
        revision: Option<i64>,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let rows = self.recurring_rows(REMOVE, &[&name.as_str(), &revision]).await?;
        rows.first().map(read).transpose()
    }

    async fn due_recurring(
        &self,
        passed_over: &[RecurringName],
        limit: i64,
    ) -> Result<DueRecurring, StoreError> {
        let client = self.hot().await?;
        let look = pool::prepare(&client, LOOK).await?;
        let looked = client.query_one(&look, &[]).await.map_err(errors::before_commit)?;
        let (now, next) = (looked.get(0), looked.get(2));
        let mut found = DueRecurring { now, due: Vec::new(), next };
        if looked.get(1) {
            let due = pool::prepare(&client, DUE).await?;
            let passed_over: Vec<_> = passed_over.iter().map(RecurringName::as_str).collect();
            let rows = client.query(&due, &[&now, &passed_over, &limit]).await;
            let rows = rows.map_err(errors::before_commit)?;
            found.due = rows.iter().map(read).collect::<Result<_, _>>()?;
        }
        Ok(found)
    }

    async fn decide_runs(&self, decided: &[DecidedRuns]) -> Result<Vec<bool>, StoreError> {
        let mut sorted: Vec<&DecidedRuns> = decided.iter().collect();
        sorted.sort_unstable_by_key(|it| &it.turn.name);
        let owed: Vec<_> = sorted.iter().map(|it| times(&it.owed)).collect::<Result<_, _>>()?;
        let rows = self
            .recurring_rows(
                DECIDE,
                &[
                    &sorted.iter().map(|it| it.turn.name.as_str()).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.turn.created_at).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.turn.turn).collect::<Vec<_>>(),
                    &owed,
                    &sorted.iter().map(|it| it.missed).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.next_due_at).collect::<Vec<_>>(),
                ],
            )
            .await?;
        Ok(who_was_first(decided.iter().map(|it| &it.turn), &rows))
    }

    async fn settle_runs(&self, settled: &[SettledRuns]) -> Result<Vec<bool>, StoreError> {
        let mut sorted: Vec<&SettledRuns> = settled.iter().collect();
        sorted.sort_unstable_by_key(|it| &it.turn.name);
        let rows = self
            .recurring_rows(
                SETTLE,
                &[
                    &sorted.iter().map(|it| it.turn.name.as_str()).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.turn.created_at).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.turn.turn).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.runs).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.missed).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.last.map(|(due_at, _)| due_at)).collect::<Vec<_>>(),
                    &sorted.iter().map(|it| it.last.map(|(_, id)| id.0)).collect::<Vec<_>>(),
                ],
            )
            .await?;
        Ok(who_was_first(settled.iter().map(|it| &it.turn), &rows))
    }
}

impl PostgresStore {
    /// A statement of its own transaction.
    async fn recurring_rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, sql).await?;
        client.query(&statement, params).await.map_err(errors::after_commit)
    }
}

/// Times as the text of an array: several arrays of different lengths go in one parameter.
fn times(times: &[Timestamp]) -> Result<String, StoreError> {
    let text = |time: &Timestamp| {
        time.format(&Rfc3339).map_err(|error| StoreError::Unstorable(error.to_string()))
    };
    let texts: Vec<_> = times.iter().map(text).collect::<Result<_, _>>()?;
    Ok(format!("{{{}}}", texts.join(",")))
}

fn who_was_first<'a>(turns: impl Iterator<Item = &'a Turn>, written: &[Row]) -> Vec<bool> {
    let names: Vec<&str> = written.iter().map(|row| row.get(0)).collect();
    turns.map(|turn| names.contains(&turn.name.as_str())).collect()
}

fn read(row: &Row) -> Result<RecurringCommand, StoreError> {
    let unknown = |what: &str, code: i16| StoreError::Corrupt(format!("there is no {what} {code}"));
    let (state, missed_runs): (i16, i16) = (row.get(3), row.get(6));
    let name: &str = row.get(0);
    let name = name.parse().map_err(|_| StoreError::Corrupt(format!("recurring.name `{name}`")))?;
    let command = CommandTemplate {
        command_type: row.get(7),
        stream: stream(row.get(8))?,
        lane: lane(row.get(9))?,
        payload: RawJson::from_trusted(row.get(10)),
        metadata: metadata(row.get(11))?,
        expected_version: row.get::<_, Option<i64>>(12).map(Version),
    };
    Ok(RecurringCommand {
        turn: Turn { name, created_at: row.get(1), turn: row.get(2) },
        terms: RecurringTerms {
            state: RecurringState::from_code(state)
                .ok_or_else(|| unknown("state of a recurring command", state))?,
            cron: row.get(4),
            time_zone: row.get(5),
            missed_runs: MissedRuns::from_code(missed_runs)
                .ok_or_else(|| unknown("policy for missed runs", missed_runs))?,
            command,
        },
        revision: row.get(13),
        next_due_at: row.get(14),
        owed: row.get(15),
        runs: row.get(16),
        missed: row.get(17),
        last_due_at: row.get(18),
        last_command_id: row.get::<_, Option<Uuid>>(19).map(CommandId),
        created_by: row.get(20),
        changed_at: row.get(21),
        changed_by: row.get(22),
    })
}
