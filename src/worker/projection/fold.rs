//! The pure part: which documents a batch of events touches, and what becomes of them. User code is
//! called here, and a panic of it is an error that names the event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    HandlerRun,
    trouble::{BadEvent, Blame, Fault, Trouble, Verdict},
};
use crate::{
    domain::{
        Document, EventRecord, Fold, ProjectionType, Registry, Scope, StoredEvent, key_that_is_none,
    },
    message::{GroupName, Offset, Partition, Position, StreamId},
    store::{
        DocumentRow, DocumentWrite, Entry, EventEntry, EventFailure, Folded, KeyScope,
        NewParkedKey, ParkedReference,
    },
};

/// Folds the events of one projection.
pub(super) struct Folder {
    pub(super) registry: Arc<Registry>,
    pub(super) projection: Arc<dyn ProjectionType>,
    pub(super) group: GroupName,
}

/// What is known of a batch before it is looked at.
#[derive(Default)]
pub(super) struct Terms<'a> {
    /// Streams that are parked: their events are passed.
    pub(super) parked: HashSet<StreamId>,
    /// What to park for the batch's only event.
    pub(super) verdict: Option<&'a Verdict>,
    /// The document that is replayed; no other is touched.
    pub(super) only: Option<&'a str>,
}

impl Folder {
    /// The documents that the runs' events touch.
    pub(super) fn touched(
        &self,
        runs: &[HandlerRun],
        terms: &Terms<'_>,
    ) -> Result<Touched, Trouble> {
        let mut keys: BTreeMap<String, Partition> = BTreeMap::new();
        let mut events = Vec::new();
        let (mut passed, mut parked) = (BTreeSet::new(), Vec::new());
        for (partition, entry) in entries(runs) {
            let position = Position { partition, offset: entry.offset };
            if !self.projection.wants(&entry.event.event_type) {
                continue;
            }
            if terms.parked.contains(&entry.event.stream) {
                passed.insert(entry.event.stream.clone());
                continue;
            }
            if let Some(key) = self.parked_stream(terms.verdict, entry, position) {
                parked.push(key);
                continue;
            }
            let (event, mut touched) = self.look_at(entry, position)?;
            if let Some(only) = terms.only {
                touched.retain(|key| key == only);
            }
            for key in &touched {
                let fed_by = keys.insert(key.clone(), partition);
                let scope = self.projection.scope();
                let refused = fed_by.and_then(|fed_by| scope.refuses(key, fed_by, partition));
                if let Some(reason) = refused {
                    let fault = Fault::lasting(Blame::AnyDocument, "scope_violated", reason);
                    return Err(fault.at(position).into());
                }
            }
            let failure =
                |verdict: &Verdict, fault: &Fault| verdict.failure(fault, entry, position);
            let verdict = terms.verdict.map(|verdict| {
                let parked = touched.iter().filter_map(|key| {
                    Some((key.clone(), failure(verdict, verdict.on_document(key)?)))
                });
                parked.collect::<BTreeMap<_, _>>()
            });
            events.push((event, touched, verdict.unwrap_or_default()));
        }
        if let Some(only) = terms.only {
            // Its row is the fence, whether an event touches it or not.
            let partition = runs.first().map_or(Partition(0), |run| run.partition);
            keys.entry(only.to_owned()).or_insert(partition);
        }
        let (keys, partitions): (Vec<_>, Vec<_>) = keys.into_iter().unzip();
        let places: HashMap<&String, usize> = keys.iter().zip(0..).collect();
        let folds = events
            .into_iter()
            .map(|(event, touched, parked)| {
                let documents = touched.iter().filter_map(|key| places.get(key).copied()).collect();
                EventFold { event, documents, parked }
            })
            .collect();
        let only = terms.only.map(str::to_owned);
        let passed = passed.into_iter().collect();
        Ok(Touched { keys, partitions, passed, parked, folds, only })
    }

    /// The event, and the keys of its documents.
    fn look_at(
        &self,
        entry: &EventEntry,
        position: Position,
    ) -> Result<(EventRecord, Vec<String>), BadEvent> {
        let event = self.record(entry, position).map_err(|fault| fault.at(position))?;
        let keys = catch_unwind(AssertUnwindSafe(|| self.projection.keys(&event)));
        let keys = keys.map_err(|panic| {
            Fault::panicked(Blame::Stream, "`keys`", panic.as_ref()).at(position)
        })?;
        match key_that_is_none(&keys) {
            None => Ok((event, keys)),
            Some(reason) => Err(Fault::lasting(Blame::Stream, "key_invalid", reason).at(position)),
        }
    }

    /// The event's stream, if the verdict parks it: always where documents are of one stream.
    fn parked_stream(
        &self,
        verdict: Option<&Verdict>,
        entry: &EventEntry,
        position: Position,
    ) -> Option<NewParkedKey> {
        let verdict = verdict?;
        let fault = verdict.on_stream(self.projection.scope() == Scope::Stream)?;
        // Documents that are known to lag behind are marked; nothing depends on it. What is wrong
        // with the stream itself may be in what would be asked here.
        let known = self.projection.scope() == Scope::Stream && fault.blame != Blame::Stream;
        let documents = match known.then(|| self.look_at(entry, position)) {
            Some(Ok((_, keys))) => keys,
            Some(Err(_)) | None => Vec::new(),
        };
        let documents: BTreeSet<String> = documents.into_iter().collect();
        Some(NewParkedKey {
            scope: KeyScope::Stream,
            key: entry.event.stream.as_str().to_owned(),
            documents: documents.into_iter().collect(),
            failure: verdict.failure(fault, entry, position),
        })
    }

    fn record(&self, entry: &EventEntry, position: Position) -> Result<EventRecord, Fault> {
        let event = &entry.event;
        let stored = StoredEvent {
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: &event.data,
        };
        let unreadable = |reason: String| Fault::lasting(Blame::Stream, "event_unreadable", reason);
        Ok(EventRecord {
            decoded: catch_unwind(AssertUnwindSafe(|| self.registry.decode_event(&stored)))
                .map_err(|panic| Fault::panicked(Blame::Stream, "decoding it", panic.as_ref()))?
                .map_err(|error| unreadable(error.to_string()))?,
            stream: event.stream.clone(),
            version: event.version,
            position,
            recorded_at: entry.recorded_at,
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            data: event.data.clone(),
            command_id: event.command_id,
            metadata: event.metadata.clone(),
        })
    }

    /// Folds every event into its documents, in order; answers the documents that changed. Events of
    /// a shared document that is parked, or is to be, become references.
    pub(super) fn fold<'a>(
        &self,
        touched: &Touched,
        rows: impl Iterator<Item = &'a DocumentRow>,
    ) -> Result<Folded, Trouble> {
        let folding = |row| Folding { row, document: None, changes: 0, as_of: BTreeMap::new() };
        let mut foldings: Vec<Folding<'_>> = rows.map(folding).collect();
        let mut folded = Folded { parked: touched.parked.clone(), ..Folded::default() };
        let mut references = BTreeSet::new();
        for fold in &touched.folds {
            for place in &fold.documents {
                let Some(folding) = foldings.get_mut(*place) else { continue };
                let key = &folding.row.key;
                let is_parked = self.waits(folding.row, touched);
                if let Some(failure) = fold.parked.get(key).filter(|_| !is_parked) {
                    let new = || NewParkedKey {
                        scope: KeyScope::Document,
                        key: key.clone(),
                        documents: vec![key.clone()],
                        failure: failure.clone(),
                    };
                    if folded.parked.iter().all(|parked| parked.key != *key) {
                        folded.parked.push(new());
                    }
                }
                if is_parked || fold.parked.contains_key(key) {
                    let position = fold.event.position;
                    references.insert(ParkedReference { key: key.clone(), position });
                    continue;
                }
                self.apply(folding, &fold.event)?;
            }
        }
        folded.references = references.into_iter().collect();
        let shared = self.projection.scope() == Scope::Shared;
        for (folding, partition) in foldings.into_iter().zip(&touched.partitions) {
            folded.documents.extend(self.write(folding, (!shared).then_some(*partition))?);
        }
        Ok(folded)
    }

    /// Whether a shared document's events wait.
    fn waits(&self, row: &DocumentRow, touched: &Touched) -> bool {
        self.projection.scope() == Scope::Shared
            && row.parked.is_some()
            && touched.only.as_ref() != Some(&row.key)
    }

    fn apply(&self, folding: &mut Folding<'_>, event: &EventRecord) -> Result<(), Trouble> {
        let key = &folding.row.key;
        let bad = |fault: Fault| fault.at(event.position);
        let blame = || Blame::Document(key.clone());
        let document = if let Some(document) = &mut folding.document {
            document
        } else {
            let read = || self.projection.read(folding.row.value.as_ref());
            let read = catch_unwind(AssertUnwindSafe(read)).map_err(|panic| {
                bad(Fault::panicked(blame(), "reading the document", panic.as_ref()))
            })?;
            let read = read.map_err(|error| {
                let reason = format!("the document `{key}` cannot be read: {error}");
                bad(Fault::lasting(blame(), "document_unreadable", reason))
            })?;
            folding.document.insert(read)
        };
        let apply = || self.projection.apply(key, document, event);
        let applied = catch_unwind(AssertUnwindSafe(apply))
            .map_err(|panic| bad(Fault::panicked(blame(), "`apply`", panic.as_ref())))?;
        if applied.map_err(|error| bad(Fault::told(blame(), &error)))? == Fold::Changed {
            folding.changes += 1;
        }
        folding.as_of.insert(event.position.partition, event.position.offset);
        tracing::debug!(
            group = %self.group, key, position = %event.position,
            trace_id = event.metadata.trace_id(), "event applied"
        );
        Ok(())
    }

    /// The document as it is to be stored; `None`: it stays as it is.
    fn write(
        &self,
        folding: Folding<'_>,
        partition: Option<Partition>,
    ) -> Result<Option<DocumentWrite>, Trouble> {
        // A row that was inserted empty in this transaction and stays empty is left as it is.
        let Some(document) = folding.document.filter(|_| folding.changes > 0) else {
            return Ok(None);
        };
        let key = &folding.row.key;
        let blame = || Blame::Document(key.clone());
        let value = catch_unwind(AssertUnwindSafe(|| self.projection.write(&document)))
            .map_err(|panic| Fault::panicked(blame(), "writing the document", panic.as_ref()))
            .and_then(|value| {
                value.map_err(|error| {
                    let reason = format!("the document `{key}` cannot be written: {error}");
                    Fault::lasting(blame(), "document_unstorable", reason)
                })
            });
        let mut as_of: BTreeMap<Partition, Offset> =
            folding.row.as_of.iter().map(|p| (p.partition, p.offset)).collect();
        for (partition, offset) in folding.as_of {
            let last = as_of.entry(partition).or_default();
            *last = offset.max(*last);
        }
        let position = |(partition, offset)| Position { partition, offset };
        Ok(Some(DocumentWrite {
            key: key.clone(),
            version: folding.row.version + folding.changes,
            value: value.map_err(Trouble::Value)?,
            as_of: as_of.into_iter().map(position).collect(),
            partition,
        }))
    }
}

fn entries(runs: &[HandlerRun]) -> impl Iterator<Item = (Partition, &EventEntry)> {
    runs.iter().flat_map(|run| {
        run.entries.iter().filter_map(|entry| match entry {
            Entry::Event(entry) => Some((run.partition, entry)),
            Entry::Command(_) => None,
        })
    })
}

/// What the events of a batch touch.
pub(super) struct Touched {
    /// The documents, sorted by key.
    pub(super) keys: Vec<String>,
    /// For each, the partition whose events touch it (the last one, if there are several).
    pub(super) partitions: Vec<Partition>,
    /// Streams that are parked, of which it passes events.
    pub(super) passed: Vec<StreamId>,
    /// Streams that are parked with it.
    pub(super) parked: Vec<NewParkedKey>,
    folds: Vec<EventFold>,
    /// The document that is replayed.
    only: Option<String>,
}

impl Touched {
    /// The streams of the events that were applied to some document: not those that only wait.
    pub(super) fn streams_without(
        &self,
        waiting: &[ParkedReference],
    ) -> impl Iterator<Item = &StreamId> {
        let waiting: HashSet<(&str, Position)> =
            waiting.iter().map(|it| (it.key.as_str(), it.position)).collect();
        let applied = self.folds.iter().filter(move |fold| {
            let keys = fold.documents.iter().filter_map(|place| self.keys.get(*place));
            keys.into_iter().any(|key| !waiting.contains(&(key.as_str(), fold.event.position)))
        });
        let streams: BTreeSet<&StreamId> = applied.map(|fold| &fold.event.stream).collect();
        streams.into_iter()
    }
}

struct EventFold {
    event: EventRecord,
    /// Places in [`Touched::keys`].
    documents: Vec<usize>,
    /// Documents that are parked for it.
    parked: BTreeMap<String, EventFailure>,
}

struct Folding<'a> {
    row: &'a DocumentRow,
    /// Read when the first event comes.
    document: Option<Document>,
    changes: i64,
    as_of: BTreeMap<Partition, Offset>,
}
