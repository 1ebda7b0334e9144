//! Combines what the partition loops of a process bring into one transaction: each loop hands over
//! a run and waits; runs that arrive while a transaction is under way share the next one.

use std::{panic::AssertUnwindSafe, sync::Arc};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use crate::{
    execute::RunEnd,
    message::{Offset, Partition},
    store::{Entry, StoreError},
};

/// How often other tasks that are ready get a turn before a batch is closed.
const YIELDS: usize = 4;

/// Entries of one partition, in order, behind a checkpoint.
#[derive(Clone, Debug)]
pub struct HandlerRun {
    /// The partition.
    pub partition: Partition,
    /// Where the checkpoint is.
    pub checkpoint: Offset,
    /// The entries that follow it.
    pub entries: Vec<Entry>,
}

/// Finishes the entries of a group.
#[async_trait]
pub trait GroupHandler: Send + Sync + 'static {
    /// Finishes runs of different partitions and moves their checkpoints, or says for each why not.
    /// Answers in the order of `runs`.
    async fn handle(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd>;

    /// A partition's loop starts (again): whatever was remembered of it may be out of date.
    fn partition_starts(&self, partition: Partition);
}

/// Where partition loops hand over their runs.
#[derive(Clone)]
pub(super) struct Combiner {
    runs: mpsc::Sender<(HandlerRun, oneshot::Sender<RunEnd>)>,
}

impl Combiner {
    /// Starts with a handler; at most about `max_entries` go into one transaction. It ends when
    /// the last handle is dropped.
    pub(super) fn start(
        handler: Arc<dyn GroupHandler>,
        max_entries: usize,
        partitions: usize,
    ) -> Self {
        let (runs, waiting) = mpsc::channel(partitions.max(1));
        tokio::spawn(run(handler, max_entries, waiting));
        Self { runs }
    }

    /// Hands a run over and waits for its end; `None` if the combiner is gone.
    pub(super) async fn finish(&self, run: HandlerRun) -> Option<RunEnd> {
        let (sender, end) = oneshot::channel();
        self.runs.send((run, sender)).await.ok()?;
        end.await.ok()
    }
}

async fn run(
    handler: Arc<dyn GroupHandler>,
    max_entries: usize,
    mut waiting: mpsc::Receiver<(HandlerRun, oneshot::Sender<RunEnd>)>,
) {
    while let Some((first, answer)) = waiting.recv().await {
        // Loops whose entries are here already get their turn first: no waiting, only fairness.
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        let mut entries = first.entries.len();
        let (mut runs, mut answers) = (vec![first], vec![answer]);
        while entries < max_entries
            && let Ok((run, answer)) = waiting.try_recv()
        {
            entries += run.entries.len();
            runs.push(run);
            answers.push(answer);
        }
        let count = runs.len();
        // User code is caught where it is called; a panic that comes this far must still not end
        // the group.
        let ends = AssertUnwindSafe(handler.handle(runs)).catch_unwind().await;
        let ends = ends.unwrap_or_else(|_| {
            let failed = || RunEnd::Failed(StoreError::Internal("the handler panicked".to_owned()));
            (0..count).map(|_| failed()).collect()
        });
        for (answer, end) in answers.into_iter().zip(ends) {
            // A loop that is gone needs no answer: its successor reads the checkpoint.
            let _ = answer.send(end);
        }
    }
}
