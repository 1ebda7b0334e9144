//! What falls due for the immediate lane: delayed commands and runs of recurring ones. This process
//! claims those of its partitions, and from then on holds them like what it was sent. What finds no
//! room here, or nobody claims in time, a relay moves into the command log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::processor::Shared;
use crate::{
    message::Partition,
    observe::names,
    store::{ClaimedCommand, StoreError},
};

/// How many rows one claim takes at most: they are here before the room has weighed them.
const BATCH: usize = 100;

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
        match claim(&shared, &partitions, room).await? {
            Claimed { commands, all_fit: true } if commands == room => {}
            _ => return Ok(()),
        }
    }
}

/// What one claim has brought.
struct Claimed {
    commands: usize,
    /// Whether all of them found room.
    all_fit: bool,
}

async fn claim(
    shared: &Arc<Shared>,
    partitions: &[Partition],
    most: usize,
) -> Result<Claimed, StoreError> {
    let (store, member) = (&shared.parts.store, shared.parts.member);
    let claimed = store.claim_due(partitions, member, most as i64).await?;
    if claimed.is_empty() {
        return Ok(Claimed { commands: 0, all_fit: true });
    }
    failpoint!(ImmediateClaimed);
    let count = claimed.len();
    metrics::counter!(names::IMMEDIATE_CLAIMED_TOTAL).increment(count as u64);
    let mut without_room = Vec::new();
    // What came behind one that found no room must not overtake it.
    let mut left = BTreeSet::new();
    for ClaimedCommand { command, accepted_at } in claimed {
        let (stream, id) = (command.stream.clone(), command.id);
        if left.contains(&stream) || shared.enter_held(command, accepted_at).is_err() {
            without_room.push((shared.partitions.of(&stream), id));
            left.insert(stream);
        }
    }
    shared.work.notify_one();
    if !without_room.is_empty() {
        shared.count_refused("queued", without_room.len());
        store.let_go_of_held(&without_room).await?;
    }
    Ok(Claimed { commands: count, all_fit: without_room.is_empty() })
}
