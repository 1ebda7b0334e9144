//! Replaying parked keys: asking for it, its steps, and failing again. Each is one transaction of the
//! single writer.

use rusqlite::params;

use super::{
    parking::{ONE, parked_key},
    storable,
    transaction::{Transaction, column},
};
use crate::{
    dead_letter::DeadLetterId,
    message::{MemberId, Position},
    store::{
        ActedBy, EventFailure, Fence, Folded, KeyName, KeyScope, ParkedKey, Replay, ReplayAsked,
        ReplayProgress, ReplayStep, StoreError, ViewDocuments,
        stored::{closed_by, replay_code},
    },
};

/// Served by the primary key.
const FORGET: &str = "
    DELETE FROM parked_references
     WHERE group_name = ?1 AND generation = ?2 AND key = ?3 AND partition = ?4 AND \"offset\" = ?5";

/// Served by dead_letters' key.
const LETTER: &str = "SELECT state FROM dead_letters WHERE id = ?1 AND kind = 2";

/// Served by dead_letters' key.
const LETTER_BECOMES: &str = "
    UPDATE dead_letters SET state = ?2, state_at = ?3 WHERE id = ?1 AND kind = 2 AND state = ?4";

/// A retry (?2 = 2), or a discard (3): the event that failed waits no longer. Served by
/// parked_keys_of_dead_letter.
const ASK: &str = "
    UPDATE parked_keys
       SET state = ?2, begun = 0, begun_by = NULL,
           cursor = CASE WHEN ?2 = 2 THEN cursor
                         WHEN scope = 1 THEN failed_offset ELSE cursor + 1 END,
           cursor_version = cursor_version + (?2 = 3 AND scope = 1)
     WHERE dead_letter_id = ?1 AND state = 1";

/// Served by parked_keys_of_dead_letter and the primary key.
const DISCARD: &str = "
    DELETE FROM parked_references
     WHERE (group_name, generation, key, partition, \"offset\") IN
           (SELECT group_name, generation, key, partition, failed_offset FROM parked_keys
             WHERE dead_letter_id = ?1 AND scope <> 1)";

const AUDIT: &str = "
    INSERT INTO dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Served by UNIQUE (partition, stream, version).
const STREAM_WAITS: &str = "
    SELECT 1 FROM events
     WHERE partition = ?1 AND stream = ?2 AND version = ?3 AND \"offset\" <= ?4";

/// Served by the primary key.
const DOCUMENT_WAITS: &str = "
    SELECT 1 FROM parked_references WHERE group_name = ?1 AND generation = ?2 AND key = ?3 LIMIT 1";

/// A member counts once. Served by the primary key.
const BEGIN: &str = "
    UPDATE parked_keys SET begun = begun + (begun_by IS NOT ?5), begun_by = ?5
     WHERE group_name = ?1 AND generation = ?2 AND scope = ?3 AND key = ?4";

/// Served by the primary key.
const MOVE_CURSOR: &str = "
    UPDATE parked_keys SET cursor = ?5, cursor_version = ?6, begun = 0, begun_by = NULL
     WHERE group_name = ?1 AND generation = ?2 AND scope = ?3 AND key = ?4";

/// Served by the primary key.
const UNPARK: &str = "
    DELETE FROM parked_keys
     WHERE group_name = ?1 AND generation = ?2 AND scope = ?3 AND key = ?4";

/// Served by the primary key.
const PARK_AGAIN: &str = "
    UPDATE parked_keys
       SET state = 1, dead_letter_id = ?5, partition = ?6, failed_offset = ?7, attempts = ?8,
           begun = 0, begun_by = NULL
     WHERE group_name = ?1 AND generation = ?2 AND scope = ?3 AND key = ?4";

/// Served by views_parked.
const UNMARK: &str = "UPDATE views SET parked = NULL WHERE view = ?1 AND parked = ?2";

/// Served by the primary key.
const UNMARK_ONE: &str = "UPDATE views SET parked = NULL WHERE view = ?1 AND key = ?2";

impl Transaction<'_> {
    pub(super) fn ask_for_replay(
        &self,
        dead_letter: DeadLetterId,
        replay: Replay,
        by: &ActedBy,
    ) -> Result<ReplayAsked, StoreError> {
        let letter = dead_letter.0;
        let state = self.first(LETTER, [letter.as_bytes()], |row| column::<i16>(row, 0))?;
        match state {
            None => return Ok(ReplayAsked::NotFound),
            Some(1) => {}
            Some(_) => return Ok(ReplayAsked::AlreadyAsked),
        }
        self.execute(LETTER_BECOMES, params![letter.as_bytes(), 2, self.now, 1])?;
        if self.execute(ASK, params![letter.as_bytes(), replay_code(replay)])? != 1 {
            return Err(StoreError::Corrupt(format!("no key is parked for {dead_letter}")));
        }
        if replay == Replay::Discard {
            self.execute(DISCARD, [letter.as_bytes()])?;
        }
        let (who, reason) = (storable::text(&by.who)?, storable::maybe_text(by.reason.as_deref())?);
        let job = by.job.as_ref().map(|step| step.id.0.as_bytes());
        let audit = params![self.now, letter.as_bytes(), replay.as_str(), who, reason, job];
        self.execute(AUDIT, audit)?;
        Ok(ReplayAsked::Accepted)
    }

    pub(super) fn begin_replay(
        &self,
        key: &ParkedKey,
        member: MemberId,
    ) -> Result<i32, StoreError> {
        self.still(key)?;
        let KeyName { group, generation, scope, key: own } = &key.name;
        let (group, member) = (group.as_str(), member.0);
        let params = params![group, generation.0, scope.code(), own, member.as_bytes()];
        self.execute(BEGIN, params)?;
        let found = self.first(ONE, name(&key.name), parked_key)?;
        found.map(|found| found.begun - 1).ok_or(StoreError::Fenced(Fence::Parked))
    }

    /// The key must be where the replay thinks it is; answers its documents.
    pub(super) fn hold_key(&self, step: &ReplayStep) -> Result<ViewDocuments, StoreError> {
        self.still(&step.key)?;
        self.load_documents(&step.view, &step.documents)
    }

    fn still(&self, key: &ParkedKey) -> Result<(), StoreError> {
        let found = self.first(ONE, name(&key.name), parked_key)?;
        let same = found.is_some_and(|found| {
            found.cursor == key.cursor
                && found.dead_letter == key.dead_letter
                && found.replay.is_some()
        });
        if same { Ok(()) } else { Err(StoreError::Fenced(Fence::Parked)) }
    }

    pub(super) fn replay(
        &self,
        step: &ReplayStep,
        folded: &Folded,
    ) -> Result<ReplayProgress, StoreError> {
        let ReplayStep { key, view, finished, reached, .. } = step;
        self.commit_view(view, &folded.documents, &[])?;
        self.park(view, &folded.parked)?;
        self.refer(view, &folded.references)?;
        let KeyName { group, generation, scope, key: own } = &key.name;
        let waits = match scope {
            KeyScope::Stream => {
                let partition = key.failed.partition;
                let (next, to) = (reached.next().0, self.checkpoint(group, partition)?.0);
                self.exists(STREAM_WAITS, params![partition.0, own, next, to])?
            }
            KeyScope::Document | KeyScope::Instance => {
                for Position { partition, offset } in finished {
                    let (group, generation) = (group.as_str(), generation.0);
                    let place = params![group, generation, own, partition.0, offset.0];
                    if self.execute(FORGET, place)? != 1 {
                        return Err(StoreError::Fenced(Fence::Parked));
                    }
                }
                self.exists(DOCUMENT_WAITS, params![group.as_str(), generation.0, own])?
            }
        };
        if waits && !planted!(UnparkedTooEarly) {
            let (group, generation, scope) = (group.as_str(), generation.0, scope.code());
            let moved = params![group, generation, scope, own, step.cursor(), reached.0];
            self.execute(MOVE_CURSOR, moved)?;
            return Ok(ReplayProgress::Waiting);
        }
        self.execute(UNPARK, name(&key.name))?;
        match (scope, step.fed_by) {
            (KeyScope::Stream, Some(_)) => self.execute(UNMARK, params![view, own])?,
            (KeyScope::Stream, None) => 0,
            _ => self.execute(UNMARK_ONE, params![view, own])?,
        };
        self.close_dead_letter(key)?;
        Ok(ReplayProgress::Unparked)
    }

    fn close_dead_letter(&self, key: &ParkedKey) -> Result<(), StoreError> {
        let letter = key.dead_letter;
        let becomes = closed_by(key.replay).code();
        let closed =
            self.execute(LETTER_BECOMES, params![letter.0.as_bytes(), becomes, self.now, 2])?;
        if closed == 1 {
            return Ok(());
        }
        Err(StoreError::Corrupt(format!("the dead letter {letter} is not being retried")))
    }

    pub(super) fn park_again(
        &self,
        key: &ParkedKey,
        failure: &EventFailure,
    ) -> Result<(), StoreError> {
        self.still(key)?;
        self.close_dead_letter(key)?;
        let KeyName { group, generation, scope, key: own } = &key.name;
        self.open_dead_letter(group, own, failure)?;
        let attempts = attempts_in_all(key, failure);
        let (letter, position) = (failure.dead_letter.0, failure.position);
        self.execute(
            PARK_AGAIN,
            params![
                group.as_str(),
                generation.0,
                scope.code(),
                own,
                letter.as_bytes(),
                position.partition.0,
                position.offset.0,
                attempts,
            ],
        )?;
        Ok(())
    }
}

/// The tries of an event that failed before count on.
fn attempts_in_all(key: &ParkedKey, failure: &EventFailure) -> i32 {
    if key.failed == failure.position {
        key.attempts.saturating_add(failure.attempts)
    } else {
        failure.attempts
    }
}

fn name(name: &KeyName) -> impl rusqlite::Params + '_ {
    (name.group.as_str(), name.generation.0, name.scope.code(), name.key.as_str())
}
