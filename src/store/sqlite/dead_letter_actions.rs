//! Retrying and discarding: compare-and-set on the letter's state, all of a call in one transaction.

use rusqlite::params;

use super::{
    storable,
    transaction::{Transaction, column},
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::{CommandId, OutcomeStatus, Partition},
    store::{
        Acted, ActedBy, DeadLetter, Fence, JobStep, RetryRequest, StoreError,
        stored::{json_text, stream},
    },
};

/// Served by the primary key.
const SET_STATE: &str =
    "UPDATE dead_letters SET state = ?2, state_at = ?3 WHERE id = ?1 AND state = 1";

/// Served by the primary key. A process of an older release counted every execution as the first
/// attempt: no two past outcomes of a command may claim one number.
const TO_HISTORY: &str = "
    INSERT INTO past_outcomes (partition, command_id, attempts, version, error, completed_at,
                               taken_back_at)
    SELECT o.partition, o.command_id,
           max(o.attempts, COALESCE((SELECT max(p.attempts) + 1 FROM past_outcomes p
                                      WHERE p.partition = o.partition
                                        AND p.command_id = o.command_id), 0)),
           o.version, o.error, o.completed_at, ?3
      FROM outcomes o WHERE o.partition = ?1 AND o.command_id = ?2 AND o.status = 3";

/// Served by the primary key.
const TAKE_BACK: &str =
    "DELETE FROM outcomes WHERE partition = ?1 AND command_id = ?2 AND status = 3";

const EDIT: &str = "
    INSERT INTO command_edits (command_id, edit, payload, edited_at, edited_by)
    VALUES (?1, ?2, ?3, ?4, ?5)";

/// Served by the primary key.
const LAST_ATTEMPT: &str =
    "SELECT max(attempt) FROM attempts WHERE partition = ?1 AND command_id = ?2";

/// Served by holds_of_command, and the primary key of the log.
const FIRST_OFFSET: &str = "
    SELECT COALESCE(
        (SELECT h.first_offset FROM holds h WHERE h.partition = ?1 AND h.command_id = ?2),
        (SELECT COALESCE(l.first_offset, l.\"offset\") FROM command_log l
          WHERE l.partition = ?1 AND l.\"offset\" = ?3 AND l.command_id = ?2))";

/// It keeps its place: later strict commands of the stream go on waiting. Served by
/// holds_of_command.
const RELEASE_ITSELF: &str = "
    UPDATE holds SET state = 3, attempt = ?3, edit = ?4 WHERE partition = ?1 AND command_id = ?2";

const DUE: &str = "
    INSERT INTO schedule (partition, due_at, command_id, reason, attempt, first_offset, edit)
    VALUES (?1, ?2, ?3, 'dead_letter_retry', ?4, ?5, ?6)";

/// Served by holds_of_command.
const UNHOLD: &str = "DELETE FROM holds WHERE partition = ?1 AND command_id = ?2";

const AUDIT: &str = "
    INSERT INTO dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Served by the primary key.
const STEP: &str = "
    UPDATE dead_letter_jobs
       SET done = done + ?3, failed = failed + ?4, cursor = ?5, heartbeat_at = ?6,
           canary_commands = COALESCE(?7, canary_commands),
           canary_since = CASE WHEN ?7 IS NULL THEN canary_since ELSE ?6 END
     WHERE id = ?1 AND owner = ?2 AND state = 1";

impl Transaction<'_> {
    pub(super) fn retry_letters(
        &self,
        requests: &[RetryRequest],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        let mut commands = Vec::new();
        let mut acted = Vec::with_capacity(requests.len());
        for request in requests {
            let (answer, letter) = self.open_command(request.id)?;
            let Some(letter) = letter else {
                acted.push(answer);
                continue;
            };
            let retried = self.retry_letter(&letter, request, by)?;
            if retried {
                commands.push((letter.partition, letter.command_id));
            }
            acted.push(if retried { Acted::Done } else { Acted::NothingToRetry });
        }
        if let Some(step) = by.job {
            self.step(&step, &acted, &commands)?;
        }
        Ok(acted)
    }

    pub(super) fn discard_letters(
        &self,
        ids: &[DeadLetterId],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        let mut acted = Vec::with_capacity(ids.len());
        for id in ids {
            let (answer, letter) = self.open_command(*id)?;
            if let Some(letter) = letter {
                self.set_state(&letter, DeadLetterState::Discarded)?;
                self.audit(&letter, "discard", by)?;
                let command = letter.command_id.0.as_bytes();
                self.execute(UNHOLD, params![letter.partition.0, command])?;
                self.release_waiting(letter.partition, &stream(&letter.key)?)?;
            }
            acted.push(answer);
        }
        if let Some(step) = by.job {
            self.step(&step, &acted, &[])?;
        }
        Ok(acted)
    }

    /// The letter if it is an open one of a command, and what to answer.
    fn open_command(&self, id: DeadLetterId) -> Result<(Acted, Option<DeadLetter>), StoreError> {
        Ok(match self.letter(id)? {
            None => (Acted::NotFound, None),
            Some(letter)
                if letter.state != DeadLetterState::Open && !planted!(LetterActedOnTwice) =>
            {
                (Acted::NotOpen(letter.state), None)
            }
            Some(letter) => match letter.kind {
                DeadLetterKind::Command => (Acted::Done, Some(letter)),
                DeadLetterKind::ParkedKey => (Acted::ParkedKey, None),
                DeadLetterKind::Callback => (Acted::Callback, None),
            },
        })
    }

    /// Whether its command was dead.
    fn retry_letter(
        &self,
        letter: &DeadLetter,
        request: &RetryRequest,
        by: &ActedBy,
    ) -> Result<bool, StoreError> {
        let (partition, command) = (letter.partition.0, letter.command_id.0.as_bytes());
        let outcome = self.outcome(letter.partition, letter.command_id)?;
        let Some(outcome) = outcome.map(|(_, it)| it).filter(|it| it.status == OutcomeStatus::Dead)
        else {
            return Ok(false);
        };
        self.execute(TO_HISTORY, params![partition, command, self.now])?;
        self.execute(TAKE_BACK, params![partition, command])?;
        let mut edit = self.newest_edit(letter.command_id)?;
        if let Some(payload) = &request.payload {
            edit += 1;
            let payload = storable::json(payload.as_str())?;
            let who = storable::text(&by.who)?;
            self.execute(EDIT, params![command, edit, payload, self.now, who])?;
        }
        let failed = self.first(LAST_ATTEMPT, params![partition, command], |row| {
            column::<Option<i32>>(row, 0)
        })?;
        let failed = failed.flatten().unwrap_or_default();
        let attempt = failed.max(letter.attempts).max(outcome.attempts) + 1;
        let offset = letter.offset.map(|offset| offset.0);
        let first_offset =
            self.first(FIRST_OFFSET, params![partition, command, offset], |row| {
                column::<Option<i64>>(row, 0)
            })?;
        let first_offset = first_offset.flatten();
        self.execute(RELEASE_ITSELF, params![partition, command, attempt, edit])?;
        let edit = if planted!(EditIgnored) { 0 } else { edit };
        self.execute(DUE, params![partition, self.now, command, attempt, first_offset, edit])?;
        self.set_state(letter, DeadLetterState::Retrying)?;
        let action = if request.payload.is_some() { "retry_edited" } else { "retry" };
        self.audit(letter, action, by)?;
        Ok(true)
    }

    pub(super) fn set_state(
        &self,
        letter: &DeadLetter,
        state: DeadLetterState,
    ) -> Result<(), StoreError> {
        self.execute(SET_STATE, params![letter.id.0.as_bytes(), state.code(), self.now])?;
        Ok(())
    }

    pub(super) fn audit(
        &self,
        letter: &DeadLetter,
        action: &str,
        by: &ActedBy,
    ) -> Result<(), StoreError> {
        let (who, reason) = (storable::text(&by.who)?, storable::maybe_text(by.reason.as_deref())?);
        let job = by.job.map(|step| step.id.0.into_bytes());
        let letter = letter.id.0.as_bytes();
        self.execute(AUDIT, params![self.now, letter, action, who, reason, job])?;
        Ok(())
    }

    /// Moves the job, or fences what was done.
    fn step(
        &self,
        step: &JobStep,
        acted: &[Acted],
        commands: &[(Partition, CommandId)],
    ) -> Result<(), StoreError> {
        // What is asked for of parked keys and callbacks is asked for by the caller.
        let is_done = |it: &&Acted| matches!(it, Acted::Done | Acted::ParkedKey | Acted::Callback);
        let done = acted.iter().filter(is_done).count();
        let failed = acted.len() - done;
        // A step that did nothing was no canary: the next one is.
        let is_canary = step.canary && !commands.is_empty();
        let canary = is_canary.then(|| json_text(&commands)).transpose()?;
        let moved = self.execute(
            STEP,
            params![
                step.id.0.as_bytes(),
                step.owner.0.as_bytes(),
                done as i64,
                failed as i64,
                step.cursor.0.as_bytes(),
                self.now,
                canary
            ],
        )?;
        if moved == 0 { Err(StoreError::Fenced(Fence::Job)) } else { Ok(()) }
    }
}
