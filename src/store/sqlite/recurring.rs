//! Recurring commands. There is a single writer: what is compared is what is changed.

use async_trait::async_trait;
use rusqlite::{Row, params};
use uuid::Uuid;

use super::{
    SqliteStore,
    clock::{from_micros, to_micros},
    storable,
    transaction::{Transaction, column, maybe_time, numbers, time},
};
use crate::{
    message::{CommandId, RawJson, Timestamp, Version},
    store::{
        CommandTemplate, DecidedRuns, DueRecurring, MissedRuns, NextDue, Page, Recurring,
        RecurringCommand, RecurringName, RecurringState, RecurringTerms, SettledRuns, StoreError,
        Turn,
        stored::{json_text, lane, lane_code, metadata, metadata_json, parse, stream},
    },
};

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT name, created_at, turn, state, cron, time_zone, missed_runs, type, stream, lane,
                    payload, metadata, expected_version, revision, next_due_at, owed, runs, missed,
                    last_due_at, last_command_id, created_by, changed_at, changed_by
               FROM recurring ",
            $rest
        )
    };
}

/// Served by the primary key.
const ONE: &str = select!("WHERE name = ?1");
/// Served by the primary key.
const LIST: &str = select!("WHERE name > ?1 ORDER BY name LIMIT ?2");
/// Served by recurring_due.
const DUE: &str = select!(
    "WHERE state = 1 AND wake_at <= ?1 AND name NOT IN (SELECT value FROM json_each(?2))
     ORDER BY wake_at, name LIMIT ?3"
);
/// Served by recurring_due.
const NEXT: &str =
    "SELECT wake_at FROM recurring WHERE state = 1 AND wake_at > ?1 ORDER BY wake_at LIMIT 1";

const MAKE: &str = "
    INSERT INTO recurring (name, state, cron, time_zone, missed_runs, type, stream, lane, payload,
                           metadata, expected_version, next_due_at, revision, turn, created_at,
                           created_by, changed_at, changed_by)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 1, 1, ?13, ?14, ?13, ?14)
    ON CONFLICT (name) DO NOTHING";

/// Served by the primary key.
const CHANGE: &str = "
    UPDATE recurring
       SET state = ?2, cron = ?3, time_zone = ?4, missed_runs = ?5, type = ?6, stream = ?7,
           lane = ?8, payload = ?9, metadata = ?10, expected_version = ?11,
           next_due_at = CASE WHEN ?15 THEN next_due_at ELSE ?12 END,
           owed = CASE ?2 WHEN 1 THEN owed ELSE '[]' END,
           revision = revision + 1, turn = turn + 1, changed_at = ?13, changed_by = ?14
     WHERE name = ?1 AND revision = ?16";

/// Served by the primary key.
const REMOVE: &str = "DELETE FROM recurring WHERE name = ?1";

/// Served by the primary key.
const DECIDE: &str = "
    UPDATE recurring
       SET owed = ?4, missed = missed + ?5, next_due_at = ?6, turn = turn + 1
     WHERE name = ?1 AND created_at = ?2 AND turn = ?3 AND state = 1";

/// Served by the primary key.
const SETTLE: &str = "
    UPDATE recurring
       SET owed = '[]', runs = runs + ?4, missed = missed + ?5,
           last_due_at = COALESCE(?6, last_due_at),
           last_command_id = COALESCE(?7, last_command_id), turn = turn + 1
     WHERE name = ?1 AND created_at = ?2 AND turn = ?3";

#[async_trait]
impl Recurring for SqliteStore {
    async fn recurring(
        &self,
        name: &RecurringName,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let name = name.clone();
        self.engine.read(move |it| it.recurring(&name)).await
    }

    async fn all_recurring(
        &self,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<RecurringCommand>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        let page = self.engine.read(move |it| {
            let items = it.all(LIST, params![after, limit], read)?;
            let last = items.last().filter(|_| items.len() as i64 == limit);
            Ok(Page { next: last.map(|last| last.name().to_string()), items })
        });
        page.await
    }

    async fn put_recurring(
        &self,
        name: &RecurringName,
        terms: &RecurringTerms,
        next_due: NextDue,
        revision: Option<i64>,
        by: &str,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let (name, terms, by) = (name.clone(), terms.clone(), by.to_owned());
        let put = move |it: &Transaction<'_>| {
            let written = it.put_recurring(&name, &terms, next_due, revision, &by)?;
            if written { it.recurring(&name) } else { Ok(None) }
        };
        self.engine.write(put).await
    }

    async fn remove_recurring(
        &self,
        name: &RecurringName,
        revision: Option<i64>,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let name = name.clone();
        let remove = move |it: &Transaction<'_>| {
            let found = it.recurring(&name)?;
            let found = found.filter(|it| revision.is_none_or(|seen| seen == it.revision));
            if found.is_some() {
                it.execute(REMOVE, [name.as_str()])?;
            }
            Ok(found)
        };
        self.engine.write(remove).await
    }

    async fn due_recurring(
        &self,
        passed_over: &[RecurringName],
        limit: i64,
    ) -> Result<DueRecurring, StoreError> {
        let passed_over: Vec<_> = passed_over.iter().map(RecurringName::as_str).collect();
        let passed_over = json_text(&passed_over)?;
        let look = move |it: &Transaction<'_>| {
            Ok(DueRecurring {
                now: it.time()?,
                due: it.all(DUE, params![it.now, passed_over, limit], read)?,
                next: it.first(NEXT, [it.now], |row| time(row, 0))?,
            })
        };
        self.engine.read(look).await
    }

    async fn decide_runs(&self, decided: &[DecidedRuns]) -> Result<Vec<bool>, StoreError> {
        let decided = decided.to_vec();
        let decide = move |it: &Transaction<'_>| {
            let first = decided.iter().map(|decided| {
                let Turn { name, created_at, turn } = &decided.turn;
                let changed = it.execute(
                    DECIDE,
                    params![
                        name.as_str(),
                        to_micros(*created_at),
                        turn,
                        numbers(decided.owed.iter().map(|due_at| to_micros(*due_at))),
                        decided.missed,
                        decided.next_due_at.map(to_micros),
                    ],
                )?;
                Ok(changed == 1)
            });
            first.collect()
        };
        self.engine.write(decide).await
    }

    async fn settle_runs(&self, settled: &[SettledRuns]) -> Result<Vec<bool>, StoreError> {
        let settled = settled.to_vec();
        let settle = move |it: &Transaction<'_>| {
            let first = settled.iter().map(|settled| {
                let Turn { name, created_at, turn } = &settled.turn;
                let changed = it.execute(
                    SETTLE,
                    params![
                        name.as_str(),
                        to_micros(*created_at),
                        turn,
                        settled.runs,
                        settled.missed,
                        settled.last.map(|(due_at, _)| to_micros(due_at)),
                        settled.last.map(|(_, id)| id.0.into_bytes()),
                    ],
                )?;
                Ok(changed == 1)
            });
            first.collect()
        };
        self.engine.write(settle).await
    }
}

impl Transaction<'_> {
    fn recurring(&self, name: &RecurringName) -> Result<Option<RecurringCommand>, StoreError> {
        self.first(ONE, [name.as_str()], read)
    }

    /// Whether what the caller has seen is what is there.
    fn put_recurring(
        &self,
        name: &RecurringName,
        terms: &RecurringTerms,
        next_due: NextDue,
        revision: Option<i64>,
        by: &str,
    ) -> Result<bool, StoreError> {
        let (keeps, next_due_at) = match next_due {
            NextDue::Keep => (true, None),
            NextDue::At(time) => (false, time.map(to_micros)),
        };
        let command = &terms.command;
        let metadata = metadata_json(&command.metadata)?;
        let written = match revision {
            None => self.execute(
                MAKE,
                params![
                    name.as_str(),
                    terms.state.code(),
                    storable::text(&terms.cron)?,
                    storable::text(&terms.time_zone)?,
                    terms.missed_runs.code(),
                    storable::text(&command.command_type)?,
                    command.stream.as_str(),
                    lane_code(command.lane),
                    storable::json(command.payload.as_str())?,
                    storable::maybe_json(metadata.as_deref())?,
                    command.expected_version.map(|version| version.0),
                    next_due_at,
                    self.now,
                    storable::text(by)?,
                ],
            )?,
            Some(revision) => self.execute(
                CHANGE,
                params![
                    name.as_str(),
                    terms.state.code(),
                    storable::text(&terms.cron)?,
                    storable::text(&terms.time_zone)?,
                    terms.missed_runs.code(),
                    storable::text(&command.command_type)?,
                    command.stream.as_str(),
                    lane_code(command.lane),
                    storable::json(command.payload.as_str())?,
                    storable::maybe_json(metadata.as_deref())?,
                    command.expected_version.map(|version| version.0),
                    next_due_at,
                    self.now,
                    storable::text(by)?,
                    keeps,
                    revision,
                ],
            )?,
        };
        Ok(written == 1)
    }
}

fn read(row: &Row<'_>) -> Result<RecurringCommand, StoreError> {
    let unknown = |what: &str, code: i16| StoreError::Corrupt(format!("there is no {what} {code}"));
    let (state, missed_runs) = (column::<i16>(row, 3)?, column::<i16>(row, 6)?);
    let name: String = column(row, 0)?;
    let name = name.parse().map_err(|_| StoreError::Corrupt(format!("recurring.name `{name}`")))?;
    let command = CommandTemplate {
        command_type: column(row, 7)?,
        stream: stream(&column::<String>(row, 8)?)?,
        lane: lane(column(row, 9)?)?,
        payload: RawJson::from_trusted(column(row, 10)?),
        metadata: metadata(column::<Option<String>>(row, 11)?.as_deref())?,
        expected_version: column::<Option<i64>>(row, 12)?.map(Version),
    };
    let owed: Vec<i64> = parse(&column::<String>(row, 15)?)?;
    let last_command_id = column::<Option<[u8; 16]>>(row, 19)?;
    Ok(RecurringCommand {
        turn: Turn { name, created_at: time(row, 1)?, turn: column(row, 2)? },
        terms: RecurringTerms {
            state: RecurringState::from_code(state)
                .ok_or_else(|| unknown("state of a recurring command", state))?,
            cron: column(row, 4)?,
            time_zone: column(row, 5)?,
            missed_runs: MissedRuns::from_code(missed_runs)
                .ok_or_else(|| unknown("policy for missed runs", missed_runs))?,
            command,
        },
        revision: column(row, 13)?,
        next_due_at: maybe_time(row, 14)?,
        owed: owed.into_iter().map(from_micros).collect::<Result<Vec<Timestamp>, _>>()?,
        runs: column(row, 16)?,
        missed: column(row, 17)?,
        last_due_at: maybe_time(row, 18)?,
        last_command_id: last_command_id.map(|id| CommandId(Uuid::from_bytes(id))),
        created_by: column(row, 20)?,
        changed_at: time(row, 21)?,
        changed_by: column(row, 22)?,
    })
}
