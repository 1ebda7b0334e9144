//! A step of a job over dead letters.

use super::{AtWork, canary, pace::Pace};
use crate::{
    dead_letter::act,
    store::{ActedBy, JobAction, JobMove, JobStep, MOST_ACTED_ON, RetryRequest, StoreError},
};

/// Acts on the next letters, or waits for what becomes of the first ones; whether there is more to do.
pub(super) async fn step(at_work: &AtWork<'_>, pace: &mut Pace) -> Result<bool, StoreError> {
    let AtWork { store, signals, job, owner } = *at_work;
    if let Some(canary) = job.canary.as_ref().filter(|it| it.died_again.is_none()) {
        let verdict = canary::judge(store, job, canary, owner).await?;
        store.move_job(job.id, owner, &verdict).await?;
        return Ok(matches!(verdict, JobMove::CanaryPassed(_)));
    }
    let is_canary = job.needs_canary();
    let size = if is_canary { job.asked.canary as usize } else { pace.batch(MOST_ACTED_ON) };
    let letters = store.next_of_job(job, size.min(MOST_ACTED_ON) as i64).await?;
    let Some(cursor) = letters.last().copied() else {
        at_work.done().await?;
        return Ok(false);
    };
    let by = ActedBy {
        who: job.asked.who.clone(),
        reason: job.asked.reason.clone(),
        job: Some(JobStep { id: job.id, owner, cursor, canary: is_canary }),
    };
    match job.asked.action {
        JobAction::Retry => {
            let request = |id| RetryRequest { id, payload: None };
            let requests: Vec<_> = letters.iter().copied().map(request).collect();
            act::retry(store, signals, &requests, &by).await?;
        }
        JobAction::Discard => {
            act::discard(store, signals, &letters, &by).await?;
        }
        JobAction::Cancel => {
            return Err(StoreError::Internal("dead letters cannot be cancelled".to_owned()));
        }
    }
    pace.wait_after(letters.len()).await;
    Ok(true)
}
