//! Which streams are parked, as the loops of this process know it. It is read when a partition's loop
//! starts, behind its checkpoint: from then on only this process's chain of checkpoint moves parks
//! streams, and whether they still are is checked by the transaction that passes their events. Where
//! nothing is parked it costs a look into a map.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::HandlerRun;
use crate::{
    message::{GroupName, Partition, StreamId},
    store::{Entry, Store, StoreError},
};

pub(super) struct ParkedStreams {
    partitions: Mutex<HashMap<Partition, Known>>,
    /// How many of a partition are remembered; of more, each batch asks for its own.
    most: usize,
}

#[derive(Clone)]
enum Known {
    All(Arc<HashSet<StreamId>>),
    TooMany,
}

impl ParkedStreams {
    pub(super) fn remembering(most: usize) -> Self {
        Self { partitions: Mutex::default(), most }
    }

    /// The partition's loop starts (again).
    pub(super) fn forget(&self, partition: Partition) {
        self.lock().remove(&partition);
    }

    /// Whether documents of the partition may be remembered: if so, no stream of it is unparked
    /// without its loop hearing of it.
    pub(super) fn are_known(&self, partition: Partition) -> bool {
        matches!(self.lock().get(&partition), Some(Known::All(_)))
    }

    /// A stream was parked by the transaction that took place just now.
    pub(super) fn add(&self, partition: Partition, stream: StreamId) {
        let mut partitions = self.lock();
        let Some(known) = partitions.get_mut(&partition) else { return };
        if let Known::All(streams) = known {
            let streams = Arc::make_mut(streams);
            streams.insert(stream);
            if streams.len() > self.most {
                *known = Known::TooMany;
            }
        }
    }

    /// Those of the runs' streams that are parked.
    pub(super) async fn among(
        &self,
        store: &dyn Store,
        group: &GroupName,
        runs: &[HandlerRun],
    ) -> Result<HashSet<StreamId>, StoreError> {
        let mut found = HashSet::new();
        for run in runs {
            match self.known(store, group, run.partition).await? {
                Known::All(parked) if parked.is_empty() => {}
                Known::All(parked) => {
                    let is_parked = |stream: &&StreamId| parked.contains(*stream);
                    found.extend(streams(run).filter(is_parked).cloned());
                }
                Known::TooMany => {
                    let asked: BTreeSet<StreamId> = streams(run).cloned().collect();
                    let asked: Vec<StreamId> = asked.into_iter().collect();
                    found.extend(store.which_are_parked(group, &asked).await?);
                }
            }
        }
        Ok(found)
    }

    async fn known(
        &self,
        store: &dyn Store,
        group: &GroupName,
        partition: Partition,
    ) -> Result<Known, StoreError> {
        if let Some(known) = self.lock().get(&partition) {
            return Ok(known.clone());
        }
        let parked = store.parked_streams(group, partition, self.most.saturating_add(1)).await?;
        let known = if parked.len() > self.most {
            Known::TooMany
        } else {
            Known::All(Arc::new(parked.into_iter().collect()))
        };
        self.lock().insert(partition, known.clone());
        Ok(known)
    }

    /// No panic happens under this lock; if one did, the map would still be whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Partition, Known>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn streams(run: &HandlerRun) -> impl Iterator<Item = &StreamId> {
    run.entries.iter().filter_map(|entry| match entry {
        Entry::Event(entry) => Some(&entry.event.stream),
        Entry::Command(_) => None,
    })
}
