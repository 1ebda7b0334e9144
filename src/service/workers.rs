//! Starts the groups of a process's worker roles.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::ProcessParts;
use crate::{
    execute::Executor,
    message::GroupName,
    signals::Signals,
    store::{LogKind, Role},
    worker::{
        CommandHandler, EntryStats, GroupHandler, GroupParts, HeadWatch, Membership, OneSuspect,
        ProjectionHandler, run_group,
    },
};

pub(super) fn start(
    parts: &ProcessParts,
    executor: &Arc<Executor>,
    signals: &Signals,
    heads: &HeadWatch,
    stats: &EntryStats,
    membership: &Membership,
    stop: &CancellationToken,
) -> Vec<AbortOnDropHandle<()>> {
    let mut handlers: Vec<(GroupName, LogKind, Arc<dyn GroupHandler>)> = Vec::new();
    if parts.roles.contains(&Role::CommandWorker) {
        let handler = Arc::new(CommandHandler::new(executor.clone()));
        handlers.push((GroupName::commands(), LogKind::Commands, handler));
    }
    if parts.roles.contains(&Role::ProjectionWorker) {
        let registry = parts.service.registry();
        for projection in registry.projections() {
            let handler = Arc::new(ProjectionHandler::new(
                registry.clone(),
                projection.clone(),
                parts.store.clone(),
                signals.clone(),
                parts.settings.projection_cache_bytes.0,
                stop.clone(),
            ));
            handlers.push((GroupName::projection(projection.name()), LogKind::Events, handler));
        }
    }
    let suspects = OneSuspect::default();
    let run = |(group, log, handler)| {
        let group_parts = GroupParts {
            group,
            log,
            store: parts.store.clone(),
            broker: parts.broker.clone(),
            handler,
            member: membership.id(),
            suspects: suspects.clone(),
            settings: parts.settings.groups.clone(),
        };
        let ownership = membership.ownership();
        let group = run_group(group_parts, heads.clone(), stats.clone(), ownership, stop.clone());
        AbortOnDropHandle::new(tokio::spawn(group))
    };
    handlers.into_iter().map(run).collect()
}
