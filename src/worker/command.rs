//! The command worker's handler: hands runs to the executor.

use std::sync::Arc;

use async_trait::async_trait;

use super::{GroupHandler, HandlerRun};
use crate::{
    execute::{Executor, Run, RunEnd},
    message::Partition,
    store::Entry,
};

/// Executes the entries of the command log.
pub struct CommandHandler {
    executor: Arc<Executor>,
}

impl CommandHandler {
    /// A handler that uses this executor.
    pub fn new(executor: Arc<Executor>) -> Self {
        Self { executor }
    }
}

#[async_trait]
impl GroupHandler for CommandHandler {
    async fn handle(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd> {
        let runs = runs.into_iter().map(|run| Run {
            partition: run.partition,
            checkpoint: Some(run.checkpoint),
            crashed: run.crashed,
            entries: run
                .entries
                .into_iter()
                .filter_map(|entry| match entry {
                    Entry::Command(entry) => Some(entry),
                    Entry::Event(_) => None,
                })
                .collect(),
        });
        self.executor.execute(runs.collect()).await
    }

    /// Aggregates are fenced by their versions: a wrong guess costs a second try, nothing else.
    fn partition_starts(&self, _: Partition) {}
}
