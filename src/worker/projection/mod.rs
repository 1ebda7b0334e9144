//! The projection worker's handler: folds runs into documents and moves the checkpoint in the same
//! transaction (law 3).
//!
//! Documents of scope `Stream` are fed by one partition only, so the checkpoint's compare-and-set
//! fences them and what was written last may be remembered; documents of scope `Shared` are locked,
//! folded and written inside the transaction.

mod fold;
mod memory;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{GroupHandler, HandlerRun};
use crate::{
    domain::{ProjectionType, Registry, Scope},
    execute::{RetryPolicy, RunEnd},
    message::{GroupName, Partition, Position},
    signals::{Applied, Signals},
    store::{CheckpointMove, DocumentRow, Fence, FoldRequest, Store, StoreError, ViewCommit},
};
use fold::{BadEvent, Folder, Touched, Trouble};
use memory::Memory;

/// Maintains one view.
pub struct ProjectionHandler {
    folder: Folder,
    store: Arc<dyn Store>,
    signals: Signals,
    memory: Memory,
    stop: CancellationToken,
}

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
        Self {
            folder: Folder { registry, projection, group },
            store,
            signals,
            memory: Memory::with_limit(cache_bytes),
            stop,
        }
    }

    /// All runs in one transaction, tried until it took place or cannot.
    async fn apply_together(&self, runs: &[HandlerRun]) -> Result<(), Trouble> {
        let started = Instant::now();
        let touched = self.folder.touched(runs)?;
        let mut delays = RetryPolicy::forever().start();
        let mut rolled_back = 0;
        loop {
            let result = match self.folder.projection.scope() {
                Scope::Stream => self.apply_streams(runs, &touched).await,
                Scope::Shared => self.apply_shared(runs, &touched).await,
            };
            match result {
                Ok(()) => break,
                Err(Trouble::Store(error))
                    if error.is_retryable() || matches!(error, StoreError::Unknown(_)) =>
                {
                    // After a lost reply to COMMIT the compare-and-set tells whether it took place.
                    self.memory.forget(&touched.keys);
                    // The server answers, but rolls back again and again: not all need suffer.
                    rolled_back += u32::from(matches!(error, StoreError::Transient(_)));
                    if rolled_back > MOST_ROLLBACKS {
                        return Err(error.into());
                    }
                    let Some(delay) = delays.next_delay() else { return Err(error.into()) };
                    tracing::warn!(group = %self.folder.group, %error, ?delay, "the batch is tried again");
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Err(error.into()),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
                Err(trouble) => {
                    self.memory.forget(&touched.keys);
                    return Err(trouble);
                }
            }
        }
        let group = self.folder.group.to_string();
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
            .map(|(key, partition)| self.memory.recall(key, *partition))
            .collect();
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
        let documents = self.folder.fold(touched, rows.iter().map(Arc::as_ref))?;
        let commit = ViewCommit {
            view: self.folder.projection.name().to_owned(),
            documents: documents.clone(),
            checkpoints: self.checkpoint_moves(runs),
        };
        self.store.commit_view(commit).await?;
        for document in documents {
            self.memory.remember(document);
        }
        Ok(())
    }

    async fn apply_shared(&self, runs: &[HandlerRun], touched: &Touched) -> Result<(), Trouble> {
        let request = FoldRequest {
            view: self.folder.projection.name().to_owned(),
            keys: touched.keys.clone(),
            checkpoints: self.checkpoint_moves(runs),
        };
        let mut failed = None;
        let fold = |rows: Vec<DocumentRow>| {
            self.folder.fold(touched, rows.iter()).map_err(|trouble| match trouble {
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
            tracing::debug!(group = %self.folder.group, ?trouble, "the events before the bad one failed, too");
        }
        let position = Position { partition: run.partition, offset: bad.offset };
        RunEnd::Failed(StoreError::Corrupt(format!(
            "projection `{}` cannot apply the event at {position}: {}",
            self.folder.projection.name(),
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
                tracing::debug!(group = %self.folder.group, ?trouble, "batch failed; trying each partition alone");
                let mut ends = Vec::with_capacity(runs.len());
                for run in runs {
                    ends.push(self.apply_alone(run).await);
                }
                ends
            }
        }
    }

    fn partition_starts(&self, partition: Partition) {
        self.memory.starts(partition);
    }
}
