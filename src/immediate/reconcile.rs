//! Commands that this process holds by the database, and that it does not have: a commit that a
//! failover took back, an answer that got lost in a way that nobody thought of. Nobody would execute
//! them while the process lives; it lets go of them, and a relay puts them into the command log.

use std::{sync::Arc, time::Duration};

use super::processor::Shared;
use crate::{observe::names, store::StoreError};

/// How many rows one question brings.
const PAGE: i64 = 500;

pub(super) async fn run(shared: Arc<Shared>) {
    let stop = shared.parts.stop.clone();
    // What is younger may be on its way into the room.
    let older_than = Duration::from_millis(shared.parts.settings.lost_after_ms);
    let looking = async {
        loop {
            tokio::time::sleep((older_than / 2).max(Duration::from_millis(50))).await;
            if let Err(error) = look(&shared, older_than).await {
                tracing::debug!(%error, "what this process holds could not be read");
            }
        }
    };
    let _: Option<()> = stop.run_until_cancelled(looking).await;
}

/// One look at everything that is held for long.
async fn look(shared: &Shared, older_than: Duration) -> Result<(), StoreError> {
    let (store, member) = (&shared.parts.store, shared.parts.member);
    let mut after = 0;
    let mut oldest = 0;
    loop {
        let page = store.held_by(member, older_than, after, PAGE).await?;
        let Some(newest) = page.last() else { break };
        after = newest.place;
        oldest = page.iter().map(|held| held.age_ms).max().unwrap_or_default().max(oldest);
        let lost: Vec<_> = {
            let room = shared.room();
            let not_here = page.iter().filter(|held| !room.holds(held.id));
            not_here.map(|held| (held.partition, held.id)).collect()
        };
        if !lost.is_empty() {
            tracing::error!(
                commands = lost.len(),
                "held, and not here: they are let go of, and go through the queue"
            );
            metrics::counter!(names::IMMEDIATE_LET_GO_TOTAL).increment(lost.len() as u64);
            store.let_go_of_held(&lost).await?;
        }
        if (page.len() as i64) < PAGE {
            break;
        }
    }
    metrics::gauge!(names::IMMEDIATE_OLDEST_SECONDS).set(oldest as f64 / 1e3);
    Ok(())
}
