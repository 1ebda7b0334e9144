//! Works on jobs: takes one up that nobody works on, and does it batch by batch, at its rate. A
//! process that dies in the middle loses nothing: each batch moves the job's cursor in its own
//! transaction, and after [`SILENT`] another process goes on from there.

mod canary;
mod commands;
mod dead_letters;
mod pace;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::pace::Pace;
use crate::{
    dead_letter::DeadLetterKind,
    message::MemberId,
    observe::names,
    signals::Signals,
    store::{Fence, Job, JobFilter, JobMove, JobState, Store, StoreError},
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
                        tracing::error!(%error, "a job broke off; it is taken up again");
                    }
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

/// An owner is one claim, not one process: whoever claims a job again is fenced from itself.
async fn claim(store: &dyn Store) -> Option<(Job, MemberId)> {
    let owner = MemberId::generate();
    match store.claim_job(owner, SILENT).await {
        Ok(job) => job.map(|job| (job, owner)),
        Err(error) => {
            tracing::debug!(%error, "jobs could not be looked for");
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

/// What a step of a job needs.
struct AtWork<'a> {
    store: &'a dyn Store,
    signals: &'a Signals,
    job: &'a Job,
    owner: MemberId,
}

impl AtWork<'_> {
    /// Everything that matched was acted on.
    async fn done(&self) -> Result<(), StoreError> {
        let done = JobMove::Ended { state: JobState::Done, note: None, died_again: None };
        self.store.move_job(self.job.id, self.owner, &done).await
    }
}

/// Works on a job until it ends, or is somebody else's.
async fn work_on(store: Arc<dyn Store>, signals: Signals, mut job: Job, owner: MemberId) {
    tracing::info!(job = %job.id, action = job.asked.action.as_str(), total = job.total, done = job.done, "working on a job");
    let mut pace = Pace::new(job.asked.rate);
    // The last owner may have died, and a step may fail, behind the transaction that moves the job.
    let mut in_doubt = job.cursor.is_some();
    loop {
        let at_work = AtWork { store: store.as_ref(), signals: &signals, job: &job, owner };
        let went = async {
            if in_doubt {
                make_good(&at_work, &mut pace).await?;
            }
            in_doubt = false;
            step(&at_work, &mut pace).await
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
                tracing::error!(job = %job.id, %error, "a job cannot go on");
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
async fn until_read(store: &dyn Store, job: &Job) -> Option<Job> {
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
async fn step(at_work: &AtWork<'_>, pace: &mut Pace) -> Result<bool, StoreError> {
    match &at_work.job.asked.filter {
        JobFilter::DeadLetters(_) => dead_letters::step(at_work, pace).await,
        JobFilter::Commands(filter) => commands::step(at_work, filter, pace).await,
    }
}

/// Does what the last owner, or a step that failed, may have left out behind its transaction.
async fn make_good(at_work: &AtWork<'_>, pace: &mut Pace) -> Result<(), StoreError> {
    match &at_work.job.asked.filter {
        JobFilter::DeadLetters(filter) => dead_letters::make_good(at_work, filter, pace).await,
        // What is done to commands is done in the transaction of the step.
        JobFilter::Commands(_) => Ok(()),
    }
}
