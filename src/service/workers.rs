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
        ProcessBreakers, ProjectionHandler, ReplayParts, run_group, run_replays,
    },
};

/// What was started.
pub(super) struct Started {
    pub(super) tasks: Vec<AbortOnDropHandle<()>>,
    pub(super) breakers: ProcessBreakers,
}

pub(super) fn start(
    parts: &ProcessParts,
    executor: &Arc<Executor>,
    signals: &Signals,
    heads: &HeadWatch,
    stats: &EntryStats,
    membership: &Membership,
    stop: &CancellationToken,
) -> Started {
    let (mut tasks, mut breakers) = (Vec::new(), Vec::new());
    let suspects = OneSuspect::default();
    let mut handlers: Vec<(GroupName, LogKind, Arc<dyn GroupHandler>)> = Vec::new();
    if parts.roles.contains(&Role::CommandWorker) {
        let handler = Arc::new(CommandHandler::new(executor.clone()));
        handlers.push((GroupName::commands(), LogKind::Commands, handler));
    }
    if parts.roles.contains(&Role::ProjectionWorker) {
        let registry = parts.service.registry();
        let mut projections = Vec::new();
        for projection in registry.projections() {
            let handler = ProjectionHandler::new(
                registry.clone(),
                projection.clone(),
                parts.store.clone(),
                signals.clone(),
                parts.settings.projection_cache_bytes.0,
                stop.clone(),
            );
            let handler = Arc::new(handler.with_parking(parts.settings.parking));
            handlers.push((handler.group().clone(), LogKind::Events, handler.clone()));
            stats.watch(handler.breaker().clone());
            breakers.push(handler.breaker().clone());
            projections.push(handler);
        }
        let replays = run_replays(ReplayParts {
            handlers: projections,
            store: parts.store.clone(),
            signals: signals.clone(),
            ownership: membership.ownership(),
            member: membership.id(),
            suspects: suspects.clone(),
            crash_limit: parts.settings.groups.crash_limit,
            poll: parts.settings.parking.poll,
            stop: stop.clone(),
        });
        tasks.push(AbortOnDropHandle::new(tokio::spawn(replays)));
    }
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
    tasks.extend(handlers.into_iter().map(run));
    Started { tasks, breakers: ProcessBreakers::new(executor.clone(), breakers) }
}
