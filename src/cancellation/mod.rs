//! Calling commands off that have not ended. What people ask for one by one and what jobs do comes by
//! here, is told to whoever waits in this process, and is counted.

#[cfg(feature = "http")]
mod walk;

#[cfg(feature = "http")]
pub(crate) use walk::{begin, count, matching};

use std::collections::BTreeMap;

use crate::{
    message::CommandId,
    observe::names,
    signals::Signals,
    store::{CancelAnswer, CancelledBy, Store, StoreError},
};

/// Cancels those of these commands that have not ended; answers in their order.
pub(crate) async fn cancel(
    store: &dyn Store,
    signals: &Signals,
    commands: &[CommandId],
    by: &CancelledBy,
) -> Result<Vec<CancelAnswer>, StoreError> {
    let answers = store.cancel_commands(commands, by).await?;
    let (mut ended, mut by_type) = (Vec::new(), BTreeMap::<&str, u64>::new());
    for (id, answer) in commands.iter().zip(&answers) {
        if let CancelAnswer::Cancelled { command_type } = answer {
            ended.push(*id);
            *by_type.entry(command_type).or_default() += 1;
        }
    }
    for (command_type, count) in by_type {
        let command_type = command_type.to_owned();
        metrics::counter!(names::COMMANDS_CANCELLED_TOTAL, "type" => command_type).increment(count);
    }
    if !ended.is_empty() {
        tracing::info!(commands = ended.len(), who = by.who, "commands were called off");
        signals.commands_cancelled(ended);
        // Replies, and what waited behind them.
        signals.outbox_written();
        signals.schedule_written();
    }
    Ok(answers)
}
