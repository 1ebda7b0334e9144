//! An executor on a store, without a road: it reads the logs, and goes on when it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adjutant::{
    execute::{Arrival, ArrivalEnd, Executor, Run, RunEnd, StoreClock},
    message::{CommandId, GroupName, Outcome},
    service::ProcessSettings,
    signals::Signals,
    store::{CommandEntry, Entry, LogKind, Store},
};
use tokio_util::sync::CancellationToken;

use super::look;
use crate::support::{domain, eventually, process};

pub struct Lane {
    store: Arc<dyn Store>,
    executor: Executor,
    /// How many entries it executes at a time.
    pub batch: AtomicUsize,
}

impl Lane {
    pub async fn on(store: &Arc<dyn Store>) -> Self {
        let ProcessSettings { executor, .. } = process::settings();
        let clock = StoreClock::starting_at(store.now().await.expect("the time"));
        let executor = Executor::new(
            domain::service().registry().clone(),
            store.clone(),
            Signals::default(),
            clock,
            executor,
            CancellationToken::new(),
        );
        Self { store: store.clone(), executor, batch: AtomicUsize::new(100) }
    }

    /// Puts what is due into the logs and executes what they hold; how many entries that were.
    pub async fn go_on(&self) -> usize {
        self.store
            .promote_due(&look::all(&self.store), Duration::ZERO, 1_000)
            .await
            .expect("promote");
        let finished = self.store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
        let mut executed = 0;
        for (partition, checkpoint) in look::all(&self.store).into_iter().zip(finished) {
            let limit = self.batch.load(Ordering::Relaxed);
            let page = self.store.read_log(LogKind::Commands, partition, checkpoint.next(), limit);
            let entries: Vec<CommandEntry> = page
                .await
                .expect("read the log")
                .into_iter()
                .map(|entry| match entry {
                    Entry::Command(entry) => entry,
                    Entry::Event(_) => unreachable!("a command log"),
                })
                .collect();
            if entries.is_empty() {
                continue;
            }
            executed += entries.len();
            let run = Run { partition, checkpoint: Some(checkpoint), entries, crashed: None };
            let ends = self.executor.execute(vec![run]).await;
            assert!(matches!(ends[..], [RunEnd::Done]), "{ends:?}");
        }
        executed
    }

    /// Goes on until each of these has ended; how they did, in order.
    pub async fn until_ended(&self, ids: &[CommandId]) -> Vec<Outcome> {
        eventually("every command has ended", async || {
            self.go_on().await;
            let found = self.store.commands_with_ids(ids).await.expect("look");
            let outcome = |id: &CommandId| found.iter().find(|it| it.id == *id)?.outcome.clone();
            ids.iter().map(outcome).collect()
        })
        .await
    }

    /// Executes commands as the immediate lane does.
    pub async fn arrive(&self, arrivals: Vec<Arrival>) -> Vec<ArrivalEnd> {
        self.executor.execute_arrivals(arrivals).await
    }
}
