//! The immediate lane of a process within the test's own.

use std::{sync::Arc, time::Duration};

use adjutant::{
    immediate::{AsyncCommandProcessor, Executed, ImmediateSettings, ProcessorParts},
    ingress::{CommitSettings, GroupCommit, OutboxLimit, Refusal},
    message::Outcome,
    service::Process,
    store::{NewCommand, Store},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{domain, process::Site};

/// The lane, and what ends it.
pub struct Lane {
    pub processor: AsyncCommandProcessor,
    pub commit: GroupCommit,
    pub stop: CancellationToken,
    _ends: DropGuard,
}

impl Lane {
    pub async fn of(site: &Site, process: &Process) -> Self {
        Self::with(site, process, ImmediateSettings::default()).await
    }

    pub async fn with(site: &Site, process: &Process, settings: ImmediateSettings) -> Self {
        Self::on(site.database.store().await, process, settings)
    }

    pub fn on(store: Arc<dyn Store>, process: &Process, settings: ImmediateSettings) -> Self {
        let stop = CancellationToken::new();
        let signals = process.signals().clone();
        let (commit, _) = GroupCommit::start(
            store.clone(),
            signals,
            OutboxLimit::default(),
            &CommitSettings::default(),
        );
        let (processor, _) = AsyncCommandProcessor::start(ProcessorParts {
            registry: domain::service().registry().clone(),
            store,
            executor: process.executor().clone(),
            commit: commit.clone(),
            outbox: OutboxLimit::default(),
            signals: process.signals().clone(),
            clock: process.clock().clone(),
            member: process.id(),
            due: process.lane_partitions(),
            settings,
            stop: stop.clone(),
        });
        Self { processor, commit, _ends: stop.clone().drop_guard(), stop }
    }

    /// Executes a command whose caller waits as long as it takes.
    pub async fn execute(&self, command: NewCommand) -> Result<Executed, Refusal> {
        self.processor.execute(immediate(command), Duration::from_secs(30)).await
    }

    /// The outcome of a command that ends at once.
    pub async fn outcome(&self, command: NewCommand) -> Outcome {
        match self.execute(command).await {
            Ok(Executed::Ended(_, outcome)) => *outcome,
            other => panic!("it did not end: {other:?}"),
        }
    }
}

pub fn immediate(command: NewCommand) -> NewCommand {
    NewCommand { lane: adjutant::message::Lane::Immediate, ..command }
}
