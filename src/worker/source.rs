//! What arrived by the road, sorted by what to do with it.

use crate::{
    broker::Delivery,
    message::{Batch, LogId, Offset, decode_batch},
    store::{CommandEntry, Entry, EventEntry, LogKind},
};

/// A delivery, looked at.
pub(super) enum Arrival {
    /// Entries of our log with consecutive offsets.
    Entries(Vec<Entry>),
    /// Entries that are finished already, all of them.
    Duplicate,
    /// Not of our log, or not readable: recorded and acknowledged, never applied. If entries are
    /// missing because of it, they are read from the log.
    Foreign {
        /// The log it names, if it names one.
        log_id: Option<LogId>,
        /// What is wrong.
        reason: String,
    },
}

pub(super) fn look_at(delivery: &Delivery, kind: LogKind, ours: LogId, next: Offset) -> Arrival {
    let Some(headers) = &delivery.log else {
        return foreign(None, "its headers are missing or damaged");
    };
    if headers.log_id != ours && !planted!(ForeignApplied) {
        return foreign(Some(headers.log_id), "it belongs to another log");
    }
    let behind = headers.first_offset.plus(headers.entries());
    if behind <= next && !planted!(DuplicateApplied) {
        return Arrival::Duplicate;
    }
    let batch = match decode_batch(&delivery.body, kind == LogKind::Commands) {
        Ok(batch) => batch,
        Err(error) => return foreign(Some(ours), &format!("its body is damaged: {error}")),
    };
    let count = batch.len();
    let offsets = |i: usize| headers.first_offset.plus(i);
    let entries: Vec<Entry> = match batch {
        Batch::Commands(commands) => commands
            .into_iter()
            .enumerate()
            .map(|(i, command)| Entry::Command(CommandEntry { offset: offsets(i), command }))
            .collect(),
        Batch::Events(events) => events
            .into_iter()
            .zip(headers.recorded_at())
            .enumerate()
            .map(|(i, (event, recorded_at))| {
                let first = headers.recorded.first().map_or(recorded_at, |first| first.at);
                let recorded_at = if planted!(RecordedByTheFirst) { first } else { recorded_at };
                Entry::Event(EventEntry { offset: offsets(i), recorded_at, event })
            })
            .collect(),
    };
    if count != headers.entries() {
        return foreign(Some(ours), "its headers and its body disagree");
    }
    let is_new = |entry: &Entry| entry.offset() >= next || planted!(DuplicateApplied);
    Arrival::Entries(entries.into_iter().filter(is_new).collect())
}

fn foreign(log_id: Option<LogId>, reason: &str) -> Arrival {
    Arrival::Foreign { log_id, reason: reason.to_owned() }
}
