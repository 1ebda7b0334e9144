//! Dead letters: what people ask, by sqlx; what they do with them is next door.

use async_trait::async_trait;
use sqlx::{Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query};
use uuid::Uuid;

use super::{PostgresStore, columns, errors};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::{
        Attempt, CommandId, Failure, GroupName, Offset, Partition, RawJson, Timestamp, Version,
    },
    store::{
        Acted, ActedBy, AuditEntry, CallbackDetails, CommandEdit, DeadLetter, DeadLetterDetails,
        DeadLetterFilter, DeadLetterGroup, DeadLetters, FailedAttempt, JobId, MOST_GROUPS, Page,
        PastOutcome, Queries, RetryRequest, StoreError, StoredStreamEvent,
        dead_letters::{MOST_HISTORY, id_cursor},
    },
};

/// How many rows a page of a filtered list looks at before it answers with what it has.
const SCAN_LIMIT: i64 = 20_000;

/// A row fits the filter: parameters 1 to 9.
macro_rules! fits {
    () => {
        "($1::smallint IS NULL OR d.kind = $1) AND ($2::text IS NULL OR d.group_name = $2)
         AND ($3::text IS NULL OR d.type = $3) AND ($4::text IS NULL OR d.key = $4)
         AND ($5::text IS NULL OR d.error->>'code' = $5)
         AND ($6::text IS NULL OR d.fingerprint = $6)
         AND ($7::smallint IS NULL OR d.state = $7)
         AND ($8::timestamptz IS NULL OR d.died_at < $8)
         AND ($9::timestamptz IS NULL OR d.died_at > $9)"
    };
}
pub(super) use fits;

macro_rules! columns {
    () => {
        "d.id, d.partition, d.kind, d.group_name, d.key, d.type, d.command_id, d.\"offset\",
         d.error::text AS error, d.fingerprint, d.attempts, d.died_at, d.state, d.state_at"
    };
}

macro_rules! walk {
    ($in_bound:literal, $in_rows:literal) => {
        Walk {
            bound: concat!(
                "SELECT d.id FROM adjutant.dead_letters d WHERE d.id < $1 AND ",
                $in_bound,
                " ORDER BY d.id DESC OFFSET $3 LIMIT 1"
            ),
            rows: concat!(
                "SELECT ",
                columns!(),
                " FROM adjutant.dead_letters d WHERE d.id < $10 AND d.id >= $11 AND ",
                $in_rows,
                " AND ",
                fits!(),
                " ORDER BY d.id DESC LIMIT $12"
            ),
        }
    };
}

/// How a list is walked through, newest first: `bound` is the last row that the page looks at,
/// `rows` are those down to it that fit. Both read the same range of one index, which is named by a
/// condition of its own: a plan that does not know the parameters finds no index by the filter's.
struct Walk {
    bound: &'static str,
    rows: &'static str,
}

/// Served by dead_letters_of_key.
const OF_KEY: Walk = walk!("d.key = $2", "d.key = $4");
/// Served by dead_letters_of_fingerprint.
const OF_FINGERPRINT: Walk = walk!("d.fingerprint = $2", "d.fingerprint = $6");
/// Served by dead_letters_open.
const OPEN: Walk = walk!("d.state = 1 AND $2::text IS NULL", "d.state = 1");
/// Served by dead_letters_newest.
const ALL: Walk = walk!("$2::text IS NULL", "TRUE");

/// The counts read every row that fits (dead_letters_of_fingerprint if one is asked for); the
/// examples are served by dead_letters_of_fingerprint.
const GROUPS: &str = concat!(
    "WITH groups AS (
         SELECT d.fingerprint, count(*) AS letters, min(d.died_at) AS first, max(d.died_at) AS last
           FROM adjutant.dead_letters d WHERE ",
    fits!(),
    "     GROUP BY d.fingerprint ORDER BY count(*) DESC, d.fingerprint LIMIT $10)
     SELECT g.fingerprint, g.letters, g.first, g.last, e.id, e.type, e.error
       FROM groups g CROSS JOIN LATERAL (
            SELECT d.id, d.type, d.error::text AS error FROM adjutant.dead_letters d
             WHERE d.fingerprint = g.fingerprint AND ",
    fits!(),
    "        ORDER BY d.id DESC LIMIT 1) AS e
      ORDER BY g.letters DESC, g.fingerprint"
);

/// Served by dead_letters_newest.
const ONE: &str = concat!("SELECT ", columns!(), " FROM adjutant.dead_letters d WHERE d.id = $1");

/// Served by dead_letters_open alone.
const OPEN_BY_KIND: &str =
    "SELECT d.kind, count(*) FROM adjutant.dead_letters d WHERE d.state = 1 GROUP BY d.kind";

/// Served by command_edits_pkey.
const NEWEST_EDIT: &str = "
    SELECT edit, payload::text AS payload, edited_at, edited_by FROM adjutant.command_edits
     WHERE bucket = $1 AND command_id = $2 ORDER BY edit DESC LIMIT 1";

/// Served by attempts_pkey, read backwards.
const ATTEMPTS: &str = "
    SELECT attempt, error::text AS error, failed_at, next_due_at FROM adjutant.attempts
     WHERE partition = $1 AND command_id = $2 ORDER BY attempt DESC LIMIT $3";

/// Served by past_outcomes_pkey, read backwards.
const PAST_OUTCOMES: &str = "
    SELECT attempts, version, error::text AS error, completed_at, taken_back_at
      FROM adjutant.past_outcomes
     WHERE partition = $1 AND command_id = $2 ORDER BY attempts DESC LIMIT $3";

/// Served by dead_letter_audit_of, read backwards.
const AUDIT: &str = "
    SELECT at, action, who, reason, job_id FROM adjutant.dead_letter_audit
     WHERE dead_letter_id = $1 ORDER BY id DESC LIMIT $2";

/// Served by callbacks_of_dead_letter.
const CALLBACK: &str = "
    SELECT id, ended_after, owed_at, attempts, error FROM adjutant.callbacks
     WHERE dead_letter_id = $1";

/// Served by events_pkey.
const EVENT: &str = "
    SELECT version, \"offset\", type, schema_version, data::text AS data, command_id,
           metadata::text AS metadata, recorded_at
      FROM adjutant.events WHERE partition = $1 AND \"offset\" = $2";

#[async_trait]
impl DeadLetters for PostgresStore {
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeadLetter>, StoreError> {
        let cursor = id_cursor(after)?;
        let (walk, of) = match filter {
            DeadLetterFilter { key: Some(key), .. } => (&OF_KEY, Some(key)),
            DeadLetterFilter { fingerprint: Some(it), .. } => (&OF_FINGERPRINT, Some(it)),
            DeadLetterFilter { state: Some(DeadLetterState::Open), .. } => (&OPEN, None),
            _ => (&ALL, None),
        };
        let bound: Option<Uuid> = sqlx::query_scalar(walk.bound)
            .bind(cursor)
            .bind(of)
            .bind(SCAN_LIMIT - 1)
            .fetch_optional(&self.read)
            .await
            .map_err(errors::read)?;
        let rows = bind(sqlx::query(walk.rows), filter)
            .bind(cursor)
            .bind(bound.unwrap_or_default())
            .bind(limit)
            .fetch_all(&self.read)
            .await
            .map_err(errors::read)?;
        let items = rows.iter().map(letter).collect::<Result<Vec<_>, _>>()?;
        let last = if items.len() as i64 == limit { items.last().map(|it| it.id.0) } else { bound };
        Ok(Page { items, next: last.map(|id| id.to_string()) })
    }

    async fn dead_letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterGroup>, StoreError> {
        let rows = bind(sqlx::query(GROUPS), filter)
            .bind(MOST_GROUPS)
            .fetch_all(&self.read)
            .await
            .map_err(errors::read)?;
        rows.iter().map(group).collect()
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterDetails>, StoreError> {
        let row = sqlx::query(ONE).bind(id.0).fetch_optional(&self.read).await;
        let Some(letter) = row.map_err(errors::read)?.as_ref().map(letter).transpose()? else {
            return Ok(None);
        };
        let command = self.command(letter.command_id).await?;
        let event = match (letter.kind, letter.offset) {
            (DeadLetterKind::ParkedKey, Some(offset)) => {
                let query = sqlx::query(EVENT).bind(letter.partition.0).bind(offset.0);
                let row = query.fetch_optional(&self.read).await.map_err(errors::read)?;
                row.as_ref().map(event).transpose()?
            }
            _ => None,
        };
        let callback = if letter.kind == DeadLetterKind::Callback {
            let row = sqlx::query(CALLBACK).bind(id.0).fetch_optional(&self.read).await;
            row.map_err(errors::read)?.as_ref().map(callback).transpose()?
        } else {
            None
        };
        let edit = sqlx::query(NEWEST_EDIT)
            .bind(self.bucket(letter.command_id))
            .bind(letter.command_id.0)
            .fetch_optional(&self.read)
            .await
            .map_err(errors::read)?;
        let audit = sqlx::query(AUDIT).bind(id.0).bind(MOST_HISTORY).fetch_all(&self.read).await;
        Ok(Some(DeadLetterDetails {
            command,
            event,
            callback,
            edit: edit.as_ref().map(command_edit).transpose()?,
            attempts: oldest_first(&self.history(ATTEMPTS, &letter).await?, attempt)?,
            past_outcomes: oldest_first(&self.history(PAST_OUTCOMES, &letter).await?, past)?,
            audit: oldest_first(&audit.map_err(errors::read)?, audit_entry)?,
            letter,
        }))
    }

    async fn open_dead_letters(&self) -> Result<Vec<(DeadLetterKind, i64)>, StoreError> {
        let counts: Vec<(i16, i64)> =
            sqlx::query_as(OPEN_BY_KIND).fetch_all(&self.read).await.map_err(errors::read)?;
        counts.into_iter().map(|(kind, count)| Ok((kind_of(kind)?, count))).collect()
    }

    async fn retry_dead_commands(
        &self,
        requests: &[RetryRequest],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        self.retry_letters(requests, by).await
    }

    async fn discard_dead_letters(
        &self,
        ids: &[DeadLetterId],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        self.discard_letters(ids, by).await
    }
}

impl PostgresStore {
    /// Rows of the letter's command, newest first.
    async fn history(
        &self,
        sql: &'static str,
        letter: &DeadLetter,
    ) -> Result<Vec<PgRow>, StoreError> {
        if letter.kind != DeadLetterKind::Command {
            return Ok(Vec::new());
        }
        let query = sqlx::query(sql).bind(letter.partition.0).bind(letter.command_id.0);
        query.bind(MOST_HISTORY).fetch_all(&self.read).await.map_err(errors::read)
    }
}

fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    filter: &DeadLetterFilter,
) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(filter.kind.map(DeadLetterKind::code))
        .bind(filter.group.clone())
        .bind(filter.type_name.clone())
        .bind(filter.key.clone())
        .bind(filter.code.clone())
        .bind(filter.fingerprint.clone())
        .bind(filter.state.map(DeadLetterState::code))
        .bind(filter.died_before)
        .bind(filter.died_after)
}

fn oldest_first<T>(
    rows: &[PgRow],
    read: fn(&PgRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.iter().rev().map(read).collect()
}

fn column<'r, T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>>(
    row: &'r PgRow,
    name: &str,
) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn kind_of(code: i16) -> Result<DeadLetterKind, StoreError> {
    DeadLetterKind::from_code(code)
        .ok_or_else(|| StoreError::Corrupt(format!("there is no kind {code} of dead letters")))
}

pub(super) fn state_of(code: i16) -> Result<DeadLetterState, StoreError> {
    DeadLetterState::from_code(code)
        .ok_or_else(|| StoreError::Corrupt(format!("there is no state {code} of dead letters")))
}

fn failure(row: &PgRow) -> Result<Failure, StoreError> {
    columns::parse(column(row, "error")?)
}

fn letter(row: &PgRow) -> Result<DeadLetter, StoreError> {
    Ok(DeadLetter {
        id: DeadLetterId(column(row, "id")?),
        partition: Partition(column(row, "partition")?),
        kind: kind_of(column(row, "kind")?)?,
        group: GroupName::from_stored(column(row, "group_name")?),
        key: column(row, "key")?,
        type_name: column(row, "type")?,
        command_id: CommandId(column(row, "command_id")?),
        offset: column::<Option<i64>>(row, "offset")?.map(Offset),
        error: failure(row)?,
        fingerprint: column(row, "fingerprint")?,
        attempts: column(row, "attempts")?,
        died_at: column(row, "died_at")?,
        state: state_of(column(row, "state")?)?,
        state_at: column(row, "state_at")?,
    })
}

fn group(row: &PgRow) -> Result<DeadLetterGroup, StoreError> {
    Ok(DeadLetterGroup {
        fingerprint: column(row, "fingerprint")?,
        letters: column(row, "letters")?,
        first_died_at: column(row, "first")?,
        last_died_at: column(row, "last")?,
        example: DeadLetterId(column(row, "id")?),
        type_name: column(row, "type")?,
        error: failure(row)?,
    })
}

fn command_edit(row: &PgRow) -> Result<CommandEdit, StoreError> {
    Ok(CommandEdit {
        edit: column(row, "edit")?,
        payload: RawJson::from_trusted(column(row, "payload")?),
        edited_at: column(row, "edited_at")?,
        edited_by: column(row, "edited_by")?,
    })
}

fn attempt(row: &PgRow) -> Result<FailedAttempt, StoreError> {
    Ok(FailedAttempt {
        attempt: Attempt(column(row, "attempt")?),
        error: failure(row)?,
        failed_at: column(row, "failed_at")?,
        next_due_at: column::<Option<Timestamp>>(row, "next_due_at")?,
    })
}

fn past(row: &PgRow) -> Result<PastOutcome, StoreError> {
    Ok(PastOutcome {
        attempts: column(row, "attempts")?,
        version: Version(column(row, "version")?),
        error: columns::failure(column(row, "error")?)?,
        completed_at: column(row, "completed_at")?,
        taken_back_at: column(row, "taken_back_at")?,
    })
}

fn audit_entry(row: &PgRow) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        at: column(row, "at")?,
        action: column(row, "action")?,
        who: column(row, "who")?,
        reason: column(row, "reason")?,
        job: column::<Option<Uuid>>(row, "job_id")?.map(JobId),
    })
}

fn callback(row: &PgRow) -> Result<CallbackDetails, StoreError> {
    Ok(CallbackDetails {
        id: column(row, "id")?,
        ended_after: column(row, "ended_after")?,
        owed_at: column(row, "owed_at")?,
        attempts: column(row, "attempts")?,
        error: column(row, "error")?,
    })
}

fn event(row: &PgRow) -> Result<StoredStreamEvent, StoreError> {
    Ok(StoredStreamEvent {
        version: Version(column(row, "version")?),
        offset: Offset(column(row, "offset")?),
        event_type: column(row, "type")?,
        schema_version: column(row, "schema_version")?,
        data: RawJson::from_trusted(column(row, "data")?),
        command_id: CommandId(column(row, "command_id")?),
        metadata: columns::metadata(column(row, "metadata")?)?,
        recorded_at: column(row, "recorded_at")?,
    })
}
