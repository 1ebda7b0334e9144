//! Recurring commands: a cron expression in a time zone says when, a policy says what becomes of runs
//! that were missed, and each run is an ordinary command.
//!
//! They are fired by the process that relays partition 0 (two for a moment do no harm): what a run
//! sends is decided by compare-and-set, and its id is made from its name and due time, so that
//! however many processes fire it, there is one command. All times are the store's. See
//! `docs/operations/recurring.md`.

mod fire;
mod missed;
mod run;
mod schedule;
mod settings;

pub use run::Run;
pub use schedule::{InvalidSchedule, Schedule};
pub use settings::RecurringSettings;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{domain::Registry, message::Partition, signals::Signals, store::Store};

/// What firing works with.
#[derive(Clone)]
pub struct RecurringParts {
    /// Where they are kept, and where their runs are accepted.
    pub store: Arc<dyn Store>,
    /// Knows which commands are strict: those take the log, whatever their lane.
    pub registry: Arc<Registry>,
    /// Hints that commands were written.
    pub signals: Signals,
    /// The partitions that this process relays: with partition 0 among them it fires.
    pub partitions: watch::Receiver<Vec<Partition>>,
    /// How it works.
    pub settings: RecurringSettings,
    /// Ends it. What is owed then is sent by another process.
    pub stop: CancellationToken,
}

/// Starts it.
pub fn start(parts: RecurringParts) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(fire::run(parts)))
}
