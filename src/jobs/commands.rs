//! A step of a job that cancels commands.

use super::{AtWork, pace::Pace};
use crate::{
    cancellation,
    store::{CancelFilter, CancelStep, CancelledBy, MOST_CANCELLED, StoreError},
};

/// How many commands are looked at at a time.
const LOOKED_AT: i64 = 1_000;

/// Cancels what matches of the next page of the walk; whether there is more to do. The walk moves on
/// with the page's last commands: if the process dies before, the page is looked at again, and those
/// that were cancelled are passed over.
pub(super) async fn step(
    at_work: &AtWork<'_>,
    filter: &CancelFilter,
    pace: &mut Pace,
) -> Result<bool, StoreError> {
    let AtWork { store, signals, job, owner } = *at_work;
    let Some(walk) = &job.walk else {
        return Err(StoreError::Internal("a job over commands has no walk".to_owned()));
    };
    let found = store.undecided(walk, LOOKED_AT).await?;
    let was_there = found.commands.into_iter().filter(|it| it.accepted_at <= job.created_at);
    let matching = cancellation::matching(store, filter, was_there.collect()).await?;
    let by = |walk| CancelledBy {
        who: job.asked.who.clone(),
        reason: job.asked.reason.clone(),
        job: Some(CancelStep { id: job.id, owner, walk }),
    };
    let mut parts = matching.chunks(pace.batch(MOST_CANCELLED)).peekable();
    while let Some(part) = parts.next() {
        let further = if parts.peek().is_none() { found.next.as_ref() } else { None };
        let by = by(further.unwrap_or(walk).clone());
        cancellation::cancel(store, signals, part, &by).await?;
        pace.wait_after(part.len()).await;
    }
    let Some(next) = found.next else {
        at_work.done().await?;
        return Ok(false);
    };
    if matching.is_empty() {
        // Nothing to do but to go on.
        store.cancel_commands(&[], &by(next)).await?;
    }
    Ok(true)
}
