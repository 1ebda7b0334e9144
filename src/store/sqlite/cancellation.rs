//! Cancelling: the rules of `adjutant.cancel_commands` of `migrations/0009_cancellation.sql`. And the
//! walk over what has not ended.

use async_trait::async_trait;
use rusqlite::{Params, Row, params};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    SqliteStore, reply, storable,
    transaction::{Transaction, column, id, numbers, partition, time},
};
use crate::{
    message::{CommandId, OutcomeStatus, Partition, StreamId},
    store::{
        CancelAnswer, CancelStep, Cancellation, CancelledBy, Fence, NewOutcome, OwedCallback,
        StoreError, Undecided, UndecidedPage, Walk, Whereabouts,
        cancellation::check_size,
        stored::{json_text, reply_to, stream},
    },
};

/// Served by the primary keys.
const COMMAND: &str = "
    SELECT c.partition, c.type, c.stream, c.reply_to, o.status, c.callback_url
      FROM commands c LEFT JOIN outcomes o ON o.partition = c.partition AND o.command_id = c.id
     WHERE c.id = ?1";

/// Served by the primary key, read backwards.
const LAST_ATTEMPT: &str =
    "SELECT max(attempt) FROM attempts WHERE partition = ?1 AND command_id = ?2";

const OUTCOME: &str = "
    INSERT INTO outcomes (partition, command_id, status, events, version, error, attempts,
                          completed_at)
    VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7)";

/// Served by schedule_of_command.
const UNSCHEDULE: &str = "DELETE FROM schedule WHERE command_id = ?1";
/// Served by holds_of_command.
const UNHOLD: &str = "DELETE FROM holds WHERE partition = ?1 AND command_id = ?2";
/// Served by the unique key.
const TAKE: &str = "DELETE FROM immediate WHERE command_id = ?1";

/// A dead letter that was being retried is dealt with. Served by dead_letters_unended_of_command.
const RESOLVE: &str = "
    UPDATE dead_letters SET state = 3, state_at = ?3
     WHERE partition = ?1 AND command_id = ?2 AND kind = 1 AND state = 2";

const AUDIT: &str = "
    INSERT INTO cancellations (at, partition, command_id, who, reason, job_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Served by the primary key.
const STEP: &str = "
    UPDATE dead_letter_jobs
       SET done = done + ?3, failed = failed + ?4,
           -- Not all were counted when it was made.
           total = max(total, done + failed + ?3 + ?4), walk = ?5, heartbeat_at = ?6
     WHERE id = ?1 AND owner = ?2 AND state = 1";

/// A page, with what a filter asks for. Served by the primary key, as those that follow.
const HELD: &str = "
    SELECT p.partition, p.command_id, c.type, c.stream, c.accepted_at, p.id
      FROM (SELECT * FROM immediate
             WHERE id > ?2 AND partition IN (SELECT value FROM json_each(?1))
             ORDER BY id LIMIT ?3) AS p
      LEFT JOIN commands c ON c.id = p.command_id ORDER BY p.id";

/// Rows of other states are in the schedule or in the log, or dead.
const WAITING: &str = "
    SELECT p.partition, p.command_id, c.type, c.stream, c.accepted_at, p.stream, p.first_offset
      FROM (SELECT * FROM holds
             WHERE state = 2 AND partition IN (SELECT value FROM json_each(?1))
               AND (partition, stream, first_offset) > (?2, ?3, ?4)
             ORDER BY partition, stream, first_offset LIMIT ?5) AS p
      LEFT JOIN commands c ON c.id = p.command_id
     ORDER BY p.partition, p.stream, p.first_offset";

/// Ids are given in the order of time, and never again.
const SCHEDULED: &str = "
    SELECT p.partition, p.command_id, c.type, c.stream, c.accepted_at, p.id
      FROM (SELECT * FROM schedule
             WHERE id > ?2 AND partition IN (SELECT value FROM json_each(?1))
             ORDER BY id LIMIT ?3) AS p
      LEFT JOIN commands c ON c.id = p.command_id ORDER BY p.id";

const LOGGED: &str = "
    SELECT p.partition, p.command_id, c.type, c.stream, c.accepted_at, p.\"offset\"
      FROM (SELECT l.partition, l.command_id, l.\"offset\"
              FROM json_each(?1) AS n
              JOIN command_log l ON l.partition = json_extract(n.value, '$[0]')
                                AND l.\"offset\" > json_extract(n.value, '$[1]')
             ORDER BY l.partition, l.\"offset\" LIMIT ?2) AS p
      LEFT JOIN commands c ON c.id = p.command_id ORDER BY p.partition, p.\"offset\"";

#[async_trait]
impl Cancellation for SqliteStore {
    async fn cancel_commands(
        &self,
        commands: &[CommandId],
        by: &CancelledBy,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        check_size(commands.len())?;
        let (commands, by) = (commands.to_vec(), by.clone());
        self.engine.write(move |it| it.cancel_commands(&commands, &by)).await
    }

    async fn undecided(&self, walk: &Walk, limit: i64) -> Result<UndecidedPage, StoreError> {
        let walk = walk.clone();
        self.engine.read(move |it| it.undecided(&walk, limit)).await
    }
}

/// A command that is to be cancelled.
struct Found {
    partition: Partition,
    command_type: String,
    stream: StreamId,
    reply_to: Option<String>,
    status: Option<i16>,
    callback_url: Option<String>,
}

impl Transaction<'_> {
    fn cancel_commands(
        &self,
        commands: &[CommandId],
        by: &CancelledBy,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(self.cancel(*command, by)?);
        }
        if let Some(step) = &by.job {
            self.step_of_walk(step, &answers)?;
        }
        Ok(answers)
    }

    fn cancel(&self, command: CommandId, by: &CancelledBy) -> Result<CancelAnswer, StoreError> {
        let Some(found) = self.first(COMMAND, [command.0.as_bytes()], found)? else {
            return Ok(CancelAnswer::NotFound);
        };
        if let Some(status) = found.status {
            let unknown = || StoreError::Corrupt(format!("there is no outcome status {status}"));
            let status = OutcomeStatus::from_code(status).ok_or_else(unknown)?;
            return Ok(CancelAnswer::AlreadyEnded(status));
        }
        let (partition, id) = (found.partition.0, command.0.as_bytes());
        if !planted!(CancelledRunsAnyway) {
            self.write_cancelled(command, &found, by)?;
        }
        self.execute(UNSCHEDULE, [id])?;
        self.execute(TAKE, [id])?;
        self.execute(RESOLVE, params![partition, id, self.now])?;
        if !planted!(CancelLeavesHold) && self.execute(UNHOLD, params![partition, id])? > 0 {
            self.release_waiting(found.partition, &found.stream)?;
        }
        let (who, reason) = (storable::text(&by.who)?, storable::maybe_text(by.reason.as_deref())?);
        let job = by.job.as_ref().map(|step| step.id.0.into_bytes());
        self.execute(AUDIT, params![self.now, partition, id, who, reason, job])?;
        Ok(CancelAnswer::Cancelled { command_type: found.command_type })
    }

    /// Its outcome, and who is told of it.
    fn write_cancelled(
        &self,
        command: CommandId,
        found: &Found,
        by: &CancelledBy,
    ) -> Result<(), StoreError> {
        let (partition, id) = (found.partition, command.0.as_bytes());
        let last = |row: &Row<'_>| column::<Option<i32>>(row, 0);
        let attempts = self.first(LAST_ATTEMPT, params![partition.0, id], last)?;
        let outcome = NewOutcome {
            command_id: command,
            partition,
            log_offset: None,
            status: OutcomeStatus::Cancelled,
            decided_on: None,
            events: 0,
            version: self.stream_version(partition, &found.stream)?,
            reply: None,
            error: Some(by.failure()),
            attempts: attempts.flatten().unwrap_or_default(),
            reply_to: reply_to(found.reply_to.as_deref())?,
            callback: found.callback_url.as_ref().map(|url| OwedCallback {
                url: url.clone(),
                command_type: found.command_type.clone(),
            }),
        };
        let error = outcome.error.as_ref().map(json_text).transpose()?;
        self.execute(
            OUTCOME,
            params![
                partition.0,
                id,
                outcome.status.code(),
                outcome.version.0,
                storable::maybe_json(error.as_deref())?,
                outcome.attempts,
                self.now,
            ],
        )?;
        if let Some(callback) = &outcome.callback {
            self.owe_callback(&outcome, callback)?;
        }
        match &outcome.reply_to {
            Some(to) => reply::write(self, &outcome, None, to),
            None => Ok(()),
        }
    }

    /// Moves the job, or fences what was done.
    fn step_of_walk(&self, step: &CancelStep, answers: &[CancelAnswer]) -> Result<(), StoreError> {
        let is_done = |it: &&CancelAnswer| matches!(it, CancelAnswer::Cancelled { .. });
        let done = answers.iter().filter(is_done).count();
        let moved = self.execute(
            STEP,
            params![
                step.id.0.as_bytes(),
                step.owner.0.as_bytes(),
                done as i64,
                (answers.len() - done) as i64,
                json_text(&step.walk)?,
                self.now,
            ],
        )?;
        if moved == 0 { Err(StoreError::Fenced(Fence::Job)) } else { Ok(()) }
    }

    fn undecided(&self, walk: &Walk, limit: i64) -> Result<UndecidedPage, StoreError> {
        let partitions = numbers(walk.logs.iter().map(|(partition, _)| i64::from(partition.0)));
        let rows = match walk.at {
            Whereabouts::Held | Whereabouts::Scheduled => {
                let sql = if walk.at == Whereabouts::Held { HELD } else { SCHEDULED };
                let after: i64 = behind(walk, 0)?;
                self.page_of(sql, params![partitions, after, limit], |row| {
                    Ok(json!(column::<i64>(row, 5)?))
                })?
            }
            Whereabouts::Waiting => {
                let (partition, stream, offset): (i16, String, i64) =
                    behind(walk, (0, String::new(), 0))?;
                let params = params![partitions, partition, stream, offset, limit];
                self.page_of(WAITING, params, |row| {
                    let (stream, offset): (String, i64) = (column(row, 5)?, column(row, 6)?);
                    Ok(json!([column::<i16>(row, 0)?, stream, offset]))
                })?
            }
            Whereabouts::Logged => {
                let (partition, offset): (i16, i64) = behind(walk, (0, 0))?;
                let logs = walk.logs.iter().filter(|(log, _)| log.0 >= partition);
                let logs = logs.map(|(log, begins)| {
                    let reached = if log.0 == partition { offset } else { 0 };
                    json!([log.0, begins.0.max(reached)])
                });
                let logs = Value::Array(logs.collect()).to_string();
                self.page_of(LOGGED, params![logs, limit], |row| {
                    Ok(json!([column::<i16>(row, 0)?, column::<i64>(row, 5)?]))
                })?
            }
        };
        let last = rows.last().filter(|_| rows.len() as i64 == limit);
        let next = walk.further(last.map(|(place, _)| place.clone()));
        Ok(UndecidedPage { commands: rows.into_iter().filter_map(|(_, it)| it).collect(), next })
    }

    /// Each row's place, and its command if that is still kept.
    fn page_of(
        &self,
        sql: &str,
        params: impl Params,
        place: impl Fn(&Row<'_>) -> Result<Value, StoreError>,
    ) -> Result<Vec<(Value, Option<Undecided>)>, StoreError> {
        self.all(sql, params, |row| Ok((place(row)?, undecided(row)?)))
    }
}

fn found(row: &Row<'_>) -> Result<Found, StoreError> {
    Ok(Found {
        partition: partition(row, 0)?,
        command_type: column(row, 1)?,
        stream: stream(&column::<String>(row, 2)?)?,
        reply_to: column(row, 3)?,
        status: column(row, 4)?,
        callback_url: column(row, 5)?,
    })
}

fn undecided(row: &Row<'_>) -> Result<Option<Undecided>, StoreError> {
    let Some(command_type) = column::<Option<String>>(row, 2)? else { return Ok(None) };
    Ok(Some(Undecided {
        partition: partition(row, 0)?,
        id: CommandId(id(row, 1)?),
        command_type,
        stream: stream(&column::<String>(row, 3)?)?,
        accepted_at: time(row, 4)?,
    }))
}

/// Where the walk goes on.
fn behind<T: DeserializeOwned>(walk: &Walk, beginning: T) -> Result<T, StoreError> {
    let Some(after) = &walk.after else { return Ok(beginning) };
    serde_json::from_value(after.clone())
        .map_err(|error| StoreError::Corrupt(format!("a walk stands at {after}: {error}")))
}
