//! What falls due for the immediate lane: delayed commands and runs of recurring ones. This process
//! claims those of its partitions, and from then on holds them like what it was sent. What finds no
//! room here, or nobody claims in time, a relay moves into the command log.

use std::{sync::Arc, time::Duration};

use super::processor::Shared;
use crate::{
    message::Partition,
    observe::names,
    store::{ClaimedCommand, StoreError},
};

/// How many rows one claim takes at most.
const BATCH: usize = 500;

pub(super) async fn run(shared: Arc<Shared>) {
    let mut partitions = shared.parts.due.clone();
    let every = Duration::from_millis(shared.parts.settings.due_poll_ms.max(1));
    let stop = shared.parts.stop.clone();
    let looking = async {
        loop {
            tokio::time::sleep(every).await;
            let ours = partitions.now();
            // A claim that is broken off may have taken place: what it took would lie here unknown.
            let claiming = tokio::spawn(claim_all(shared.clone(), ours));
            if let Ok(Err(error)) = claiming.await {
                tracing::warn!(%error, "what is due for the immediate lane could not be claimed");
            }
        }
    };
    let _: Option<()> = stop.run_until_cancelled(looking).await;
}

async fn claim_all(shared: Arc<Shared>, partitions: Vec<Partition>) -> Result<(), StoreError> {
    if partitions.is_empty() {
        return Ok(());
    }
    loop {
        let room = shared.room().free().min(BATCH);
        if room == 0 || shared.parts.stop.is_cancelled() {
            return Ok(());
        }
        let claimed = claim(&shared, &partitions, room).await?;
        if claimed < room {
            return Ok(());
        }
    }
}

async fn claim(
    shared: &Arc<Shared>,
    partitions: &[Partition],
    most: usize,
) -> Result<usize, StoreError> {
    let (store, member) = (&shared.parts.store, shared.parts.member);
    let claimed = store.claim_due(partitions, member, most as i64).await?;
    if claimed.is_empty() {
        return Ok(0);
    }
    failpoint!(ImmediateClaimed);
    let count = claimed.len();
    metrics::counter!(names::IMMEDIATE_CLAIMED_TOTAL).increment(count as u64);
    let mut without_room = Vec::new();
    for ClaimedCommand { command, accepted_at } in claimed {
        if let Err(command) = shared.enter_held(command, accepted_at) {
            without_room.push((shared.partitions.of(&command.stream), command.id));
        }
    }
    shared.work.notify_one();
    if !without_room.is_empty() {
        shared.count_refused("queued", without_room.len());
        store.let_go_of_held(&without_room).await?;
    }
    Ok(count)
}
