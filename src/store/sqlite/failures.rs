//! What is written when something of a batch failed, came back or waits: the rules of
//! `adjutant.commit_commands` and `adjutant.release_waiting` of `migrations/0002_failures.sql`.

use std::collections::BTreeSet;

use rusqlite::{Row, params};

use super::{
    storable,
    transaction::{Transaction, column, id, partition},
};
use crate::{
    message::{Attempt, CommandId, Offset, Partition, StreamId},
    store::{
        CommandCommit, Fence, Hold, HoldState, LetGo, NewDeadLetter, NewFailure, SetAside,
        StoreError, WhenDue,
        stored::{json_text, stream},
    },
};

const SCHEDULE: &str = "
    INSERT INTO schedule (partition, due_at, command_id, reason, attempt, first_offset, edit)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Served by the primary key.
const ENDED: &str = "SELECT 1 FROM outcomes WHERE partition = ?1 AND command_id = ?2";

const FAILED: &str = "
    INSERT INTO attempts (partition, command_id, attempt, error, failed_at, next_due_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Served by dead_letters_of_command.
const RETRIED: &str = "
    UPDATE dead_letters SET state = 3, state_at = ?3
     WHERE command_id = ?2 AND partition = ?1 AND kind = 1 AND state = 2";

const DEAD: &str = "
    INSERT INTO dead_letters (partition, id, kind, group_name, key, type, command_id, \"offset\",
                              error, fingerprint, attempts, died_at, state_at)
    VALUES (?1, ?2, 1, 'commands', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)";

/// Served by the primary key, as all that follow.
const HOLDS: &str = "
    SELECT partition, stream, first_offset, command_id, state, attempt, edit FROM holds
     WHERE partition = ?1 AND stream = ?2 ORDER BY first_offset";

const LET_GO: &str = "
    DELETE FROM holds WHERE partition = ?1 AND stream = ?2 AND first_offset = ?3";

const HOLD: &str = "
    INSERT INTO holds (partition, stream, first_offset, command_id, state, attempt, edit, since)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (partition, stream, first_offset) DO UPDATE
       SET state = excluded.state, attempt = excluded.attempt, edit = excluded.edit";

const HELD: &str = "
    SELECT 1 FROM holds WHERE partition = ?1 AND stream = ?2 AND first_offset < ?3 LIMIT 1";

const FIRST_STATE: &str = "
    SELECT state FROM holds WHERE partition = ?1 AND stream = ?2 ORDER BY first_offset LIMIT 1";

const WAITING: &str = "
    SELECT partition, stream, first_offset, command_id, state, attempt, edit FROM holds
     WHERE partition = ?1 AND stream = ?2 AND state = 2 ORDER BY first_offset";

const RELEASED: &str = "
    UPDATE holds SET state = 3 WHERE partition = ?1 AND stream = ?2 AND state = 2";

/// A row of the schedule.
pub(super) struct Scheduled<'a> {
    partition: Partition,
    /// Microseconds since 1970.
    due_at: i64,
    command: CommandId,
    reason: &'a str,
    attempt: Attempt,
    first_offset: Option<Offset>,
    edit: i32,
}

impl Scheduled<'_> {
    /// A first execution, not before this time.
    pub(super) fn first(
        partition: Partition,
        due_at: i64,
        command: CommandId,
        when_due: WhenDue,
    ) -> Self {
        let (reason, attempt) = (when_due.reason(), Attempt::FIRST);
        Self { partition, due_at, command, reason, attempt, first_offset: None, edit: 0 }
    }
}

impl Transaction<'_> {
    /// Schedules a command to come back.
    pub(super) fn schedule(&self, row: &Scheduled<'_>) -> Result<(), StoreError> {
        let params = params![
            row.partition.0,
            row.due_at,
            row.command.0.as_bytes(),
            storable::text(row.reason)?,
            row.attempt.0,
            row.first_offset.map(|offset| offset.0),
            row.edit,
        ];
        self.execute(SCHEDULE, params)?;
        Ok(())
    }

    pub(super) fn holds_of(
        &self,
        streams: &[(Partition, StreamId)],
    ) -> Result<Vec<Hold>, StoreError> {
        let mut holds = Vec::new();
        for (partition, stream) in streams {
            holds.extend(self.all(HOLDS, params![partition.0, stream.as_str()], hold)?);
        }
        Ok(holds)
    }

    pub(super) fn write_failures(&self, commit: &CommandCommit) -> Result<(), StoreError> {
        for (partition, command) in commit.coming_back() {
            let ended = self.exists(ENDED, params![partition.0, command.0.as_bytes()])?;
            if ended && !planted!(EndedSetAside) {
                return Err(StoreError::Fenced(Fence::Outcome));
            }
        }
        for aside in &commit.set_aside {
            self.set_aside(aside)?;
        }
        for failure in &commit.failures {
            self.write_failure(failure)?;
        }
        for (partition, command) in &commit.retried {
            self.execute(RETRIED, params![partition.0, command.0.as_bytes(), self.now])?;
        }
        for letter in &commit.dead_letters {
            self.write_dead_letter(letter)?;
        }
        for LetGo { partition, stream, first_offset } in &commit.let_go {
            self.execute(LET_GO, params![partition.0, stream.as_str(), first_offset.0])?;
        }
        for hold in &commit.holds {
            self.write_hold(hold)?;
        }
        for hold in commit.holds.iter().filter(|hold| hold.state == HoldState::Waits) {
            let place = params![hold.partition.0, hold.stream.as_str(), hold.first_offset.0];
            if !self.exists(HELD, place)? {
                return Err(StoreError::Fenced(Fence::Holds));
            }
        }
        let streams: BTreeSet<_> =
            commit.let_go.iter().map(|gone| (gone.partition, &gone.stream)).collect();
        for (partition, stream) in streams {
            self.release_waiting(partition, stream)?;
        }
        Ok(())
    }

    fn set_aside(&self, aside: &SetAside) -> Result<(), StoreError> {
        self.schedule(&Scheduled {
            partition: aside.partition,
            due_at: self.in_ms(aside.delay_ms),
            command: aside.command_id,
            reason: aside.reason,
            attempt: aside.attempt,
            first_offset: aside.first_offset,
            edit: aside.edit,
        })
    }

    fn write_failure(&self, failure: &NewFailure) -> Result<(), StoreError> {
        let error = json_text(&failure.error)?;
        let params = params![
            failure.partition.0,
            failure.command_id.0.as_bytes(),
            failure.attempt.0,
            storable::json(&error)?,
            self.now,
            failure.next_due_ms.map(|delay| self.in_ms(delay)),
        ];
        self.execute(FAILED, params)?;
        Ok(())
    }

    fn write_dead_letter(&self, letter: &NewDeadLetter) -> Result<(), StoreError> {
        let error = json_text(&letter.error)?;
        let params = params![
            letter.partition.0,
            letter.id.0.as_bytes(),
            letter.stream.as_str(),
            storable::text(&letter.command_type)?,
            letter.command_id.0.as_bytes(),
            letter.offset.map(|offset| offset.0),
            storable::json(&error)?,
            letter.fingerprint,
            letter.attempts.0,
            self.now,
        ];
        self.execute(DEAD, params)?;
        Ok(())
    }

    fn write_hold(&self, hold: &Hold) -> Result<(), StoreError> {
        let params = params![
            hold.partition.0,
            hold.stream.as_str(),
            hold.first_offset.0,
            hold.command_id.0.as_bytes(),
            hold.state.code(),
            hold.attempt.0,
            hold.edit,
            self.now,
        ];
        self.execute(HOLD, params)?;
        Ok(())
    }

    /// Lets go on what waits for nobody any more: if the stream's first row waits, all its waiting
    /// rows come back through the schedule, in the order of their first offsets. Answers how many.
    pub(super) fn release_waiting(
        &self,
        partition: Partition,
        stream: &StreamId,
    ) -> Result<usize, StoreError> {
        let place = params![partition.0, stream.as_str()];
        let waits = self.number(FIRST_STATE, place)? == i64::from(HoldState::Waits.code());
        if !waits || planted!(WaitingForgotten) {
            return Ok(0);
        }
        let waiting = self.all(WAITING, place, hold)?;
        self.execute(RELEASED, place)?;
        if planted!(ReleasedOvertaken) {
            for hold in &waiting {
                self.execute(LET_GO, params![partition.0, stream.as_str(), hold.first_offset.0])?;
            }
        }
        for hold in &waiting {
            self.schedule(&Scheduled {
                partition,
                due_at: self.now,
                command: hold.command_id,
                reason: "released",
                attempt: hold.attempt,
                first_offset: Some(hold.first_offset),
                edit: hold.edit,
            })?;
        }
        Ok(waiting.len())
    }

    fn in_ms(&self, delay: i64) -> i64 {
        self.now.saturating_add(delay.saturating_mul(1_000))
    }
}

fn hold(row: &Row<'_>) -> Result<Hold, StoreError> {
    let unknown = || StoreError::Corrupt("unknown state of a hold".to_owned());
    Ok(Hold {
        partition: partition(row, 0)?,
        stream: stream(&column::<String>(row, 1)?)?,
        first_offset: Offset(column(row, 2)?),
        command_id: CommandId(id(row, 3)?),
        state: HoldState::from_code(column(row, 4)?).ok_or_else(unknown)?,
        attempt: Attempt(column(row, 5)?),
        edit: column(row, 6)?,
    })
}
