//! Works on jobs: takes one up that nobody works on, and does it batch by batch, at its rate. A
//! process that dies in the middle loses nothing: each batch moves the job's cursor in its own
//! transaction, and after [`SILENT`] another process goes on from there.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{DeadLetterKind, act, canary};
use crate::{
    message::MemberId,
    observe::names,
    signals::Signals,
    store::{
        ActedBy, DeadLetterJob, Fence, JobAction, JobMove, JobState, JobStep, MOST_ACTED_ON,
        RetryRequest, Store, StoreError,
    },
};

/// How often a process looks for jobs, if nobody tells it of one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long without a sign of life a job's owner counts as dead.
const SILENT: Duration = Duration::from_secs(10);
/// How many jobs a process works on at a time.
const MOST_JOBS: usize = 4;
/// How often open dead letters are counted.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// How long a job rests after the store did not answer.
const REST: Duration = Duration::from_millis(500);

/// A process's part in working on jobs. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct JobRunner {
    made: Arc<Notify>,
}

impl JobRunner {
    /// Starts to work on jobs, until `stop`.
    pub(crate) fn start(store: Arc<dyn Store>, signals: Signals, stop: CancellationToken) -> Self {
        let runner = Self::default();
        let at_work = runner.clone();
        tokio::spawn(async move {
            // What is in hand is dropped: another process goes on with it.
            let _ = stop.run_until_cancelled(at_work.run(store, signals)).await;
        });
        runner
    }

    /// There is a new job.
    pub(crate) fn wake(&self) {
        self.made.notify_one();
    }

    async fn run(self, store: Arc<dyn Store>, signals: Signals) {
        let mut jobs = JoinSet::new();
        let mut count_at = Instant::now();
        loop {
            while jobs.len() < MOST_JOBS
                && let Some((job, owner)) = claim(store.as_ref()).await
            {
                jobs.spawn(work_on(store.clone(), signals.clone(), job, owner));
            }
            if Instant::now() >= count_at {
                count_open(store.as_ref()).await;
                count_at = Instant::now() + COUNT_EVERY;
            }
            tokio::select! {
                biased;
                () = self.made.notified() => {}
                Some(ended) = jobs.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a job over dead letters broke off; it is taken up again");
                    }
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// An owner is one claim, not one process: whoever claims a job again is fenced from itself.
async fn claim(store: &dyn Store) -> Option<(DeadLetterJob, MemberId)> {
    let owner = MemberId::generate();
    match store.claim_job(owner, SILENT).await {
        Ok(job) => job.map(|job| (job, owner)),
        Err(error) => {
            tracing::debug!(%error, "jobs over dead letters could not be looked for");
            None
        }
    }
}

async fn count_open(store: &dyn Store) {
    match store.open_dead_letters().await {
        Ok(counts) => {
            for kind in DeadLetterKind::ALL {
                let open = counts.iter().find(|(it, _)| *it == kind).map_or(0, |(_, open)| *open);
                metrics::gauge!(names::DEAD_LETTERS, "kind" => kind.as_str(), "state" => "open")
                    .set(open as f64);
            }
        }
        Err(error) => tracing::debug!(%error, "open dead letters could not be counted"),
    }
}

/// Works on a job until it ends, or is somebody else's.
async fn work_on(store: Arc<dyn Store>, signals: Signals, mut job: DeadLetterJob, owner: MemberId) {
    tracing::info!(job = %job.id, action = job.asked.action.as_str(), total = job.total, done = job.done, "working on a job over dead letters");
    let mut pace = Pace::new(job.asked.rate);
    // The last owner may have died, and a step may fail, behind the transaction that moves the job.
    let mut in_doubt = job.cursor.is_some();
    loop {
        let went = async {
            if in_doubt {
                make_good(store.as_ref(), &signals, &job, owner, &mut pace).await?;
            }
            in_doubt = false;
            step(store.as_ref(), &signals, &job, owner, &mut pace).await
        };
        match went.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(StoreError::Fenced(Fence::Job)) => {
                tracing::info!(job = %job.id, "the job was cancelled, or another process has it");
                return;
            }
            // Unknown, too: the cursor says whether it took place.
            Err(
                error @ (StoreError::Unavailable(_)
                | StoreError::Transient(_)
                | StoreError::Unknown(_)),
            ) => {
                tracing::warn!(job = %job.id, %error, "a step of a job failed and is tried again");
                in_doubt = true;
                tokio::time::sleep(REST).await;
            }
            Err(error) => {
                tracing::error!(job = %job.id, %error, "a job over dead letters cannot go on");
                let note = Some(error.to_string());
                let end = JobMove::Ended { state: JobState::Stopped, note, died_again: None };
                if let Err(error) = store.move_job(job.id, owner, &end).await {
                    tracing::warn!(job = %job.id, %error, "the job could not be stopped; it is taken up again");
                }
                return;
            }
        }
        match until_read(store.as_ref(), &job).await {
            Some(now) if now.state == JobState::Running && now.owner == Some(owner) => job = now,
            _ => return,
        }
    }
}

/// The job as it is now: with an old cursor it would count twice what is still open.
async fn until_read(store: &dyn Store, job: &DeadLetterJob) -> Option<DeadLetterJob> {
    loop {
        match store.job(job.id).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::debug!(job = %job.id, %error, "a job could not be read; trying again");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Does the next thing of a job; whether there is more to do.
async fn step(
    store: &dyn Store,
    signals: &Signals,
    job: &DeadLetterJob,
    owner: MemberId,
    pace: &mut Pace,
) -> Result<bool, StoreError> {
    if let Some(canary) = job.canary.as_ref().filter(|it| it.died_again.is_none()) {
        let verdict = canary::judge(store, job, canary, owner).await?;
        store.move_job(job.id, owner, &verdict).await?;
        return Ok(matches!(verdict, JobMove::CanaryPassed(_)));
    }
    let is_canary = job.needs_canary();
    let size = if is_canary { job.asked.canary as usize } else { pace.batch() };
    let letters = store.next_of_job(job, size.min(MOST_ACTED_ON) as i64).await?;
    let Some(cursor) = letters.last().copied() else {
        let done = JobMove::Ended { state: JobState::Done, note: None, died_again: None };
        store.move_job(job.id, owner, &done).await?;
        return Ok(false);
    };
    let by = by(job, Some(JobStep { id: job.id, owner, cursor, canary: is_canary }));
    match job.asked.action {
        JobAction::Retry => {
            let request = |id| RetryRequest { id, payload: None };
            let requests: Vec<_> = letters.iter().copied().map(request).collect();
            act::retry(store, signals, &requests, &by).await?;
        }
        JobAction::Discard => {
            act::discard(store, signals, &letters, &by).await?;
        }
    }
    pace.wait_after(letters.len()).await;
    Ok(true)
}

/// Asks for what the job has passed and counted, and perhaps not asked for: what is done about a
/// parked key is asked for after the step's transaction. Such a letter is still open; one that was
/// asked for is not, so that nothing is asked for twice.
async fn make_good(
    store: &dyn Store,
    signals: &Signals,
    job: &DeadLetterJob,
    owner: MemberId,
    pace: &mut Pace,
) -> Result<(), StoreError> {
    let Some(cursor) = job.cursor else { return Ok(()) };
    if job.asked.filter.kind == Some(DeadLetterKind::Command) {
        return Ok(());
    }
    let mut passed = job.clone();
    passed.asked.filter.kind = Some(DeadLetterKind::ParkedKey);
    (passed.cursor, passed.newest) = (None, cursor);
    loop {
        let letters = store.next_of_job(&passed, pace.batch() as i64).await?;
        let Some(last) = letters.last().copied() else { return Ok(()) };
        // It may be somebody else's by now, or cancelled.
        store.move_job(job.id, owner, &JobMove::Alive).await?;
        tracing::info!(job = %job.id, keys = letters.len(), "the job asks for what it may have left out");
        let asked = match job.asked.action {
            JobAction::Retry => act::Asked::Retry,
            JobAction::Discard => act::Asked::Discard,
        };
        act::ask_again(store, signals, asked, &letters, &by(job, None)).await?;
        pace.wait_after(letters.len()).await;
        passed.cursor = Some(last);
    }
}

fn by(job: &DeadLetterJob, step: Option<JobStep>) -> ActedBy {
    ActedBy { who: job.asked.who.clone(), reason: job.asked.reason.clone(), job: step }
}

/// Keeps to a rate: what was late is not made up for.
struct Pace {
    per_second: f64,
    next: Instant,
}

impl Pace {
    fn new(rate: i32) -> Self {
        Self { per_second: f64::from(rate.max(1)), next: Instant::now() }
    }

    /// A batch a quarter of a second, up to the most that a transaction takes.
    fn batch(&self) -> usize {
        ((self.per_second / 4.0) as usize).clamp(1, MOST_ACTED_ON)
    }

    async fn wait_after(&mut self, letters: usize) {
        let takes = Duration::from_secs_f64(letters as f64 / self.per_second);
        self.next = self.next.max(Instant::now().checked_sub(takes).unwrap_or(self.next)) + takes;
        tokio::time::sleep_until(self.next).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_and_lateness_is_not_made_up_for() {
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.batch(), 250);
        let started = Instant::now();
        for _ in 0..8 {
            pace.wait_after(250).await;
        }
        assert_eq!(started.elapsed(), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let late = Instant::now();
        for _ in 0..9 {
            pace.wait_after(250).await;
        }
        assert!(late.elapsed() >= Duration::from_secs(2), "{:?}", late.elapsed());
        assert_eq!((Pace::new(1).batch(), Pace::new(10_000).batch()), (1, 500));
    }
}
