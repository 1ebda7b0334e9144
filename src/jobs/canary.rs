//! The first letters of a job: the rest is retried only if they do not die again.

use std::time::Duration;

use crate::{
    message::{MemberId, OutcomeStatus},
    store::{Canary, Job, JobMove, JobState, Store, StoreError},
};

/// How long a job waits for the outcomes of its canary.
pub(crate) const WAITS: Duration = Duration::from_mins(1);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits for the outcomes of a canary, and says how the job goes on. The job's owner shows meanwhile
/// that it lives.
pub(super) async fn judge(
    store: &dyn Store,
    job: &Job,
    canary: &Canary,
    owner: MemberId,
) -> Result<JobMove, StoreError> {
    loop {
        let outcomes = store.outcomes(&canary.commands).await?;
        let dead = |status| status == OutcomeStatus::Dead;
        let died = outcomes.iter().filter(|(_, outcome)| dead(outcome.status)).count();
        let (asked, ended) = (canary.commands.len(), outcomes.len());
        let allowed = job.asked.max_failed_share * asked as f64;
        if died as f64 > allowed {
            return Ok(stopped(died, format!("{died} of the first {asked} died again")));
        }
        if ended == asked {
            return Ok(JobMove::CanaryPassed(died as i32));
        }
        if store.now().await? - canary.since > WAITS {
            let open = asked - ended;
            let note =
                format!("{open} of the first {asked} had no outcome within {} s", WAITS.as_secs());
            return Ok(stopped(died, note));
        }
        store.move_job(job.id, owner, &JobMove::Alive).await?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn stopped(died: usize, note: String) -> JobMove {
    JobMove::Ended { state: JobState::Stopped, note: Some(note), died_again: Some(died as i32) }
}
