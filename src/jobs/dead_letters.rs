//! A step of a job over dead letters.

use super::{AtWork, canary, pace::Pace};
use crate::{
    dead_letter::{DeadLetterKind, act},
    store::{
        ActedBy, DeadLetterFilter, Job, JobAction, JobFilter, JobMove, JobStep, MOST_ACTED_ON,
        RetryRequest, StoreError,
    },
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
    let by = by(job, JobStep { id: job.id, owner, cursor, canary: is_canary });
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

/// Asks for what the job has passed and counted, and perhaps not asked for: what is done about a
/// parked key is asked for after the step's transaction. Such a letter is still open; one that was
/// asked for is not, so that nothing is asked for twice.
pub(super) async fn make_good(
    at_work: &AtWork<'_>,
    filter: &DeadLetterFilter,
    pace: &mut Pace,
) -> Result<(), StoreError> {
    let AtWork { store, signals, job, owner } = *at_work;
    let Some(cursor) = job.cursor else { return Ok(()) };
    if filter.kind == Some(DeadLetterKind::Command) {
        return Ok(());
    }
    let mut passed = job.clone();
    let keys = DeadLetterFilter { kind: Some(DeadLetterKind::ParkedKey), ..filter.clone() };
    passed.asked.filter = JobFilter::DeadLetters(keys);
    (passed.cursor, passed.newest) = (None, cursor);
    loop {
        let letters = store.next_of_job(&passed, pace.batch(MOST_ACTED_ON) as i64).await?;
        let Some(last) = letters.last().copied() else { return Ok(()) };
        // It may be somebody else's by now, or cancelled.
        store.move_job(job.id, owner, &JobMove::Alive).await?;
        tracing::info!(job = %job.id, keys = letters.len(), "the job asks for what it may have left out");
        let asked = match job.asked.action {
            JobAction::Retry => act::Asked::Retry,
            JobAction::Discard => act::Asked::Discard,
            JobAction::Cancel => return Ok(()),
        };
        let step = JobStep { id: job.id, owner, cursor: last, canary: false };
        act::ask_again(store, signals, asked, &letters, &by(job, step)).await?;
        pace.wait_after(letters.len()).await;
        passed.cursor = Some(last);
    }
}

fn by(job: &Job, step: JobStep) -> ActedBy {
    ActedBy { who: job.asked.who.clone(), reason: job.asked.reason.clone(), job: Some(step) }
}
