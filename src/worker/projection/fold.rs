//! The pure part: which documents a batch of events touches, and what becomes of them. User code is
//! called here, and a panic of it is an error that names the event.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    domain::{
        Document, EventRecord, Fold, ProjectionType, Registry, Scope, StoredEvent, key_that_is_none,
    },
    message::{GroupName, Offset, Partition, Position},
    store::{DocumentRow, DocumentWrite, Entry, EventEntry, StoreError},
};

use super::HandlerRun;

/// Folds the events of one projection.
pub(super) struct Folder {
    pub(super) registry: Arc<Registry>,
    pub(super) projection: Arc<dyn ProjectionType>,
    pub(super) group: GroupName,
}

impl Folder {
    /// The documents that the runs' events touch.
    pub(super) fn touched(&self, runs: &[HandlerRun]) -> Result<Touched, Trouble> {
        let mut keys: BTreeMap<String, Partition> = BTreeMap::new();
        let mut folds = Vec::new();
        for (run, entries) in runs.iter().enumerate() {
            for entry in &entries.entries {
                let Entry::Event(entry) = entry else { continue };
                if !self.projection.wants(&entry.event.event_type) {
                    continue;
                }
                let bad = |reason: String| BadEvent { run, offset: entry.offset, reason };
                let event = self.record(entries.partition, entry).map_err(bad)?;
                let touched = catch_unwind(AssertUnwindSafe(|| self.projection.keys(&event)))
                    .map_err(|_| bad("`keys` panicked".to_owned()))?;
                if let Some(reason) = key_that_is_none(&touched) {
                    return Err(bad(reason).into());
                }
                for key in &touched {
                    let fed_by = keys.insert(key.clone(), entries.partition);
                    let scope = self.projection.scope();
                    let refused =
                        fed_by.and_then(|fed_by| scope.refuses(key, fed_by, entries.partition));
                    if let Some(reason) = refused {
                        return Err(bad(reason).into());
                    }
                }
                folds.push((run, event, touched));
            }
        }
        let (keys, partitions): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        let places: HashMap<&String, usize> = keys.iter().zip(0..).collect();
        let folds = folds
            .into_iter()
            .map(|(run, event, touched)| {
                let documents = touched.iter().filter_map(|key| places.get(key).copied()).collect();
                EventFold { run, event, documents }
            })
            .collect();
        Ok(Touched { keys, partitions, folds })
    }

    fn record(&self, partition: Partition, entry: &EventEntry) -> Result<EventRecord, String> {
        let event = &entry.event;
        let stored = StoredEvent {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: &event.data,
        };
        Ok(EventRecord {
            decoded: catch_unwind(AssertUnwindSafe(|| self.registry.decode_event(&stored)))
                .map_err(|_| "decoding it panicked".to_owned())?
                .map_err(|error| error.to_string())?,
            stream: event.stream.clone(),
            version: event.version,
            position: Position { partition, offset: entry.offset },
            recorded_at: entry.recorded_at,
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            data: event.data.clone(),
            command_id: event.command_id,
            metadata: event.metadata.clone(),
        })
    }

    /// Folds every event into its documents, in order; answers the documents that changed.
    pub(super) fn fold<'a>(
        &self,
        touched: &Touched,
        rows: impl Iterator<Item = &'a DocumentRow>,
    ) -> Result<Vec<DocumentWrite>, Trouble> {
        let unreadable = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
        let mut folded = rows
            .map(|row| {
                let read = || self.projection.read(row.value.as_ref());
                let document = catch_unwind(AssertUnwindSafe(read))
                    .map_err(|_| panicked("reading", &row.key))?
                    .map_err(unreadable)?;
                Ok(Folding { row, document, changes: 0, as_of: BTreeMap::new() })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        for fold in &touched.folds {
            for place in &fold.documents {
                let Some(folding) = folded.get_mut(*place) else { continue };
                self.apply(folding, fold)?;
            }
        }
        let shared = self.projection.scope() == Scope::Shared;
        let mut writes = Vec::new();
        for (folding, partition) in folded.into_iter().zip(&touched.partitions) {
            // A row that was inserted empty in this transaction and stays empty is left as it is.
            if folding.changes == 0 {
                continue;
            }
            let write = || self.projection.write(&folding.document);
            let value = catch_unwind(AssertUnwindSafe(write))
                .map_err(|_| panicked("writing", &folding.row.key))?;
            let mut as_of: BTreeMap<Partition, Offset> =
                folding.row.as_of.iter().map(|p| (p.partition, p.offset)).collect();
            as_of.extend(folding.as_of);
            writes.push(DocumentWrite {
                key: folding.row.key.clone(),
                version: folding.row.version + folding.changes,
                value: value.map_err(|error| StoreError::Unstorable(error.to_string()))?,
                as_of: as_of
                    .into_iter()
                    .map(|(partition, offset)| Position { partition, offset })
                    .collect(),
                partition: (!shared).then_some(*partition),
            });
        }
        Ok(writes)
    }

    fn apply(&self, folding: &mut Folding<'_>, fold: &EventFold) -> Result<(), Trouble> {
        let event = &fold.event;
        let bad = |reason| BadEvent { run: fold.run, offset: event.position.offset, reason };
        let document = &mut folding.document;
        let applied = catch_unwind(AssertUnwindSafe(|| {
            self.projection.apply(&folding.row.key, document, event)
        }));
        let applied = applied.map_err(|_| bad("`apply` panicked".to_owned()))?;
        if applied.map_err(|error| bad(error.to_string()))? == Fold::Changed {
            folding.changes += 1;
        }
        folding.as_of.insert(event.position.partition, event.position.offset);
        tracing::debug!(
            group = %self.group, key = folding.row.key, position = %event.position,
            trace_id = event.metadata.trace_id(), "event applied"
        );
        Ok(())
    }
}

/// What the events of a batch touch.
pub(super) struct Touched {
    /// The documents, sorted by key.
    pub(super) keys: Vec<String>,
    /// For each, the partition whose events touch it (the last one, if there are several).
    pub(super) partitions: Vec<Partition>,
    folds: Vec<EventFold>,
}

struct EventFold {
    run: usize,
    event: EventRecord,
    /// Places in [`Touched::keys`].
    documents: Vec<usize>,
}

struct Folding<'a> {
    row: &'a DocumentRow,
    document: Document,
    changes: i64,
    as_of: BTreeMap<Partition, Offset>,
}

fn panicked(what: &str, key: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} the document `{key}` panicked"))
}

/// An event that cannot be applied.
#[derive(Debug)]
pub(super) struct BadEvent {
    #[allow(dead_code, reason = "shown by Debug")]
    run: usize,
    pub(super) offset: Offset,
    pub(super) reason: String,
}

#[derive(Debug)]
pub(super) enum Trouble {
    Event(BadEvent),
    Store(StoreError),
}

impl From<BadEvent> for Trouble {
    fn from(bad: BadEvent) -> Self {
        Self::Event(bad)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
