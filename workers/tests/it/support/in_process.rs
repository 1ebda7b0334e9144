//! The bank on a SQLite file without processes and without a road: commands are accepted by the
//! store, and each group's handler finishes what its log holds, in turn.

use std::{path::Path, sync::Arc};

use adjutant::{
    execute::{Executor, ExecutorSettings, RunEnd, StoreClock},
    ingress::{Origin, Validator},
    message::GroupName,
    signals::Signals,
    store::{
        Accepted, Intake as _, LogKind, Logs as _, Store,
        sqlite::{SqliteSettings, SqliteStore},
    },
    worker::{CommandHandler, GroupHandler, HandlerRun, ProjectionHandler},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub struct InProcess {
    store: Arc<SqliteStore>,
    validator: Validator,
    groups: Vec<(GroupName, LogKind, Box<dyn GroupHandler>)>,
}

/// Entries of one partition that a round takes at most.
const ENTRIES: usize = 50;

impl InProcess {
    pub async fn open(path: &Path) -> Self {
        let service = bank::accounts::service().unwrap();
        let registry = service.registry();
        let store = Arc::new(SqliteStore::open(SqliteSettings::new(path)).unwrap());
        let (signals, stop) = (Signals::default(), CancellationToken::new());
        let clock = StoreClock::starting_at(store.now().await.unwrap());
        let executor = Executor::new(
            registry.clone(),
            store.clone(),
            signals.clone(),
            clock,
            ExecutorSettings::default(),
            stop.clone(),
        );
        let commands: Box<dyn GroupHandler> = Box::new(CommandHandler::new(Arc::new(executor)));
        let mut groups = vec![(GroupName::commands(), LogKind::Commands, commands)];
        for projection in registry.projections() {
            let handler = ProjectionHandler::new(
                registry.clone(),
                projection.clone(),
                store.clone(),
                signals.clone(),
                1 << 20,
                stop.clone(),
            );
            let group = GroupName::projection(projection.name());
            groups.push((group, LogKind::Events, Box::new(handler)));
        }
        Self { store, validator: Validator::new(registry.clone()), groups }
    }

    /// Accepts commands, together.
    pub async fn accept(&self, commands: &[Value]) {
        let origin = Origin::default();
        let checked = commands.iter().map(|command| self.validator.check_value(command, &origin));
        let batch: Result<Vec<_>, _> = checked.collect();
        for answer in self.store.accept(batch.expect("valid commands")).await.unwrap() {
            assert!(matches!(answer, Accepted::New { .. }), "{answer:?}");
        }
    }

    /// Finishes what there is for every group.
    pub async fn work(&self) {
        for (group, log, handler) in &self.groups {
            loop {
                let runs = self.runs(group, *log).await;
                if runs.is_empty() {
                    break;
                }
                for end in handler.handle(runs).await {
                    assert!(matches!(end, RunEnd::Done), "{group}: {end:?}");
                }
            }
        }
    }

    async fn runs(&self, group: &GroupName, log: LogKind) -> Vec<HandlerRun> {
        let checkpoints = self.store.checkpoints(group).await.unwrap();
        let mut runs = Vec::new();
        for (partition, checkpoint) in self.store.identity().partitions.all().zip(checkpoints) {
            let next = checkpoint.next();
            let entries = self.store.read_log(log, partition, next, ENTRIES).await.unwrap();
            if !entries.is_empty() {
                runs.push(HandlerRun::new(partition, checkpoint, entries));
            }
        }
        runs
    }
}
