//! Replaying parked keys: asking for it, its steps, and failing again. A step holds the key's row `FOR
//! UPDATE` before anything else; see `parking` for the order of locks.

use tokio_postgres::types::ToSql;

use super::{
    PostgresStore,
    columns::{closed_by, replay_code},
    parking::parked_key,
    transaction::Transaction,
    views::{COMMIT, LOCK, ViewColumns, in_order},
};
use crate::{
    dead_letter::DeadLetterId,
    message::MemberId,
    store::{
        ActedBy, EventFailure, Fence, FoldDocuments, KeyName, KeyScope, ParkedKey, Replay,
        ReplayAsked, ReplayProgress, ReplayStep, StoreError,
    },
};

/// Served by parked_keys_pkey.
const HOLD: &str = super::parking::select_parked_key!(
    "WHERE group_name = $1 AND generation = $2 AND scope = $3 AND key = $4 FOR UPDATE"
);

/// Served by parked_references_pkey, a lookup a reference.
const FORGET: &str = "
    DELETE FROM adjutant.parked_references r
     USING unnest($4::smallint[], $5::bigint[]) AS f(p, o)
     WHERE r.group_name = $1 AND r.generation = $2 AND r.key = $3
       AND r.partition = f.p AND r.\"offset\" = f.o
    RETURNING 1";

/// Served by dead_letters_newest.
const LETTER: &str = "SELECT state FROM adjutant.dead_letters WHERE id = $1 AND kind = 2";

/// Served by dead_letters_newest.
const LETTER_BECOMES: &str = "
    UPDATE adjutant.dead_letters SET state = $2, state_at = clock_timestamp()
     WHERE id = $1 AND kind = 2 AND state = $3
    RETURNING 1";

/// A retry ($2 = 2), or a discard (3): the event that failed waits no longer. Served by
/// parked_keys_of_dead_letter and parked_references_pkey.
const ASK: &str = "
    WITH asked AS (
        UPDATE adjutant.parked_keys
           SET state = $2::smallint, begun = 0, begun_by = NULL,
               cursor = CASE WHEN $2::smallint = 2 THEN cursor
                             WHEN scope = 1 THEN failed_offset ELSE cursor + 1 END,
               cursor_version = cursor_version
                              + CASE WHEN $2::smallint = 3 AND scope = 1 THEN 1 ELSE 0 END
         WHERE dead_letter_id = $1 AND state = 1
        RETURNING *),
    discarded AS (
        DELETE FROM adjutant.parked_references r USING asked a
         WHERE $2::smallint = 3 AND a.scope <> 1 AND r.group_name = a.group_name
           AND r.generation = a.generation AND r.key = a.key AND r.partition = a.partition
           AND r.\"offset\" = a.failed_offset)
    SELECT 1 FROM asked";

const AUDIT: &str = "
    INSERT INTO adjutant.dead_letter_audit (at, dead_letter_id, action, who, reason, job_id)
    VALUES (clock_timestamp(), $1, $2, $3, $4, $5)";

/// Served by events_partition_stream_version_key and checkpoints_pkey.
const STREAM_WAITS: &str = "
    SELECT 1 FROM adjutant.events e
     WHERE e.partition = $1 AND e.stream = $2 AND e.version = $3
       AND e.\"offset\" <= COALESCE((SELECT c.reached FROM adjutant.checkpoints c
                                    WHERE c.group_name = $4 AND c.partition = $1
                                    ORDER BY c.previous DESC LIMIT 1), 0)";

/// Served by parked_references_pkey.
const DOCUMENT_WAITS: &str = "
    SELECT 1 FROM adjutant.parked_references
     WHERE group_name = $1 AND generation = $2 AND key = $3 LIMIT 1";

/// An absent document cannot be locked: it is inserted empty first, in key order.
const INSERT_EMPTY: &str = "
    INSERT INTO adjutant.views (view, key, partition, version, value, as_of, updated_at)
    SELECT $1, k, $3, 0, NULL, '{}', clock_timestamp()
      FROM unnest($2::text[]) AS k ORDER BY k COLLATE \"C\"
    ON CONFLICT (view, key) DO NOTHING";

/// A member counts once. Served by parked_keys_pkey.
const BEGIN: &str = "
    UPDATE adjutant.parked_keys
       SET begun = begun + (begun_by IS DISTINCT FROM $7::uuid)::integer, begun_by = $7::uuid
     WHERE group_name = $1 AND generation = $2 AND scope = $3 AND key = $4
       AND cursor = $5 AND dead_letter_id = $6 AND state > 1
    RETURNING begun - 1";

/// Served by parked_keys_pkey.
const MOVE_CURSOR: &str = "
    UPDATE adjutant.parked_keys
       SET cursor = $5, cursor_version = $6, begun = 0, begun_by = NULL
     WHERE group_name = $1 AND generation = $2 AND scope = $3 AND key = $4";

/// Served by parked_keys_pkey.
const UNPARK: &str = "
    DELETE FROM adjutant.parked_keys
     WHERE group_name = $1 AND generation = $2 AND scope = $3 AND key = $4";

/// Served by parked_keys_pkey.
const PARK_AGAIN: &str = "
    UPDATE adjutant.parked_keys
       SET state = 1, dead_letter_id = $5, partition = $6, failed_offset = $7, attempts = $8,
           begun = 0, begun_by = NULL
     WHERE group_name = $1 AND generation = $2 AND scope = $3 AND key = $4";

/// Served by views_parked.
const UNMARK: &str = "UPDATE adjutant.views SET parked = NULL WHERE view = $1 AND parked = $2";

/// Served by views_pkey.
const UNMARK_ONE: &str = "UPDATE adjutant.views SET parked = NULL WHERE view = $1 AND key = $2";

impl PostgresStore {
    pub(super) async fn ask_once(
        &self,
        dead_letter: DeadLetterId,
        replay: Replay,
        by: &ActedBy,
    ) -> Result<ReplayAsked, StoreError> {
        let letter = dead_letter.0;
        let mut transaction = self.transaction().await?;
        let becomes = transaction.prepare(LETTER_BECOMES).await?;
        let (open, retrying) = (1_i16, 2_i16);
        // Whoever comes second waits here for the first one's row, and finds it moved.
        let moved = transaction.begin_with(&becomes, &[&letter, &retrying, &open]).await?;
        if moved.is_empty() {
            let look = transaction.prepare(LETTER).await?;
            let found = transaction.query(&look, &[&letter]).await?;
            transaction.roll_back().await?;
            let there = !found.is_empty();
            return Ok(if there { ReplayAsked::AlreadyAsked } else { ReplayAsked::NotFound });
        }
        let ask = transaction.prepare(ASK).await?;
        if transaction.query(&ask, &[&letter, &replay_code(replay)]).await?.is_empty() {
            transaction.roll_back().await?;
            return Err(StoreError::Corrupt(format!("no key is parked for {dead_letter}")));
        }
        let audit = transaction.prepare(AUDIT).await?;
        let job = by.job.map(|step| step.id.0);
        let done: [&(dyn ToSql + Sync); 5] = [&letter, &replay.as_str(), &by.who, &by.reason, &job];
        transaction.commit_with(&audit, &done).await?;
        Ok(ReplayAsked::Accepted)
    }

    /// Need not be on disk when it is answered: it outlives the process.
    pub(super) async fn begin_replay_step(
        &self,
        key: &ParkedKey,
        member: MemberId,
    ) -> Result<i32, StoreError> {
        let KeyName { group, generation, scope, key: own } = &key.name;
        let params: [&(dyn ToSql + Sync); 7] = [
            &group.as_str(),
            &generation.0,
            &scope.code(),
            own,
            &key.cursor,
            &key.dead_letter.0,
            &member.0,
        ];
        let rows = self.unsynced(BEGIN, &params).await?;
        let row = rows.first().ok_or(StoreError::Fenced(Fence::Parked))?;
        Ok(row.get(0))
    }

    pub(super) async fn replay_step(
        &self,
        step: ReplayStep,
        fold: FoldDocuments<'_>,
    ) -> Result<ReplayProgress, StoreError> {
        let mut transaction = self.transaction().await?;
        if let Err(error) = transaction.hold(&step.key).await {
            transaction.roll_back().await?;
            return Err(error);
        }
        let insert = transaction.prepare(INSERT_EMPTY).await?;
        let fed_by = step.fed_by.map(|partition| partition.0);
        transaction.query(&insert, &[&step.view, &step.documents, &fed_by]).await?;
        let lock = transaction.prepare(LOCK).await?;
        let rows = transaction.query(&lock, &[&step.view, &step.documents]).await?;
        let folded = match in_order(&step.documents, &rows).and_then(fold) {
            Ok(folded) => folded,
            Err(error) => {
                transaction.roll_back().await?;
                return Err(error);
            }
        };
        let write = transaction.prepare(COMMIT).await?;
        let columns = ViewColumns::of(&step.view, &folded.documents, &[]);
        transaction.query(&write, &columns.params()).await?;
        transaction.park(&step.view, &folded.parked).await?;
        transaction.refer(&step.view, &folded.references).await?;
        transaction.finish_step(&step).await
    }

    pub(super) async fn park_key_again(
        &self,
        key: &ParkedKey,
        failure: EventFailure,
    ) -> Result<(), StoreError> {
        let mut transaction = self.transaction().await?;
        if let Err(error) = transaction.hold(key).await {
            transaction.roll_back().await?;
            return Err(error);
        }
        transaction.close_dead_letter(key).await?;
        let KeyName { group, generation, scope, key: own } = &key.name;
        transaction.open_dead_letter(group, own, &failure).await?;
        let same = key.failed == failure.position;
        let before = if same { key.attempts } else { 0 };
        let attempts = before.saturating_add(failure.attempts);
        let again = transaction.prepare(PARK_AGAIN).await?;
        let (letter, position) = (failure.dead_letter.0, failure.position);
        let params: [&(dyn ToSql + Sync); 8] = [
            &group.as_str(),
            &generation.0,
            &scope.code(),
            own,
            &letter,
            &position.partition.0,
            &position.offset.0,
            &attempts,
        ];
        transaction.commit_with(&again, &params).await?;
        Ok(())
    }
}

impl Transaction {
    /// Begins: holds the key, which must be where the replay thinks it is.
    async fn hold(&mut self, key: &ParkedKey) -> Result<(), StoreError> {
        let hold = self.prepare(HOLD).await?;
        let found = self.begin_with(&hold, &NameColumns::of(&key.name).params()).await?;
        let found = found.first().map(parked_key).transpose()?;
        let same = found.is_some_and(|found| {
            found.cursor == key.cursor
                && found.dead_letter == key.dead_letter
                && found.replay.is_some()
        });
        if same { Ok(()) } else { Err(StoreError::Fenced(Fence::Parked)) }
    }

    /// Finishes the step's events and looks, with the key held, whether more wait.
    async fn finish_step(mut self, step: &ReplayStep) -> Result<ReplayProgress, StoreError> {
        if self.waits_behind(step).await? {
            let KeyName { group, generation, scope, key } = &step.key.name;
            let advance = self.prepare(MOVE_CURSOR).await?;
            let params: [&(dyn ToSql + Sync); 6] = [
                &group.as_str(),
                &generation.0,
                &scope.code(),
                key,
                &step.cursor(),
                &step.reached.0,
            ];
            self.commit_with(&advance, &params).await?;
            return Ok(ReplayProgress::Waiting);
        }
        let own = &step.key.name.key;
        match (step.key.name.scope, step.fed_by) {
            (KeyScope::Stream, Some(_)) => {
                let unmark = self.prepare(UNMARK).await?;
                self.query(&unmark, &[&step.view, own]).await?;
            }
            (KeyScope::Stream, None) => {}
            (KeyScope::Document | KeyScope::Instance, _) => {
                let unmark = self.prepare(UNMARK_ONE).await?;
                self.query(&unmark, &[&step.view, own]).await?;
            }
        }
        self.close_dead_letter(&step.key).await?;
        let unpark = self.prepare(UNPARK).await?;
        self.commit_with(&unpark, &NameColumns::of(&step.key.name).params()).await?;
        Ok(ReplayProgress::Unparked)
    }

    /// Each look is a statement of its own, so that its snapshot is younger than the lock.
    async fn waits_behind(&mut self, step: &ReplayStep) -> Result<bool, StoreError> {
        let ReplayStep { key, finished, reached, .. } = step;
        let KeyName { group, generation, scope, key: own } = &key.name;
        let waiting = match scope {
            KeyScope::Stream => {
                let look = self.prepare(STREAM_WAITS).await?;
                let (partition, next) = (key.failed.partition.0, reached.next().0);
                self.query(&look, &[&partition, own, &next, &group.as_str()]).await?
            }
            KeyScope::Document | KeyScope::Instance => {
                let forget = self.prepare(FORGET).await?;
                let partitions: Vec<i16> = finished.iter().map(|at| at.partition.0).collect();
                let offsets: Vec<i64> = finished.iter().map(|at| at.offset.0).collect();
                let params: [&(dyn ToSql + Sync); 5] =
                    [&group.as_str(), &generation.0, own, &partitions, &offsets];
                if self.query(&forget, &params).await?.len() != finished.len() {
                    return Err(StoreError::Fenced(Fence::Parked));
                }
                let look = self.prepare(DOCUMENT_WAITS).await?;
                self.query(&look, &[&group.as_str(), &generation.0, own]).await?
            }
        };
        Ok(!waiting.is_empty())
    }

    async fn close_dead_letter(&mut self, key: &ParkedKey) -> Result<(), StoreError> {
        let becomes = self.prepare(LETTER_BECOMES).await?;
        let (letter, state) = (key.dead_letter, closed_by(key.replay).code());
        let retrying = 2_i16;
        if self.query(&becomes, &[&letter.0, &state, &retrying]).await?.is_empty() {
            return Err(StoreError::Corrupt(format!(
                "the dead letter {letter} is not being retried"
            )));
        }
        Ok(())
    }
}

/// The columns of a key's name.
struct NameColumns<'a> {
    group: &'a str,
    generation: i32,
    scope: i16,
    key: &'a str,
}

impl<'a> NameColumns<'a> {
    fn of(name: &'a KeyName) -> Self {
        let KeyName { group, generation, scope, key } = name;
        Self { group: group.as_str(), generation: generation.0, scope: scope.code(), key }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.group, &self.generation, &self.scope, &self.key]
    }
}
