//! Dead letters: what people ask, and what they do with them. The statements are those of the
//! PostgreSQL store; what it does by locks, the single writer does by order.

use async_trait::async_trait;
use rusqlite::{Row, ToSql, params};
use uuid::Uuid;

use super::{
    SqliteStore,
    clock::to_micros,
    transaction::{Transaction, column, id, maybe_time, partition, time},
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::{Attempt, CommandId, Failure, GroupName, Offset, RawJson, Version},
    store::{
        Acted, ActedBy, AuditEntry, CommandEdit, DeadLetter, DeadLetterDetails, DeadLetterFilter,
        DeadLetterGroup, DeadLetters, FailedAttempt, JobId, MOST_GROUPS, Page, PastOutcome,
        RetryRequest, StoreError,
        dead_letters::{MOST_HISTORY, check_size, id_cursor},
        stored::{failure as maybe_failure, parse},
    },
};

/// How many rows a page of a filtered list looks at before it answers with what it has.
const SCAN_LIMIT: i64 = 20_000;

/// A row fits the filter.
macro_rules! fits {
    () => {
        "(:kind IS NULL OR d.kind = :kind) AND (:group IS NULL OR d.group_name = :group)
         AND (:type IS NULL OR d.type = :type) AND (:key IS NULL OR d.key = :key)
         AND (:code IS NULL OR json_extract(d.error, '$.code') = :code)
         AND (:fingerprint IS NULL OR d.fingerprint = :fingerprint)
         AND (:state IS NULL OR d.state = :state)
         AND (:died_before IS NULL OR d.died_at < :died_before)
         AND (:died_after IS NULL OR d.died_at > :died_after)"
    };
}
pub(super) use fits;

macro_rules! columns {
    () => {
        "d.id, d.partition, d.kind, d.group_name, d.key, d.type, d.command_id, d.\"offset\",
         d.error, d.fingerprint, d.attempts, d.died_at, d.state, d.state_at"
    };
}

macro_rules! walk {
    ($index:literal, $in_bound:literal, $in_rows:literal) => {
        Walk {
            bound: concat!(
                "SELECT d.id FROM dead_letters d INDEXED BY ",
                $index,
                " WHERE d.id < ?1 AND ",
                $in_bound,
                " ORDER BY d.id DESC LIMIT 1 OFFSET ?3"
            ),
            rows: concat!(
                "SELECT ",
                columns!(),
                " FROM dead_letters d INDEXED BY ",
                $index,
                " WHERE d.id < :cursor AND d.id >= :bound AND ",
                $in_rows,
                " AND ",
                fits!(),
                " ORDER BY d.id DESC LIMIT :limit"
            ),
        }
    };
}

/// How a list is walked through, newest first: `bound` is the last row that the page looks at,
/// `rows` are those down to it that fit. Both read the same range of the index that they name.
struct Walk {
    bound: &'static str,
    rows: &'static str,
}

const OF_KEY: Walk = walk!("dead_letters_of_key", "d.key = ?2", "d.key = :key");
const OF_FINGERPRINT: Walk =
    walk!("dead_letters_of_fingerprint", "d.fingerprint = ?2", "d.fingerprint = :fingerprint");
const OPEN: Walk = walk!("dead_letters_open", "d.state = 1 AND ?2 IS NULL", "d.state = 1");
/// The index of the primary key.
const ALL: Walk = walk!("sqlite_autoindex_dead_letters_1", "?2 IS NULL", "1");

/// The counts read every row that fits.
const GROUPS: &str = concat!(
    "SELECT d.fingerprint, count(*) AS letters, min(d.died_at), max(d.died_at)
       FROM dead_letters d WHERE ",
    fits!(),
    " GROUP BY d.fingerprint ORDER BY letters DESC, d.fingerprint LIMIT :limit"
);

/// Served by dead_letters_of_fingerprint, read backwards.
const EXAMPLE: &str = concat!(
    "SELECT d.id, d.type, d.error FROM dead_letters d INDEXED BY dead_letters_of_fingerprint
      WHERE d.fingerprint = :of AND ",
    fits!(),
    " ORDER BY d.id DESC LIMIT 1"
);

/// Served by the primary key.
const ONE: &str = concat!("SELECT ", columns!(), " FROM dead_letters d WHERE d.id = ?1");

/// Served by dead_letters_open alone.
const OPEN_BY_KIND: &str = "
    SELECT kind, count(*) FROM dead_letters INDEXED BY dead_letters_open
     WHERE state = 1 GROUP BY kind ORDER BY kind";

/// Served by the primary key.
const NEWEST_EDIT: &str = "
    SELECT edit, payload, edited_at, edited_by FROM command_edits
     WHERE command_id = ?1 ORDER BY edit DESC LIMIT 1";

/// Served by the primary key, read backwards.
const ATTEMPTS: &str = "
    SELECT attempt, error, failed_at, next_due_at FROM attempts
     WHERE partition = ?1 AND command_id = ?2 ORDER BY attempt DESC LIMIT ?3";

/// Served by the primary key, read backwards.
const PAST_OUTCOMES: &str = "
    SELECT attempts, version, error, completed_at, taken_back_at FROM past_outcomes
     WHERE partition = ?1 AND command_id = ?2 ORDER BY attempts DESC LIMIT ?3";

/// Served by dead_letter_audit_of, read backwards.
const AUDIT: &str = "
    SELECT at, action, who, reason, job_id FROM dead_letter_audit
     WHERE dead_letter_id = ?1 ORDER BY id DESC LIMIT ?2";

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let (cursor, filter) = (id_cursor(after)?, filter.clone());
        self.engine.read(move |it| page(it, &filter, cursor, limit)).await
    }

    async fn dead_letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterGroup>, StoreError> {
        let filter = Bound::of(filter);
        self.engine.read(move |it| groups(it, &filter)).await
    }

    async fn dead_letter(
        &self,
        letter: DeadLetterId,
    ) -> Result<Option<DeadLetterDetails>, StoreError> {
        self.engine.read(move |it| details(it, letter)).await
    }

    async fn open_dead_letters(&self) -> Result<Vec<(DeadLetterKind, i64)>, StoreError> {
        let counts = self.engine.read(|it| {
            it.all(OPEN_BY_KIND, (), |row| Ok((kind(column(row, 0)?)?, column(row, 1)?)))
        });
        counts.await
    }

    async fn retry_dead_commands(
        &self,
        requests: &[RetryRequest],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        check_size(requests.len())?;
        let (requests, by) = (requests.to_vec(), by.clone());
        self.engine.write(move |it| it.retry_letters(&requests, &by)).await
    }

    async fn discard_dead_letters(
        &self,
        ids: &[DeadLetterId],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        check_size(ids.len())?;
        let (ids, by) = (ids.to_vec(), by.clone());
        self.engine.write(move |it| it.discard_letters(&ids, &by)).await
    }
}

fn page(
    transaction: &Transaction<'_>,
    filter: &DeadLetterFilter,
    cursor: Uuid,
    limit: i64,
) -> Result<Page<DeadLetter>, StoreError> {
    let (walk, of) = match filter {
        DeadLetterFilter { key: Some(key), .. } => (&OF_KEY, Some(key)),
        DeadLetterFilter { fingerprint: Some(it), .. } => (&OF_FINGERPRINT, Some(it)),
        DeadLetterFilter { state: Some(DeadLetterState::Open), .. } => (&OPEN, None),
        _ => (&ALL, None),
    };
    let bound =
        transaction
            .first(walk.bound, params![cursor.as_bytes(), of, SCAN_LIMIT - 1], |row| id(row, 0))?;
    let filter = Bound::of(filter);
    let (from, to) = (cursor.into_bytes(), bound.unwrap_or_default().into_bytes());
    let own: [(&str, &dyn ToSql); 3] = [(":cursor", &from), (":bound", &to), (":limit", &limit)];
    let items = transaction.all(walk.rows, &*filter.with(&own), letter)?;
    let last = if items.len() as i64 == limit { items.last().map(|it| it.id.0) } else { bound };
    Ok(Page { items, next: last.map(|id| id.to_string()) })
}

fn groups(
    transaction: &Transaction<'_>,
    filter: &Bound,
) -> Result<Vec<DeadLetterGroup>, StoreError> {
    let counted = transaction.all(GROUPS, &*filter.with(&[(":limit", &MOST_GROUPS)]), |row| {
        Ok((column::<String>(row, 0)?, column(row, 1)?, time(row, 2)?, time(row, 3)?))
    })?;
    let with_example = |(fingerprint, letters, first_died_at, last_died_at): (String, _, _, _)| {
        let of = filter.with(&[(":of", &fingerprint)]);
        let example = transaction.first(EXAMPLE, &*of, |row| {
            Ok((DeadLetterId(id(row, 0)?), column(row, 1)?, failure(row, 2)?))
        })?;
        let gone = || StoreError::Internal("a group of dead letters has no member".into());
        let (example, type_name, error) = example.ok_or_else(gone)?;
        Ok(DeadLetterGroup {
            fingerprint: fingerprint.clone(),
            letters,
            first_died_at,
            last_died_at,
            example,
            type_name,
            error,
        })
    };
    counted.into_iter().map(with_example).collect()
}

fn details(
    transaction: &Transaction<'_>,
    letter_id: DeadLetterId,
) -> Result<Option<DeadLetterDetails>, StoreError> {
    let Some(letter) = transaction.first(ONE, [letter_id.0.as_bytes()], letter)? else {
        return Ok(None);
    };
    let command = letter.command_id.0.as_bytes();
    let event = match (letter.kind, letter.offset) {
        (DeadLetterKind::ParkedKey, Some(offset)) => {
            transaction.event_at(letter.partition, offset)?
        }
        _ => None,
    };
    let is_command = letter.kind == DeadLetterKind::Command;
    let most = if is_command { MOST_HISTORY } else { 0 };
    let history = params![letter.partition.0, command, most];
    let mut attempts = transaction.all(ATTEMPTS, history, attempt)?;
    let mut past_outcomes = transaction.all(PAST_OUTCOMES, history, past)?;
    let mut audit =
        transaction.all(AUDIT, params![letter.id.0.as_bytes(), MOST_HISTORY], audit_entry)?;
    attempts.reverse();
    past_outcomes.reverse();
    audit.reverse();
    Ok(Some(DeadLetterDetails {
        command: transaction.command(letter.command_id)?,
        event,
        callback: transaction.callback_of(letter.id)?,
        edit: transaction.first(NEWEST_EDIT, [command], edit)?,
        attempts,
        past_outcomes,
        audit,
        letter,
    }))
}

/// A filter as statements take it.
pub(super) struct Bound {
    kind: Option<i16>,
    state: Option<i16>,
    died_before: Option<i64>,
    died_after: Option<i64>,
    filter: DeadLetterFilter,
}

impl Bound {
    pub(super) fn of(filter: &DeadLetterFilter) -> Self {
        Self {
            kind: filter.kind.map(DeadLetterKind::code),
            state: filter.state.map(DeadLetterState::code),
            died_before: filter.died_before.map(to_micros),
            died_after: filter.died_after.map(to_micros),
            filter: filter.clone(),
        }
    }

    /// The parameters of `fits`, and these.
    pub(super) fn with<'a>(
        &'a self,
        own: &[(&'a str, &'a dyn ToSql)],
    ) -> Vec<(&'a str, &'a dyn ToSql)> {
        let filter: [(&str, &dyn ToSql); 9] = [
            (":kind", &self.kind),
            (":group", &self.filter.group),
            (":type", &self.filter.type_name),
            (":key", &self.filter.key),
            (":code", &self.filter.code),
            (":fingerprint", &self.filter.fingerprint),
            (":state", &self.state),
            (":died_before", &self.died_before),
            (":died_after", &self.died_after),
        ];
        filter.into_iter().chain(own.iter().copied()).collect()
    }
}

fn kind(code: i16) -> Result<DeadLetterKind, StoreError> {
    DeadLetterKind::from_code(code)
        .ok_or_else(|| StoreError::Corrupt(format!("there is no kind {code} of dead letters")))
}

fn state(code: i16) -> Result<DeadLetterState, StoreError> {
    DeadLetterState::from_code(code)
        .ok_or_else(|| StoreError::Corrupt(format!("there is no state {code} of dead letters")))
}

fn failure(row: &Row<'_>, i: usize) -> Result<Failure, StoreError> {
    parse(&column::<String>(row, i)?)
}

pub(super) fn letter(row: &Row<'_>) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        id: DeadLetterId(id(row, 0)?),
        partition: partition(row, 1)?,
        kind: kind(column(row, 2)?)?,
        group: GroupName::from_stored(&column::<String>(row, 3)?),
        key: column(row, 4)?,
        type_name: column(row, 5)?,
        command_id: CommandId(id(row, 6)?),
        offset: column::<Option<i64>>(row, 7)?.map(Offset),
        error: failure(row, 8)?,
        fingerprint: column(row, 9)?,
        attempts: column(row, 10)?,
        died_at: time(row, 11)?,
        state: state(column(row, 12)?)?,
        state_at: time(row, 13)?,
    })
}

impl Transaction<'_> {
    pub(super) fn letter(&self, letter_id: DeadLetterId) -> Result<Option<DeadLetter>, StoreError> {
        self.first(ONE, [letter_id.0.as_bytes()], letter)
    }

    /// The number of the newest edit of a command's payload; 0: it was never edited.
    pub(super) fn newest_edit(&self, command: CommandId) -> Result<i32, StoreError> {
        let newest = self.first(NEWEST_EDIT, [command.0.as_bytes()], |row| column(row, 0))?;
        Ok(newest.unwrap_or_default())
    }
}

fn edit(row: &Row<'_>) -> Result<CommandEdit, StoreError> {
    Ok(CommandEdit {
        edit: column(row, 0)?,
        payload: RawJson::from_trusted(column(row, 1)?),
        edited_at: time(row, 2)?,
        edited_by: column(row, 3)?,
    })
}

fn attempt(row: &Row<'_>) -> Result<FailedAttempt, StoreError> {
    Ok(FailedAttempt {
        attempt: Attempt(column(row, 0)?),
        error: failure(row, 1)?,
        failed_at: time(row, 2)?,
        next_due_at: maybe_time(row, 3)?,
    })
}

fn past(row: &Row<'_>) -> Result<PastOutcome, StoreError> {
    Ok(PastOutcome {
        attempts: column(row, 0)?,
        version: Version(column(row, 1)?),
        error: maybe_failure(column::<Option<String>>(row, 2)?.as_deref())?,
        completed_at: time(row, 3)?,
        taken_back_at: time(row, 4)?,
    })
}

fn audit_entry(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        at: time(row, 0)?,
        action: column(row, 1)?,
        who: column(row, 2)?,
        reason: column(row, 3)?,
        job: column::<Option<[u8; 16]>>(row, 4)?.map(|id| JobId(Uuid::from_bytes(id))),
    })
}
