//! Which commands a filter means: a walk over those that have not ended.

use std::collections::BTreeSet;

use crate::{
    message::{CommandId, GroupName},
    store::{CancelFilter, CommandStatus, Store, StoreError, Undecided, Walk},
};

/// How many commands are looked at at a time.
const PAGE: i64 = 1_000;
/// How many are looked at when those that match are counted.
const MOST_COUNTED: usize = 10_000;

/// The beginning of a walk over what a filter means.
pub(crate) async fn begin(store: &dyn Store, filter: &CancelFilter) -> Result<Walk, StoreError> {
    let partitions = store.identity().partitions;
    let finished = store.checkpoints(&GroupName::commands()).await?;
    let only = filter.stream.as_ref().map(|stream| partitions.of(stream));
    let logs = partitions.all().zip(finished);
    Ok(Walk::through(logs.filter(|(log, _)| only.is_none_or(|only| only == *log)).collect()))
}

/// Those that match and have not ended, each once, in their order.
pub(crate) async fn matching(
    store: &dyn Store,
    filter: &CancelFilter,
    commands: Vec<Undecided>,
) -> Result<Vec<CommandId>, StoreError> {
    let mut seen = BTreeSet::new();
    let fitting = commands.iter().filter(|command| filter.fits(command) && seen.insert(command.id));
    let places: Vec<_> = fitting.map(|command| (command.partition, command.id)).collect();
    let statuses = store.statuses(&places).await?;
    let fits = |status: CommandStatus| {
        !matches!(status, CommandStatus::Ended(_)) && filter.status.is_none_or(|it| it == status)
    };
    let matching: BTreeSet<CommandId> = statuses
        .into_iter()
        .filter(|(_, progress)| fits(progress.status()))
        .map(|(id, _)| id)
        .collect();
    Ok(places.into_iter().map(|(_, id)| id).filter(|id| matching.contains(id)).collect())
}

/// How many match, as far as the walk is looked at: all of them, if they are few.
pub(crate) async fn count(
    store: &dyn Store,
    filter: &CancelFilter,
    walk: &Walk,
) -> Result<i64, StoreError> {
    let (mut counted, mut looked_at, mut walk) = (0, 0, Some(walk.clone()));
    while let Some(at) = walk
        && looked_at < MOST_COUNTED
    {
        let page = store.undecided(&at, PAGE).await?;
        looked_at += page.commands.len();
        counted += matching(store, filter, page.commands).await?.len() as i64;
        // Whoever counts, counts each once.
        walk = page.next.map(Walk::without_return);
    }
    Ok(counted)
}
