//! One decision: user code is called here, and nothing it does can harm its neighbours.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::cache::CachedAggregate;
use crate::{
    domain::{AggregateType, CommandFailure, Context, Decided, StoredEvent, version_conflict},
    message::{CommandEnvelope, Failure, Timestamp},
    store::LoadedStream,
};

/// How a command's decision ended.
pub(super) enum Verdict {
    /// These events happen.
    Decided(Decided),
    /// A domain answer.
    Rejected(Failure),
    /// It may succeed later.
    Retryable(Failure),
    /// It can never be executed.
    Dead(Failure),
    /// Its payload is not what this release knows by its type; a newer one may.
    Unreadable(String),
}

pub(super) fn decide(
    aggregate: &dyn AggregateType,
    current: &CachedAggregate,
    command: &CommandEnvelope,
    now: Timestamp,
) -> Verdict {
    if let Some(conflict) = version_conflict(command.expected_version, current.version) {
        return Verdict::Rejected(conflict);
    }
    let context = Context::new(
        command.stream.clone(),
        current.version,
        command.id,
        command.metadata.clone(),
        now,
    )
    .at_attempt(command.attempt);
    // The state is only replaced by what a decision returns, so a panic leaves nothing half-done.
    let decided =
        catch_unwind(AssertUnwindSafe(|| aggregate.decide(&current.state, command, &context)));
    match decided {
        Ok(Ok(decided)) => Verdict::Decided(decided),
        Ok(Err(CommandFailure::Rejected(failure))) => Verdict::Rejected(failure),
        Ok(Err(CommandFailure::Retryable(failure))) => Verdict::Retryable(failure),
        Ok(Err(CommandFailure::Broken(failure))) => Verdict::Dead(failure),
        Ok(Err(CommandFailure::Unreadable(error))) => Verdict::Unreadable(error.to_string()),
        // It may depend on the stream's state: another time it may do.
        Err(panic) => {
            Verdict::Retryable(Failure::new("handler_panicked", panic_message(panic.as_ref())))
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("(no message)"))
}

/// Why a stream cannot be folded here.
pub(super) enum Unreadable {
    /// Its snapshot; the events alone may do.
    Snapshot(String),
    /// An event of it, or one is missing.
    Event(String),
}

/// Folds a stream as it was loaded; an error if it holds something this release cannot read.
pub(super) fn replay(
    aggregate: &dyn AggregateType,
    loaded: &LoadedStream,
) -> Result<Arc<CachedAggregate>, Unreadable> {
    let read = || match &loaded.snapshot {
        Some(snapshot) => aggregate.read_state(&snapshot.state),
        None => Ok(aggregate.empty()),
    };
    let mut state = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|panic| Err(panic_message(panic.as_ref())))
        .map_err(Unreadable::Snapshot)?;
    let mut version = loaded.snapshot.as_ref().map(|snapshot| snapshot.version).unwrap_or_default();
    let mut bytes = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len());
    let snapshot_at = version;
    for event in &loaded.events {
        let stored = StoredEvent {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: &event.data,
        };
        let folded = catch_unwind(AssertUnwindSafe(|| aggregate.evolve(&mut state, &stored)));
        folded
            .map_err(|panic| panic_message(panic.as_ref()))
            .and_then(|folded| folded.map_err(|error| error.to_string()))
            .map_err(Unreadable::Event)?;
        if event.version != version.next() {
            let text = format!("version {} follows {version}", event.version);
            return Err(Unreadable::Event(text));
        }
        version = event.version;
        bytes += event.data.as_str().len();
    }
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Ok(Arc::new(CachedAggregate { state, version, snapshot_at, bytes }))
}
