//! Asks the store for all who wait for commands.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::broadcast;

use super::{
    command::Told,
    pace::Pace,
    waiting::{Questions, Shared},
};
use crate::{
    message::{CommandId, GroupName, Offset, Partition},
    signals::Signals,
    store::{CommandProgress, CommandRecord, Store, StoreError},
};

/// How many commands are asked for in one query.
const CHUNK: usize = 500;
/// How many whole commands, payloads (at most 256 KiB, unless configured) included, are read in one.
const RECORDS: usize = 64;

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<dyn Store>,
    pub(super) signals: Signals,
    pub(super) tell: fn(&CommandRecord) -> Result<Told, serde_json::Error>,
}

impl Task {
    pub(super) async fn run(self) {
        loop {
            // While nobody waits, no hint is listened to.
            while self.shared.is_idle() {
                self.shared.changed.notified().await;
            }
            self.serve().await;
        }
    }

    /// Serves until nobody waits.
    async fn serve(&self) {
        let mut hints = self.signals.watch_ended();
        let mut pace = Pace::new();
        let mut progress = Checkpoints::default();
        // What was registered before the hints were listened to may have ended unheard.
        self.look(self.shared.all()).await;
        while !self.shared.is_idle() {
            let hinted = tokio::select! {
                hint = hints.recv() => match hint {
                    Ok(ids) => self.shared.of_ids(&drain(&mut hints, ids.to_vec())),
                    // Missed some: poll.
                    Err(_) => self.shared.all(),
                },
                () = self.shared.changed.notified() => {
                    pace.quicken();
                    self.shared.unseen()
                }
                () = tokio::time::sleep_until(pace.next()) => Questions::default(),
            };
            self.look(hinted).await;
            if !pace.is_due() {
                continue;
            }
            if pace.is_sweep_due() {
                let all = self.shared.all();
                let asked = all.len();
                let found = self.look(all).await;
                pace.swept(found, asked);
            } else {
                let moved = self.shared.of_partitions(&progress.moved(&*self.store).await);
                let asked = moved.len();
                let found = self.look(moved).await;
                pace.peeked(found, asked);
            }
        }
    }

    /// Asks the store for these and tells who waits; whether anything had happened.
    async fn look(&self, questions: Questions) -> bool {
        let mut found = false;
        for chunk in questions.outcomes.chunks(CHUNK) {
            match self.store.outcomes(chunk).await {
                Ok(ended) => {
                    found |= !ended.is_empty();
                    self.shared.finish(ended);
                }
                Err(error) => later(&error),
            }
        }
        for chunk in questions.statuses.chunks(CHUNK) {
            match self.store.statuses(chunk).await {
                Ok(statuses) => {
                    let changed = self.shared.changed_of(&statuses);
                    found |= !changed.is_empty();
                    self.tell(changed).await;
                }
                Err(error) => later(&error),
            }
        }
        found
    }

    /// Reads the commands that changed and tells their watchers.
    async fn tell(&self, changed: Vec<(CommandId, CommandProgress)>) {
        for chunk in changed.chunks(RECORDS) {
            let ids: Vec<_> = chunk.iter().map(|(id, _)| *id).collect();
            let reading = self.shared.reading();
            let records = match self.store.commands_with_ids(&ids).await {
                Ok(records) => records,
                Err(error) => {
                    later(&error);
                    continue;
                }
            };
            for (id, progress) in chunk {
                let record = records.iter().find(|record| record.id == *id);
                match record.map(self.tell) {
                    Some(Ok(told)) => self.shared.tell(*id, *progress, reading, told),
                    Some(Err(error)) => {
                        tracing::error!(%error, command = %id, "a command cannot be told");
                        self.shared.end_watching(*id);
                    }
                    None => self.shared.end_watching(*id),
                }
            }
        }
    }
}

/// The next poll asks again.
fn later(error: &StoreError) {
    tracing::debug!(%error, "commands that are waited for could not be read");
}

/// How far the partitions were executed when they were looked at last. Where nothing moves, most
/// likely nothing has happened to a command either: a sweep, less often, finds what did.
#[derive(Default)]
struct Checkpoints(Vec<Offset>);

impl Checkpoints {
    /// The partitions that have moved since the last call.
    async fn moved(&mut self, store: &dyn Store) -> BTreeSet<Partition> {
        let now = match store.checkpoints(&GroupName::commands()).await {
            Ok(now) => now,
            Err(error) => {
                later(&error);
                return BTreeSet::new();
            }
        };
        let before = std::mem::replace(&mut self.0, now);
        let pairs = (0_i16..).zip(&self.0);
        pairs
            .filter(|(partition, now)| before.get(*partition as usize) != Some(*now))
            .map(|(partition, _)| Partition(partition))
            .collect()
    }
}

/// Further hints that are there already, so that they share the query.
fn drain(
    hints: &mut broadcast::Receiver<Arc<[CommandId]>>,
    mut ids: Vec<CommandId>,
) -> Vec<CommandId> {
    while let Ok(more) = hints.try_recv() {
        ids.extend_from_slice(&more);
    }
    ids
}
