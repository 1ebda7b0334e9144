//! Housekeeping: what has served its time is removed, in small transactions with pauses between
//! them, by one process at a time (the one that relays partition 0; two for a moment do no harm).
//!
//! Nothing is removed that somebody may still need: a command that is not decided, an entry that a
//! group has not finished, the newest entry of a log (the next offset is counted from it), a dead
//! letter that nobody has dealt with. Event logs and views are never touched.

mod pass;
mod settings;

pub use settings::RetentionSettings;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    message::{GroupName, Partition},
    store::Store,
};

/// What housekeeping works with.
#[derive(Clone)]
pub struct HousekeepingParts {
    /// What is kept in order.
    pub store: Arc<dyn Store>,
    /// The groups that read the event log.
    pub event_groups: Vec<GroupName>,
    /// The partitions that this process relays: with partition 0 among them it keeps house.
    pub partitions: watch::Receiver<Vec<Partition>>,
    /// What is kept for how long.
    pub settings: RetentionSettings,
    /// Ends it, between two transactions.
    pub stop: CancellationToken,
}

impl HousekeepingParts {
    fn is_on_duty(&self) -> bool {
        !self.stop.is_cancelled() && self.partitions.borrow().contains(&Partition(0))
    }
}

/// Starts it.
pub fn start(parts: HousekeepingParts) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(parts)))
}

async fn run(parts: HousekeepingParts) {
    loop {
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = tokio::time::sleep(parts.settings.every) => {}
        }
        if parts.is_on_duty() {
            pass::run(&parts).await;
        }
    }
}
