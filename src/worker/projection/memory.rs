//! Documents of scope `Stream` as they were written last. They are fed by one partition only, whose
//! checkpoint's compare-and-set fences them: what is remembered holds for as long as this process's
//! chain of checkpoint moves is unbroken.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use moka::sync::Cache;

use crate::{
    message::Partition,
    store::{DocumentRow, DocumentWrite},
};

/// Bookkeeping of a remembered document.
const ENTRY_OVERHEAD: usize = 256;

pub(super) struct Memory {
    documents: Cache<String, Remembered>,
    /// Counts how often each partition's loop started; what was remembered before is void.
    starts: Mutex<HashMap<Partition, u64>>,
}

#[derive(Clone)]
struct Remembered {
    partition: Partition,
    start: u64,
    row: Arc<DocumentRow>,
}

impl Memory {
    /// Of at most so many bytes.
    pub(super) fn with_limit(bytes: u64) -> Self {
        let weigh = |key: &String, remembered: &Remembered| {
            let value = remembered.row.value.as_ref().map_or(0, |value| value.as_str().len());
            u32::try_from(2 * key.len() + value + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        Self {
            documents: Cache::builder().max_capacity(bytes).weigher(weigh).build(),
            starts: Mutex::default(),
        }
    }

    /// What was written last, if no other process may have written since.
    pub(super) fn recall(&self, key: &String, partition: Partition) -> Option<Arc<DocumentRow>> {
        let remembered = self.documents.get(key)?;
        let current =
            remembered.partition == partition && remembered.start == self.start(partition);
        current.then_some(remembered.row)
    }

    pub(super) fn remember(&self, document: DocumentWrite) {
        let Some(partition) = document.partition else { return };
        let start = self.start(partition);
        let row = DocumentRow {
            key: document.key.clone(),
            version: document.version,
            value: document.value,
            as_of: document.as_of,
            parked: None,
        };
        self.documents.insert(document.key, Remembered { partition, start, row: Arc::new(row) });
    }

    pub(super) fn forget(&self, keys: &[String]) {
        for key in keys {
            self.documents.invalidate(key);
        }
    }

    /// The partition's loop starts (again).
    pub(super) fn starts(&self, partition: Partition) {
        if planted!(MemoryOutlivesOwnership) {
            return;
        }
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        *starts.entry(partition).or_default() += 1;
    }

    fn start(&self, partition: Partition) -> u64 {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.get(&partition).copied().unwrap_or_default()
    }
}
