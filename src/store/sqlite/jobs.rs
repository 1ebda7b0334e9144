//! Jobs: those that people ask for. What callers hand to the writer is in `job`.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Row, ToSql, params};
use uuid::Uuid;

use super::{
    SqliteStore,
    dead_letters::{Bound, fits},
    storable,
    transaction::{Transaction, column, id, maybe_time, time},
};
use crate::{
    dead_letter::DeadLetterId,
    message::MemberId,
    store::{
        Canary, Cancelled, Fence, Job, JobAction, JobFilter, JobId, JobMove, JobState, Jobs,
        NewJob, Page, StoreError, Walk,
        dead_letters::id_cursor,
        stored::{json_text, parse},
    },
};

/// Served by the primary key.
const NEWEST: &str = "SELECT id FROM dead_letters ORDER BY id DESC LIMIT 1";

/// Reads every open letter that fits: dead_letters_open.
const TOTAL: &str = concat!(
    "SELECT count(*) FROM dead_letters d INDEXED BY dead_letters_open WHERE d.state = 1 AND ",
    fits!()
);

const CREATE: &str = "
    INSERT INTO dead_letter_jobs (id, action, filter, rate, canary, max_failed_share, who, reason,
                                  state, newest, total, created_at, walk)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?10, ?11, ?12)";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, action, filter, rate, canary, max_failed_share, who, reason, state, note,
                    total, done, failed, cursor, canary_commands, canary_since, canary_died, owner,
                    heartbeat_at, created_at, finished_at, newest, walk FROM dead_letter_jobs ",
            $rest
        )
    };
}

/// Served by the primary key.
const ONE: &str = select!("WHERE id = ?1");
/// Served by the primary key, read backwards.
const LIST: &str = select!("WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
/// Served by dead_letter_jobs_running.
const FREE: &str =
    select!("WHERE state = 1 AND (owner IS NULL OR heartbeat_at < ?1) ORDER BY id LIMIT 1");

/// Served by the primary key.
const CLAIM: &str = "UPDATE dead_letter_jobs SET owner = ?2, heartbeat_at = ?3 WHERE id = ?1";

/// Served by the primary key.
const CANCEL: &str = "
    UPDATE dead_letter_jobs SET state = 4, finished_at = ?2, owner = NULL
     WHERE id = ?1 AND state = 1";

/// Served by dead_letters_open, from the cursor on. Letters that died later than the job was made
/// may have ids of a slow clock: their time, the store's, is what counts.
const NEXT: &str = concat!(
    "SELECT d.id FROM dead_letters d INDEXED BY dead_letters_open
      WHERE d.state = 1 AND d.id > :after AND d.id <= :newest AND d.died_at <= :made AND ",
    fits!(),
    " ORDER BY d.id LIMIT :limit"
);

/// Served by the primary key.
const MOVE: &str = "
    UPDATE dead_letter_jobs
       SET heartbeat_at = ?3, canary_died = COALESCE(?4, canary_died), state = COALESCE(?5, state),
           note = COALESCE(?6, note), owner = CASE WHEN ?5 IS NULL THEN owner END,
           finished_at = CASE WHEN ?5 IS NULL THEN NULL ELSE ?3 END
     WHERE id = ?1 AND owner = ?2 AND state = 1";

#[async_trait]
impl Jobs for SqliteStore {
    async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        let (job, made) = (job.clone(), JobId::generate());
        let created = self.engine.write(move |it| {
            let newest = it.first(NEWEST, (), |row| id(row, 0))?;
            let filter = Bound::of(job.filter.dead_letters()?);
            let total = it.number(TOTAL, &*filter.with(&[]))?;
            it.create_job(&job, made, newest, total, None)
        });
        created.await
    }

    async fn create_walking_job(
        &self,
        job: &NewJob,
        walk: &Walk,
        total: i64,
    ) -> Result<Job, StoreError> {
        let (job, walk, made) = (job.clone(), json_text(walk)?, JobId::generate());
        self.engine.write(move |it| it.create_job(&job, made, None, total, Some(walk))).await
    }

    async fn job(&self, job: JobId) -> Result<Option<Job>, StoreError> {
        self.engine.read(move |it| it.job(job)).await
    }

    async fn jobs(&self, after: Option<&str>, limit: i64) -> Result<Page<Job>, StoreError> {
        let cursor = id_cursor(after)?;
        let page = self.engine.read(move |it| {
            let items = it.all(LIST, params![cursor.as_bytes(), limit], read)?;
            let last = items.last().filter(|_| items.len() as i64 == limit);
            Ok(Page { next: last.map(|job| job.id.to_string()), items })
        });
        page.await
    }

    async fn cancel_job(&self, job: JobId) -> Result<Option<Cancelled>, StoreError> {
        let cancelled = self.engine.write(move |it| {
            let now = it.execute(CANCEL, params![job.0.as_bytes(), it.now])? > 0;
            let job = it.job(job)?;
            Ok(job.map(|job| if now { Cancelled::Now(job) } else { Cancelled::Ended(job) }))
        });
        cancelled.await
    }

    async fn claim_job(
        &self,
        owner: MemberId,
        silent: Duration,
    ) -> Result<Option<Job>, StoreError> {
        let silent = i64::try_from(silent.as_micros()).unwrap_or(i64::MAX);
        // Looked at first, so that idle processes do not write.
        let is_free = move |it: &Transaction<'_>| it.exists(FREE, [it.now.saturating_sub(silent)]);
        if !self.engine.read(is_free).await? {
            return Ok(None);
        }
        let claimed = self.engine.write(move |it| {
            let Some(job) = it.first(FREE, [it.now.saturating_sub(silent)], read)? else {
                return Ok(None);
            };
            let job_id = job.id;
            it.execute(CLAIM, params![job_id.0.as_bytes(), owner.0.as_bytes(), it.now])?;
            it.job(job_id)
        });
        claimed.await
    }

    async fn next_of_job(&self, job: &Job, limit: i64) -> Result<Vec<DeadLetterId>, StoreError> {
        let filter = Bound::of(job.asked.filter.dead_letters()?);
        let after = job.cursor.map_or(Uuid::nil(), |cursor| cursor.0).into_bytes();
        let newest = job.newest.0.into_bytes();
        let made = super::clock::to_micros(job.created_at);
        let next = self.engine.read(move |it| {
            let own: [(&str, &dyn ToSql); 4] =
                [(":after", &after), (":newest", &newest), (":made", &made), (":limit", &limit)];
            it.all(NEXT, &*filter.with(&own), |row| Ok(DeadLetterId(id(row, 0)?)))
        });
        next.await
    }

    async fn move_job(
        &self,
        job: JobId,
        owner: MemberId,
        job_move: &JobMove,
    ) -> Result<(), StoreError> {
        let (died, state, note) = match job_move.clone() {
            JobMove::Alive => (None, None, None),
            JobMove::CanaryPassed(died) => (Some(died), None, None),
            JobMove::Ended { state, note, died_again } => (died_again, Some(state.code()), note),
        };
        let moved = self.engine.write(move |it| {
            let (job, owner) = (job.0.as_bytes(), owner.0.as_bytes());
            let moved = it.execute(MOVE, params![job, owner, it.now, died, state, note])?;
            if moved == 0 { Err(StoreError::Fenced(Fence::Job)) } else { Ok(()) }
        });
        moved.await
    }
}

impl Transaction<'_> {
    fn create_job(
        &self,
        job: &NewJob,
        made: JobId,
        newest: Option<Uuid>,
        total: i64,
        walk: Option<String>,
    ) -> Result<Job, StoreError> {
        self.execute(
            CREATE,
            params![
                made.0.as_bytes(),
                job.action.code(),
                json_text(&job.filter)?,
                job.rate,
                job.canary,
                job.max_failed_share,
                storable::text(&job.who)?,
                storable::maybe_text(job.reason.as_deref())?,
                newest.map(Uuid::into_bytes),
                total,
                self.now,
                walk,
            ],
        )?;
        self.job(made)?.ok_or_else(|| StoreError::Internal("no job was made".into()))
    }

    fn job(&self, job: JobId) -> Result<Option<Job>, StoreError> {
        self.first(ONE, [job.0.as_bytes()], read)
    }
}

fn maybe_id(row: &Row<'_>, i: usize) -> Result<Option<Uuid>, StoreError> {
    Ok(column::<Option<[u8; 16]>>(row, i)?.map(Uuid::from_bytes))
}

fn read(row: &Row<'_>) -> Result<Job, StoreError> {
    let unknown = |what: &str, code: i16| StoreError::Corrupt(format!("there is no {what} {code}"));
    let (action, state) = (column::<i16>(row, 1)?, column::<i16>(row, 8)?);
    let action = JobAction::from_code(action).ok_or_else(|| unknown("job action", action))?;
    let canary = match (column::<Option<String>>(row, 14)?, maybe_time(row, 15)?) {
        (Some(commands), Some(since)) => {
            Some(Canary { commands: parse(&commands)?, since, died_again: column(row, 16)? })
        }
        _ => None,
    };
    Ok(Job {
        id: JobId(id(row, 0)?),
        asked: NewJob {
            action,
            filter: JobFilter::parse(action, &column::<String>(row, 2)?)?,
            rate: column(row, 3)?,
            canary: column(row, 4)?,
            max_failed_share: column(row, 5)?,
            who: column(row, 6)?,
            reason: column(row, 7)?,
        },
        state: JobState::from_code(state).ok_or_else(|| unknown("job state", state))?,
        note: column(row, 9)?,
        newest: DeadLetterId(maybe_id(row, 21)?.unwrap_or_default()),
        total: column(row, 10)?,
        done: column(row, 11)?,
        failed: column(row, 12)?,
        cursor: maybe_id(row, 13)?.map(DeadLetterId),
        walk: column::<Option<String>>(row, 22)?.map(|walk| parse(&walk)).transpose()?,
        canary,
        owner: maybe_id(row, 17)?.map(MemberId),
        heartbeat_at: maybe_time(row, 18)?,
        created_at: time(row, 19)?,
        finished_at: maybe_time(row, 20)?,
    })
}
