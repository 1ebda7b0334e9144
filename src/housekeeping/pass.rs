//! One round through everything.

use std::time::Duration;

use tokio::time::Instant;

use super::HousekeepingParts;
use crate::{
    message::Partition,
    observe::names,
    store::{Leftover, StoreError},
};

pub(super) async fn run(parts: &HousekeepingParts) {
    let started = Instant::now();
    let settings = &parts.settings;
    if let Some(age) = settings.outcomes {
        report("command_log", log_entries(parts, age).await);
        report("commands", ended_commands(parts, age).await);
    }
    if let Some(age) = settings.outbox {
        let remove =
            || parts.store.remove_finished_outbox(&parts.event_groups, age, settings.batch);
        report("outbox", batches(parts, "outbox", remove).await);
    }
    let leftovers = [
        (Leftover::DeadLetters, settings.dead_letters),
        (Leftover::DeadLetterAudit, settings.audit),
        (Leftover::Cancellations, settings.audit),
        (Leftover::Members, settings.members),
        (Leftover::Notifications, settings.notifications),
    ];
    for (what, age) in leftovers {
        if let Some(age) = age {
            let remove = || parts.store.remove_leftovers(what, age, settings.batch);
            report(what.as_str(), batches(parts, what.as_str(), remove).await);
        }
    }
    if let Some(keep) = settings.foreign_rows {
        let remove = || parts.store.bound_foreign(keep, settings.batch);
        report("foreign_messages", batches(parts, "foreign_messages", remove).await);
    }
    metrics::histogram!(names::HOUSEKEEPING_SECONDS).record(started.elapsed().as_secs_f64());
}

async fn log_entries(parts: &HousekeepingParts, age: Duration) -> Result<(), StoreError> {
    for partition in parts.store.identity().partitions.all() {
        let partition: Partition = partition;
        let remove = || parts.store.remove_log_entries(partition, age, parts.settings.batch);
        batches(parts, "command_log", remove).await?;
    }
    Ok(())
}

/// Walks over every command that is old enough, once: those that must stay are not looked at again
/// until the next round.
async fn ended_commands(parts: &HousekeepingParts, age: Duration) -> Result<(), StoreError> {
    let mut from = None;
    while parts.is_on_duty() {
        let step = parts.store.remove_ended_commands(age, from, parts.settings.batch).await?;
        count("commands", step.removed);
        if step.next.is_none() {
            return Ok(());
        }
        from = step.next;
        tokio::time::sleep(parts.settings.pause).await;
    }
    Ok(())
}

/// Removes until a batch was not full.
async fn batches<F, R>(
    parts: &HousekeepingParts,
    what: &'static str,
    remove: F,
) -> Result<(), StoreError>
where
    F: Fn() -> R,
    R: Future<Output = Result<u64, StoreError>>,
{
    while parts.is_on_duty() {
        let removed = remove().await?;
        count(what, removed);
        if removed < parts.settings.batch.max(1).unsigned_abs() {
            return Ok(());
        }
        tokio::time::sleep(parts.settings.pause).await;
    }
    Ok(())
}

fn count(what: &'static str, removed: u64) {
    metrics::counter!(names::HOUSEKEEPING_REMOVED_TOTAL, "what" => what).increment(removed);
}

fn report(what: &'static str, done: Result<(), StoreError>) {
    if let Err(error) = done {
        metrics::counter!(names::HOUSEKEEPING_FAILED_TOTAL, "what" => what).increment(1);
        tracing::warn!(%error, what, "housekeeping goes on later");
    }
}
