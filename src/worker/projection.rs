//! The projection worker's handler: folds runs into documents and moves the checkpoint in the same
//! transaction (law 3).
//!
//! Documents of scope `Stream` are fed by one partition only, so the checkpoint's compare-and-set
//! fences them and what was written last may be remembered; documents of scope `Shared` are locked,
//! folded and written inside the transaction.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use moka::sync::Cache;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{GroupHandler, HandlerRun};
use crate::{
    domain::{
        Document, EventRecord, Fold, ProjectionType, Registry, Scope, StoredEvent, key_that_is_none,
    },
    execute::{RetryPolicy, RunEnd},
    message::{GroupName, Offset, Partition, Position},
    signals::{Applied, Signals},
    store::{
        CheckpointMove, DocumentRow, DocumentWrite, Entry, EventEntry, Fence, FoldRequest, Store,
        StoreError, ViewCommit,
    },
};

/// Maintains one view.
pub struct ProjectionHandler {
    registry: Arc<Registry>,
    projection: Arc<dyn ProjectionType>,
    group: GroupName,
    store: Arc<dyn Store>,
    signals: Signals,
    /// Documents of scope `Stream` as they were written last.
    remembered: Cache<String, Remembered>,
    /// Counts how often each partition's loop started; what was remembered before is void.
    starts: Mutex<HashMap<Partition, u64>>,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Remembered {
    partition: Partition,
    start: u64,
    row: Arc<DocumentRow>,
}

/// How often a transaction that the server rolls back is tried before its batch is split.
const MOST_ROLLBACKS: u32 = 8;

/// Bookkeeping of a remembered document.
const ENTRY_OVERHEAD: usize = 256;

impl ProjectionHandler {
    /// A handler for this projection that remembers at most `cache_bytes` of documents.
    pub fn new(
        registry: Arc<Registry>,
        projection: Arc<dyn ProjectionType>,
        store: Arc<dyn Store>,
        signals: Signals,
        cache_bytes: u64,
        stop: CancellationToken,
    ) -> Self {
        let weigh = |key: &String, remembered: &Remembered| {
            let value = remembered.row.value.as_ref().map_or(0, |value| value.as_str().len());
            u32::try_from(2 * key.len() + value + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        Self {
            group: GroupName::projection(projection.name()),
            remembered: Cache::builder().max_capacity(cache_bytes).weigher(weigh).build(),
            starts: Mutex::default(),
            registry,
            projection,
            store,
            signals,
            stop,
        }
    }

    /// All runs in one transaction, tried until it took place or cannot.
    async fn apply_together(&self, runs: &[HandlerRun]) -> Result<(), Trouble> {
        let started = Instant::now();
        let touched = self.touched(runs)?;
        let mut delays = RetryPolicy::forever().start();
        let mut rolled_back = 0;
        loop {
            let result = match self.projection.scope() {
                Scope::Stream => self.apply_streams(runs, &touched).await,
                Scope::Shared => self.apply_shared(runs, &touched).await,
            };
            match result {
                Ok(()) => break,
                Err(Trouble::Store(error))
                    if error.is_retryable() || matches!(error, StoreError::Unknown(_)) =>
                {
                    // After a lost reply to COMMIT the compare-and-set tells whether it took place.
                    self.forget(&touched);
                    // The server answers, but rolls back again and again: not all need suffer.
                    rolled_back += u32::from(matches!(error, StoreError::Transient(_)));
                    if rolled_back > MOST_ROLLBACKS {
                        return Err(error.into());
                    }
                    let Some(delay) = delays.next_delay() else { return Err(error.into()) };
                    tracing::warn!(group = %self.group, %error, ?delay, "the batch is tried again");
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Err(error.into()),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
                Err(trouble) => {
                    self.forget(&touched);
                    return Err(trouble);
                }
            }
        }
        let group = self.group.to_string();
        metrics::histogram!("adjutant_projection_commit_seconds", "group" => group.clone())
            .record(started.elapsed().as_secs_f64());
        metrics::histogram!("adjutant_projection_batch_documents", "group" => group)
            .record(touched.keys.len() as f64);
        self.signals.checkpoints_moved(self.moved(runs));
        Ok(())
    }

    async fn apply_streams(&self, runs: &[HandlerRun], touched: &Touched) -> Result<(), Trouble> {
        let mut rows: Vec<Option<Arc<DocumentRow>>> = touched
            .keys
            .iter()
            .zip(&touched.partitions)
            .map(|(key, partition)| self.recall(key, *partition))
            .collect();
        let missing: Vec<String> = touched
            .keys
            .iter()
            .zip(&rows)
            .filter(|(_, row)| row.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        let loaded = self.store.load_documents(self.projection.name(), &missing).await?;
        let mut loaded = loaded.into_iter().map(Arc::new);
        for row in rows.iter_mut().filter(|row| row.is_none()) {
            *row = loaded.next();
        }
        let rows: Vec<Arc<DocumentRow>> = rows.into_iter().flatten().collect();
        let documents = self.fold(touched, rows.iter().map(Arc::as_ref))?;
        let commit = ViewCommit {
            view: self.projection.name().to_owned(),
            documents: documents.clone(),
            checkpoints: self.checkpoint_moves(runs),
        };
        self.store.commit_view(commit).await?;
        for document in documents {
            self.remember(document);
        }
        Ok(())
    }

    async fn apply_shared(&self, runs: &[HandlerRun], touched: &Touched) -> Result<(), Trouble> {
        let request = FoldRequest {
            view: self.projection.name().to_owned(),
            keys: touched.keys.clone(),
            checkpoints: self.checkpoint_moves(runs),
        };
        let mut failed = None;
        let fold = |rows: Vec<DocumentRow>| {
            self.fold(touched, rows.iter()).map_err(|trouble| match trouble {
                Trouble::Store(error) => error,
                Trouble::Event(bad) => {
                    let error = StoreError::Internal(bad.reason.clone());
                    failed = Some(bad);
                    error
                }
            })
        };
        let result = self.store.fold_shared(request, Box::new(fold)).await;
        match failed {
            Some(bad) => Err(Trouble::Event(bad)),
            None => Ok(result?),
        }
    }

    /// The documents that the runs' events touch.
    fn touched(&self, runs: &[HandlerRun]) -> Result<Touched, Trouble> {
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
    fn fold<'a>(
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

    fn checkpoint_moves(&self, runs: &[HandlerRun]) -> Vec<CheckpointMove> {
        let mut moves: Vec<CheckpointMove> = self
            .moved(runs)
            .into_iter()
            .zip(runs)
            .map(|(applied, run)| CheckpointMove {
                group: applied.group,
                partition: run.partition,
                from: run.checkpoint,
                to: applied.offset,
            })
            .collect();
        moves.sort_by_key(|moved| moved.partition);
        moves
    }

    fn moved(&self, runs: &[HandlerRun]) -> Vec<Applied> {
        runs.iter()
            .map(|run| Applied {
                group: self.group.clone(),
                partition: run.partition,
                offset: run.checkpoint.plus(run.entries.len()),
            })
            .collect()
    }

    /// What was written last, if this process's chain of checkpoint moves is unbroken since.
    fn recall(&self, key: &String, partition: Partition) -> Option<Arc<DocumentRow>> {
        let remembered = self.remembered.get(key)?;
        let current =
            remembered.partition == partition && remembered.start == self.start(partition);
        current.then_some(remembered.row)
    }

    fn remember(&self, document: DocumentWrite) {
        let Some(partition) = document.partition else { return };
        let start = self.start(partition);
        let row = DocumentRow {
            key: document.key.clone(),
            version: document.version,
            value: document.value,
            as_of: document.as_of,
        };
        self.remembered.insert(document.key, Remembered { partition, start, row: Arc::new(row) });
    }

    fn forget(&self, touched: &Touched) {
        for key in &touched.keys {
            self.remembered.invalidate(key);
        }
    }

    fn start(&self, partition: Partition) -> u64 {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.get(&partition).copied().unwrap_or_default()
    }

    /// One partition that failed together with others, or alone.
    async fn apply_alone(&self, run: HandlerRun) -> RunEnd {
        match self.apply_together(std::slice::from_ref(&run)).await {
            Ok(()) => RunEnd::Done,
            Err(Trouble::Event(bad)) => self.apply_up_to(run, bad).await,
            Err(Trouble::Store(StoreError::Fenced(Fence::Checkpoint))) => RunEnd::Fenced,
            Err(Trouble::Store(StoreError::Fenced(Fence::NotInLog))) => RunEnd::NotInLog,
            Err(Trouble::Store(error)) => RunEnd::Failed(error),
        }
    }

    /// Applies what stands before the bad event, so that only that event is in the way.
    async fn apply_up_to(&self, mut run: HandlerRun, bad: BadEvent) -> RunEnd {
        run.entries.retain(|entry| entry.offset() < bad.offset);
        if !run.entries.is_empty()
            && let Err(trouble) = self.apply_together(std::slice::from_ref(&run)).await
        {
            tracing::debug!(group = %self.group, ?trouble, "the events before the bad one failed, too");
        }
        let position = Position { partition: run.partition, offset: bad.offset };
        RunEnd::Failed(StoreError::Corrupt(format!(
            "projection `{}` cannot apply the event at {position}: {}",
            self.projection.name(),
            bad.reason
        )))
    }
}

#[async_trait]
impl GroupHandler for ProjectionHandler {
    async fn handle(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd> {
        match self.apply_together(&runs).await {
            Ok(()) => runs.iter().map(|_| RunEnd::Done).collect(),
            Err(trouble) => {
                tracing::debug!(group = %self.group, ?trouble, "batch failed; trying each partition alone");
                let mut ends = Vec::with_capacity(runs.len());
                for run in runs {
                    ends.push(self.apply_alone(run).await);
                }
                ends
            }
        }
    }

    fn partition_starts(&self, partition: Partition) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        *starts.entry(partition).or_default() += 1;
    }
}

/// What the events of a batch touch.
struct Touched {
    /// The documents, sorted by key.
    keys: Vec<String>,
    /// For each, the partition whose events touch it (the last one, if there are several).
    partitions: Vec<Partition>,
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
struct BadEvent {
    #[allow(dead_code, reason = "shown by Debug")]
    run: usize,
    offset: Offset,
    reason: String,
}

#[derive(Debug)]
enum Trouble {
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
