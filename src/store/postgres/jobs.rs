//! Jobs. Their steps move them, too: see `migrations/0004_dead_letter_jobs.sql` and
//! `migrations/0009_cancellation.sql`.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    PostgresStore,
    columns::{Jsonb, json_text, parse},
    dead_letters::fits,
    errors, pool,
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::MemberId,
    store::{
        Canary, Cancelled, DeadLetterFilter, Fence, Job, JobAction, JobFilter, JobId, JobMove,
        JobState, Jobs, NewJob, Page, StoreError, Walk, dead_letters::id_cursor,
    },
};

macro_rules! columns {
    () => {
        "j.id, j.action, j.filter::text, j.rate, j.canary, j.max_failed_share, j.who, j.reason,
         j.state, j.note, j.total, j.done, j.failed, j.cursor, j.canary_commands::text,
         j.canary_since, j.canary_died, j.owner, j.heartbeat_at, j.created_at, j.finished_at,
         j.newest, j.walk::text"
    };
}

/// The count reads every open letter that fits: dead_letters_open. The newest: dead_letters_newest.
const CREATE: &str = concat!(
    "INSERT INTO adjutant.dead_letter_jobs AS j
         (id, action, filter, rate, canary, max_failed_share, who, reason, state, newest, total,
          created_at)
     SELECT $10::uuid, $11::smallint, $12::jsonb, $13::integer, $14::integer, $15::float8, $16::text,
            $17::text, 1,
            (SELECT d.id FROM adjutant.dead_letters d ORDER BY d.id DESC LIMIT 1),
            (SELECT count(*) FROM adjutant.dead_letters d WHERE d.state = 1 AND ",
    fits!(),
    "), clock_timestamp() RETURNING ",
    columns!()
);

const CREATE_WALKING: &str = concat!(
    "INSERT INTO adjutant.dead_letter_jobs AS j
         (id, action, filter, rate, canary, max_failed_share, who, reason, state, walk, total,
          created_at)
     SELECT $1::uuid, $2::smallint, $3::jsonb, $4::integer, $5::integer, $6::float8, $7::text,
            $8::text, 1, $9::jsonb, $10::bigint, clock_timestamp() RETURNING ",
    columns!()
);

/// Served by dead_letter_jobs_pkey.
const ONE: &str =
    concat!("SELECT ", columns!(), " FROM adjutant.dead_letter_jobs j WHERE j.id = $1");

/// Served by dead_letter_jobs_pkey, read backwards.
const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM adjutant.dead_letter_jobs j WHERE j.id < $1 ORDER BY j.id DESC LIMIT $2"
);

/// Compare-and-set. Served by dead_letter_jobs_pkey.
const CANCEL: &str = concat!(
    "UPDATE adjutant.dead_letter_jobs j
        SET state = 4, finished_at = clock_timestamp(), owner = NULL
      WHERE j.id = $1 AND j.state = 1 RETURNING ",
    columns!()
);

/// Two processes that look at once take two jobs. Served by dead_letter_jobs_running.
const CLAIM: &str = concat!(
    "UPDATE adjutant.dead_letter_jobs j SET owner = $1, heartbeat_at = clock_timestamp()
      WHERE j.id = (
            SELECT f.id FROM adjutant.dead_letter_jobs f
             WHERE f.state = 1
               AND (f.owner IS NULL
                    OR f.heartbeat_at < clock_timestamp() - $2::bigint * interval '1 millisecond')
             ORDER BY f.id LIMIT 1 FOR UPDATE SKIP LOCKED)
        AND j.state = 1
     RETURNING ",
    columns!()
);

/// Served by dead_letters_open, from the cursor on. Letters that died later than the job was made
/// may have ids of a slow clock: their time, the store's, is what counts.
const NEXT: &str = concat!(
    "SELECT d.id FROM adjutant.dead_letters d
      WHERE d.state = 1 AND d.id > $10 AND d.id <= $11 AND d.died_at <= $12 AND ",
    fits!(),
    " ORDER BY d.id LIMIT $13"
);

/// Served by dead_letter_jobs_pkey.
const MOVE: &str = "
    UPDATE adjutant.dead_letter_jobs
       SET heartbeat_at = clock_timestamp(), canary_died = COALESCE($3, canary_died),
           state = COALESCE($4, state), note = COALESCE($5, note),
           owner = CASE WHEN $4::smallint IS NULL THEN owner END,
           finished_at = CASE WHEN $4::smallint IS NULL THEN NULL ELSE clock_timestamp() END
     WHERE id = $1 AND owner = $2 AND state = 1
    RETURNING 1";

#[async_trait]
impl Jobs for PostgresStore {
    async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        let letters = job.filter.dead_letters()?;
        let filter = json_text(&job.filter)?;
        let own: [&(dyn ToSql + Sync); 8] = [
            &JobId::generate().0,
            &job.action.code(),
            &Jsonb(&filter),
            &job.rate,
            &job.canary,
            &job.max_failed_share,
            &job.who,
            &job.reason,
        ];
        let rows = self.with_filter(CREATE, letters, &own).await?;
        made(&rows)
    }

    async fn create_walking_job(
        &self,
        job: &NewJob,
        walk: &Walk,
        total: i64,
    ) -> Result<Job, StoreError> {
        let (filter, walk) = (json_text(&job.filter)?, json_text(walk)?);
        let params: [&(dyn ToSql + Sync); 10] = [
            &JobId::generate().0,
            &job.action.code(),
            &Jsonb(&filter),
            &job.rate,
            &job.canary,
            &job.max_failed_share,
            &job.who,
            &job.reason,
            &Jsonb(&walk),
            &total,
        ];
        made(&self.rows(CREATE_WALKING, &params).await?)
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.rows(ONE, &[&id.0]).await?.first().map(read).transpose()
    }

    async fn jobs(&self, after: Option<&str>, limit: i64) -> Result<Page<Job>, StoreError> {
        let rows = self.rows(LIST, &[&id_cursor(after)?, &limit]).await?;
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let last = items.last().filter(|_| items.len() as i64 == limit);
        Ok(Page { next: last.map(|job| job.id.to_string()), items })
    }

    async fn cancel_job(&self, id: JobId) -> Result<Option<Cancelled>, StoreError> {
        if let Some(row) = self.rows(CANCEL, &[&id.0]).await?.first() {
            return Ok(Some(Cancelled::Now(read(row)?)));
        }
        Ok(self.job(id).await?.map(Cancelled::Ended))
    }

    async fn claim_job(
        &self,
        owner: MemberId,
        silent: Duration,
    ) -> Result<Option<Job>, StoreError> {
        let silent = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
        self.rows(CLAIM, &[&owner.0, &silent]).await?.first().map(read).transpose()
    }

    async fn next_of_job(&self, job: &Job, limit: i64) -> Result<Vec<DeadLetterId>, StoreError> {
        let after = job.cursor.map_or(Uuid::nil(), |cursor| cursor.0);
        let own: [&(dyn ToSql + Sync); 4] = [&after, &job.newest.0, &job.created_at, &limit];
        let rows = self.with_filter(NEXT, job.asked.filter.dead_letters()?, &own).await?;
        Ok(rows.iter().map(|row| DeadLetterId(row.get(0))).collect())
    }

    async fn move_job(
        &self,
        id: JobId,
        owner: MemberId,
        job_move: &JobMove,
    ) -> Result<(), StoreError> {
        let (died, state, note) = match job_move {
            JobMove::Alive => (None, None, None),
            JobMove::CanaryPassed(died) => (Some(*died), None, None),
            JobMove::Ended { state, note, died_again } => {
                (*died_again, Some(state.code()), note.as_deref())
            }
        };
        let moved = self.rows(MOVE, &[&id.0, &owner.0, &died, &state, &note]).await?;
        if moved.is_empty() { Err(StoreError::Fenced(Fence::Job)) } else { Ok(()) }
    }
}

impl PostgresStore {
    /// A statement of its own transaction.
    async fn rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, sql).await?;
        client.query(&statement, params).await.map_err(errors::after_commit)
    }

    /// The same, with the filter as parameters 1 to 9.
    async fn with_filter(
        &self,
        sql: &str,
        filter: &DeadLetterFilter,
        own: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let (kind, state) =
            (filter.kind.map(DeadLetterKind::code), filter.state.map(DeadLetterState::code));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![
            &kind,
            &filter.group,
            &filter.type_name,
            &filter.key,
            &filter.code,
            &filter.fingerprint,
            &state,
            &filter.died_before,
            &filter.died_after,
        ];
        params.extend_from_slice(own);
        self.rows(sql, &params).await
    }
}

fn made(rows: &[Row]) -> Result<Job, StoreError> {
    read(rows.first().ok_or_else(|| StoreError::Internal("no job was made".into()))?)
}

fn read(row: &Row) -> Result<Job, StoreError> {
    let unknown = |what: &str, code: i16| StoreError::Corrupt(format!("there is no {what} {code}"));
    let (action, state): (i16, i16) = (row.get(1), row.get(8));
    let action = JobAction::from_code(action).ok_or_else(|| unknown("job action", action))?;
    let commands: Option<&str> = row.get(14);
    let canary = match (commands, row.get::<_, Option<time::OffsetDateTime>>(15)) {
        (Some(commands), Some(since)) => {
            Some(Canary { commands: parse(commands)?, since, died_again: row.get(16) })
        }
        _ => None,
    };
    Ok(Job {
        id: JobId(row.get(0)),
        asked: NewJob {
            action,
            filter: JobFilter::parse(action, row.get(2))?,
            rate: row.get(3),
            canary: row.get(4),
            max_failed_share: row.get(5),
            who: row.get(6),
            reason: row.get(7),
        },
        state: JobState::from_code(state).ok_or_else(|| unknown("job state", state))?,
        note: row.get(9),
        newest: DeadLetterId(row.get::<_, Option<Uuid>>(21).unwrap_or_default()),
        total: row.get(10),
        done: row.get(11),
        failed: row.get(12),
        cursor: row.get::<_, Option<Uuid>>(13).map(DeadLetterId),
        walk: row.get::<_, Option<&str>>(22).map(parse).transpose()?,
        canary,
        owner: row.get::<_, Option<Uuid>>(17).map(MemberId),
        heartbeat_at: row.get(18),
        created_at: row.get(19),
        finished_at: row.get(20),
    })
}
