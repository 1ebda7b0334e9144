//! The projection worker's handler: folds runs into documents and moves the checkpoint in the same
//! transaction (law 3).
//!
//! Documents of scope `Stream` are fed by one partition only, so the checkpoint's compare-and-set
//! fences them and what was written last may be remembered; documents of scope `Shared` are locked,
//! folded and written inside the transaction.
//!
//! An event that cannot be applied parks its key in the transaction in which the checkpoint passes
//! it (`docs/adr/0004-parking.md`); `alone` finds the event, `replay` brings the key back. If no key
//! can go on, and for one reason, none is parked: the group pauses, and `probe` finds out when it
//! may go on.

mod alone;
mod fold;
mod memory;
mod parked;
mod probe;
mod replay;
mod trouble;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{GroupBreaker, GroupHandler, HandlerRun};
use crate::{
    domain::{ProjectionType, Registry, Scope},
    execute::{BreakerSettings, Retries, RetryPolicy, RunEnd},
    message::{GroupName, Partition},
    signals::{Applied, Signals},
    store::{
        CheckpointMove, DocumentRow, Fence, FoldRequest, Folded, KeyScope, NewParkedKey,
        ParkedReference, Store, StoreError, ViewCommit,
    },
};
use fold::{Folder, Terms, Touched};
use memory::Memory;
use parked::ParkedStreams;
pub(super) use replay::ReplayTerms;
use trouble::{Trouble, Verdict};

/// Maintains one view.
pub struct ProjectionHandler {
    folder: Folder,
    store: Arc<dyn Store>,
    signals: Signals,
    memory: Memory,
    parked: ParkedStreams,
    parking: ParkingSettings,
    breaker: Arc<GroupBreaker>,
    stop: CancellationToken,
}

/// When a key is parked, and how it is replayed.
#[derive(Clone, Copy, Debug)]
pub struct ParkingSettings {
    /// How often an event that fails is tried in all (at least once) before its key is parked; one
    /// whose failure is fatal is tried once.
    pub tries: u32,
    /// The waits between those tries. The group's other events wait meanwhile: keep it short.
    pub retry: RetryPolicy,
    /// How many parked streams are remembered per partition; of more, each batch asks for its own.
    pub remembered: usize,
    /// How often a worker looks for replays that were asked for.
    pub poll: std::time::Duration,
    /// How many events one transaction of a replay may carry.
    pub replay_batch: usize,
    /// When the group pauses instead of parking one key after the other. A try is a key, however
    /// often its event is tried.
    pub breaker: BreakerSettings,
}

impl Default for ParkingSettings {
    fn default() -> Self {
        Self {
            tries: 3,
            retry: RetryPolicy::within(std::time::Duration::from_secs(1)),
            remembered: 10_000,
            poll: std::time::Duration::from_secs(1),
            replay_batch: 256,
            breaker: BreakerSettings::default(),
        }
    }
}

/// How often a batch looks again at what is parked before its loop starts anew.
const MOST_LOOKS: u32 = 5;

/// How often a transaction that the server rolls back is tried before its batch is split.
const MOST_ROLLBACKS: u32 = 8;

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
        let group = GroupName::projection(projection.name());
        let parking = ParkingSettings::default();
        Self {
            breaker: Arc::new(GroupBreaker::new(group.clone(), parking.breaker)),
            folder: Folder { registry, projection, group },
            store,
            signals,
            memory: Memory::with_limit(cache_bytes),
            parked: ParkedStreams::remembering(parking.remembered),
            parking,
            stop,
        }
    }

    /// The same with other settings for parking.
    #[must_use]
    pub fn with_parking(self, parking: ParkingSettings) -> Self {
        let breaker = GroupBreaker::new(self.group().clone(), parking.breaker);
        let parked = ParkedStreams::remembering(parking.remembered);
        Self { parked, parking, breaker: Arc::new(breaker), ..self }
    }

    /// The group it works for.
    pub fn group(&self) -> &GroupName {
        &self.folder.group
    }

    /// Whether the group pauses.
    pub fn breaker(&self) -> &Arc<GroupBreaker> {
        &self.breaker
    }

    /// All runs in one transaction; if that cannot be, each alone.
    async fn apply_all(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd> {
        match self.apply(&runs, None).await {
            Ok(()) => runs.iter().map(|_| RunEnd::Done).collect(),
            Err(trouble) => {
                tracing::debug!(group = %self.folder.group, ?trouble, "batch failed; trying each partition alone");
                let mut ends = Vec::with_capacity(runs.len());
                for run in runs {
                    ends.push(match self.breaker.pause() {
                        None => self.apply_alone(run).await,
                        Some(pause) => RunEnd::Suspended { rest: run.entries, pause },
                    });
                }
                ends
            }
        }
    }

    /// All runs in one transaction, tried until it took place or cannot. A verdict says what is
    /// parked for the only event there is.
    async fn apply(&self, runs: &[HandlerRun], verdict: Option<&Verdict>) -> Result<(), Trouble> {
        let started = Instant::now();
        let mut patience = Patience::new(&self.stop);
        let mut looks = 0;
        let (touched, waiting) = loop {
            let (store, group) = (self.store.as_ref(), &self.folder.group);
            let parked = match self.parked.among(store, group, runs).await {
                Ok(parked) => parked,
                Err(error) => {
                    patience.wait(group, error).await?;
                    continue;
                }
            };
            let terms = Terms { parked, verdict, ..Terms::default() };
            let touched = self.folder.touched(runs, &terms)?;
            let result = match self.folder.projection.scope() {
                Scope::Stream => self.apply_streams(runs, &touched).await,
                Scope::Shared => self.apply_shared(runs, &touched).await,
            };
            match result {
                Ok(waiting) => break (touched, waiting),
                // A stream that was parked is so no longer. The checkpoint's compare-and-set still
                // says whether this is the owner: it only has to look again.
                Err(Trouble::Store(StoreError::Fenced(Fence::Parked))) if looks < MOST_LOOKS => {
                    looks += 1;
                    for run in runs {
                        self.partition_starts(run.partition);
                    }
                }
                // After a lost reply to COMMIT the compare-and-set tells whether it took place.
                Err(Trouble::Store(error)) => {
                    self.memory.forget(&touched.keys);
                    patience.wait(group, error).await?;
                }
                Err(trouble) => {
                    self.memory.forget(&touched.keys);
                    return Err(trouble);
                }
            }
        };
        self.tell_applied(runs, &touched, started);
        // What is parked with it would count as a success, too.
        if !self.breaker.is_calm() && verdict.is_none() {
            self.breaker.applied(touched.streams_without(&waiting));
        }
        Ok(())
    }

    fn tell_applied(&self, runs: &[HandlerRun], touched: &Touched, started: Instant) {
        let group = self.folder.group.to_string();
        metrics::histogram!("adjutant_projection_commit_seconds", "group" => group.clone())
            .record(started.elapsed().as_secs_f64());
        metrics::histogram!("adjutant_projection_batch_documents", "group" => group)
            .record(touched.keys.len() as f64);
        self.signals.checkpoints_moved(self.moved(runs));
    }

    /// Answers the events that wait for their documents.
    async fn apply_streams(
        &self,
        runs: &[HandlerRun],
        touched: &Touched,
    ) -> Result<Vec<ParkedReference>, Trouble> {
        let recall = |(key, partition): (&String, &Partition)| {
            let known = self.parked.are_known(*partition);
            known.then(|| self.memory.recall(key, *partition)).flatten()
        };
        let mut rows: Vec<Option<Arc<DocumentRow>>> =
            touched.keys.iter().zip(&touched.partitions).map(recall).collect();
        let missing: Vec<String> = touched
            .keys
            .iter()
            .zip(&rows)
            .filter(|(_, row)| row.is_none())
            .map(|(key, _)| key.clone())
            .collect();
        let loaded = self.store.load_documents(self.folder.projection.name(), &missing).await?;
        let mut loaded = loaded.into_iter().map(Arc::new);
        for row in rows.iter_mut().filter(|row| row.is_none()) {
            *row = loaded.next();
        }
        let rows: Vec<Arc<DocumentRow>> = rows.into_iter().flatten().collect();
        let folded = self.folder.fold(touched, rows.iter().map(Arc::as_ref))?;
        let commit = ViewCommit {
            view: self.folder.projection.name().to_owned(),
            documents: folded.documents.clone(),
            checkpoints: self.checkpoint_moves(runs),
            passed: touched.passed.clone(),
            parked: folded.parked.clone(),
        };
        self.store.commit_view(commit).await?;
        self.tell_parked(&folded.parked);
        for document in folded.documents {
            self.memory.remember(document);
        }
        Ok(folded.references)
    }

    /// Answers the events that wait for their documents.
    async fn apply_shared(
        &self,
        runs: &[HandlerRun],
        touched: &Touched,
    ) -> Result<Vec<ParkedReference>, Trouble> {
        let request = FoldRequest {
            view: self.folder.projection.name().to_owned(),
            keys: touched.keys.clone(),
            checkpoints: self.checkpoint_moves(runs),
            passed: touched.passed.clone(),
        };
        let (mut failed, mut parked, mut waiting) = (None, Vec::new(), Vec::new());
        let fold = |rows: Vec<DocumentRow>| {
            let folded = self.fold_locked(touched, &rows, &mut failed)?;
            parked.clone_from(&folded.parked);
            waiting.clone_from(&folded.references);
            Ok(folded)
        };
        let result = self.store.fold_shared(request, Box::new(fold)).await;
        if let Some(trouble) = failed {
            return Err(trouble);
        }
        result?;
        self.tell_parked(&parked);
        Ok(waiting)
    }

    /// Folds inside of a transaction of the store; what is wrong with the events goes around it.
    fn fold_locked(
        &self,
        touched: &Touched,
        rows: &[DocumentRow],
        failed: &mut Option<Trouble>,
    ) -> Result<Folded, StoreError> {
        self.folder.fold(touched, rows.iter()).map_err(|trouble| {
            let text = "the events cannot be folded".to_owned();
            *failed = Some(trouble);
            StoreError::Internal(text)
        })
    }

    /// Keys were parked by the transaction that took place just now.
    fn tell_parked(&self, keys: &[NewParkedKey]) {
        for NewParkedKey { scope, key, failure, .. } in keys {
            let (group, position) = (&self.folder.group, failure.position);
            tracing::error!(
                %group, scope = scope.as_str(), key, %position, attempts = failure.attempts,
                dead_letter = %failure.dead_letter, code = failure.error.code,
                error = failure.error.message, "the event cannot be applied; its key is parked"
            );
            metrics::counter!(
                "adjutant_keys_parked_total", "group" => group.to_string(),
                "scope" => scope.as_str()
            )
            .increment(1);
            if *scope == KeyScope::Stream
                && let Ok(stream) = key.parse()
            {
                self.parked.add(position.partition, stream);
            }
        }
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
                group: self.folder.group.clone(),
                partition: run.partition,
                offset: run.checkpoint.plus(run.entries.len()),
            })
            .collect()
    }
}

/// How long a batch waits for a store that does not answer, or rolls back.
struct Patience<'a> {
    delays: Retries,
    rolled_back: u32,
    stop: &'a CancellationToken,
}

impl<'a> Patience<'a> {
    fn new(stop: &'a CancellationToken) -> Self {
        Self { delays: RetryPolicy::forever().start(), rolled_back: 0, stop }
    }

    /// Waits before the next try; the error, if there is to be none.
    async fn wait(&mut self, group: &GroupName, error: StoreError) -> Result<(), Trouble> {
        if !error.is_retryable() && !matches!(error, StoreError::Unknown(_)) {
            return Err(Trouble::Store(error));
        }
        // The server answers, but rolls back again and again: not all need suffer.
        self.rolled_back += u32::from(matches!(error, StoreError::Transient(_)));
        if self.rolled_back > MOST_ROLLBACKS {
            return Err(Trouble::Store(error));
        }
        let Some(delay) = self.delays.next_delay() else { return Err(Trouble::Store(error)) };
        tracing::warn!(%group, %error, ?delay, "the batch is tried again");
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Trouble::Store(error)),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }
}

#[async_trait]
impl GroupHandler for ProjectionHandler {
    async fn handle(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd> {
        if let [run] = runs.as_slice()
            && let Some(crashes) = run.crashed
        {
            return vec![self.give_up(run, crashes).await];
        }
        if self.breaker.is_calm() {
            self.apply_all(runs).await
        } else {
            self.let_through(runs).await
        }
    }

    fn partition_starts(&self, partition: Partition) {
        self.memory.starts(partition);
        self.parked.forget(partition);
    }
}
