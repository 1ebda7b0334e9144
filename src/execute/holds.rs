//! The order of strict commands: which rows of `holds` the streams of a batch have, and will have
//! when it is committed. A strict command waits while its stream has one with a lower first offset
//! (law 4).

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use crate::{
    domain::Registry,
    message::{Attempt, Offset, Partition, StreamId},
    store::{Hold, HoldState},
};

/// The rows of some streams. Of other streams it knows what the batch adds.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds {
    streams: BTreeMap<StreamId, BTreeMap<Offset, HoldState>>,
}

impl Holds {
    pub(super) fn of(rows: Vec<Hold>) -> Self {
        let mut holds = Self::default();
        for row in rows {
            holds.set(&row.stream, row.first_offset, row.state);
        }
        holds
    }

    /// Whether something stands before a strict command.
    pub(super) fn holds_up(&self, stream: &StreamId, first_offset: Offset) -> bool {
        let rows = self.streams.get(stream);
        rows.is_some_and(|rows| rows.range(..first_offset).next().is_some())
    }

    pub(super) fn set(&mut self, stream: &StreamId, first_offset: Offset, state: HoldState) {
        self.streams.entry(stream.clone()).or_default().insert(first_offset, state);
    }

    /// Removes a command's row; whether it had one.
    pub(super) fn remove(&mut self, stream: &StreamId, first_offset: Offset) -> bool {
        let rows = self.streams.get_mut(stream);
        rows.is_some_and(|rows| rows.remove(&first_offset).is_some())
    }
}

/// The streams whose rows must be known: those of strict commands, and of commands that come back
/// and may have a row of their own. Usually there are none, and nothing is asked.
pub(super) fn streams_to_ask(registry: &Registry, runs: &[Run]) -> Vec<(Partition, StreamId)> {
    let mut streams = BTreeSet::new();
    for run in runs {
        for entry in &run.entries {
            let command = &entry.command;
            let comes_back = command.first_offset.is_some() || command.attempt > Attempt::FIRST;
            if comes_back || registry.is_strict(&command.command_type) {
                streams.insert((run.partition, command.stream.clone()));
            }
        }
    }
    streams.into_iter().collect()
}
