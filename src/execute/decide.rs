//! One decision: user code is called here, and nothing it does can harm its neighbours.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::cache::CachedAggregate;
use crate::{
    domain::{AggregateType, CommandFailure, Context, Decided, StoredEvent},
    message::{CommandEnvelope, Failure, Timestamp, Version},
    store::LoadedStream,
};

/// How a command's decision ended.
pub(super) enum Verdict {
    /// These events happen.
    Decided(Decided),
    /// A domain answer.
    Rejected(Failure),
    /// It cannot be executed.
    Dead(Failure),
}

pub(super) fn decide(
    aggregate: &dyn AggregateType,
    current: &CachedAggregate,
    command: &CommandEnvelope,
    now: Timestamp,
) -> Verdict {
    if let Some(expected) = command.expected_version
        && expected != current.version
    {
        return Verdict::Rejected(Failure {
            code: "version_conflict".into(),
            message: format!(
                "the stream is at version {}, the command expects {expected}",
                current.version
            ),
        });
    }
    let context = Context::new(
        command.stream.clone(),
        current.version,
        command.id,
        command.metadata.clone(),
        now,
    );
    // The state is only replaced by what a decision returns, so a panic leaves nothing half-done.
    let decided =
        catch_unwind(AssertUnwindSafe(|| aggregate.decide(&current.state, command, &context)));
    match decided {
        Ok(Ok(decided)) => Verdict::Decided(decided),
        Ok(Err(CommandFailure::Rejected(failure))) => Verdict::Rejected(failure),
        Ok(Err(CommandFailure::Broken(failure))) => Verdict::Dead(failure),
        Err(panic) => Verdict::Dead(Failure {
            code: "handler_panicked".into(),
            message: panic_message(panic.as_ref()),
        }),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("(no message)"))
}

/// Folds a stream as it was loaded; an error if it holds something this release cannot read.
pub(super) fn replay(
    aggregate: &dyn AggregateType,
    loaded: &LoadedStream,
) -> Result<Arc<CachedAggregate>, String> {
    let (mut state, mut version, mut bytes) = (aggregate.empty(), Version(0), 0_usize);
    if let Some(snapshot) = &loaded.snapshot {
        state = aggregate.read_state(&snapshot.state)?;
        version = snapshot.version;
        bytes = snapshot.state.len();
    }
    let snapshot_at = version;
    for event in &loaded.events {
        let stored = StoredEvent {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: &event.data,
        };
        let folded = catch_unwind(AssertUnwindSafe(|| aggregate.evolve(&mut state, &stored)));
        folded.map_err(|panic| panic_message(panic.as_ref()))?.map_err(|e| e.to_string())?;
        version = event.version;
        bytes += event.data.as_str().len();
    }
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Ok(Arc::new(CachedAggregate { state, version, snapshot_at, bytes }))
}
