//! The relay: outbox → broker, and schedule → command log. It knows no domain; it publishes rows as
//! they are, in order per partition, many confirmations in flight, and deletes what was confirmed.
//!
//! Nothing depends on when a relay runs or how many do: a row is published at least once, or its
//! groups read it from the log.

mod clear;
mod merge;
mod publish;
mod schedule;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    broker::Broker,
    message::{GroupName, Partition},
    signals::Signals,
    store::Store,
};

/// How a relay works.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// How often it looks without being told.
    pub poll: Duration,
    /// How many rows it reads at a time.
    pub page_rows: i64,
    /// How long it waits between two pages under load, so that each message carries more.
    pub pace: Duration,
    /// How many messages may be unconfirmed.
    pub in_flight: usize,
    /// How many bytes may be unconfirmed.
    pub in_flight_bytes: usize,
    /// After how long a row with log offsets counts as published.
    pub give_up_after: Duration,
    /// How long a confirmed row may wait for its deletion.
    pub delete_within: Duration,
    /// How often it looks for due schedule rows.
    pub schedule_poll: Duration,
    /// How long what is due for the immediate lane is left to it, until the queue has it.
    pub lane_grace: Duration,
    /// How often it looks for commands of the immediate lane whose process is gone.
    pub take_over_every: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(100),
            page_rows: 256,
            pace: Duration::from_millis(20),
            in_flight: 1024,
            in_flight_bytes: 32 * 1024 * 1024,
            give_up_after: Duration::from_secs(30),
            delete_within: Duration::from_millis(100),
            schedule_poll: Duration::from_millis(200),
            lane_grace: Duration::from_secs(2),
            take_over_every: Duration::from_secs(1),
        }
    }
}

/// What a relay works with.
#[derive(Clone)]
pub struct RelayParts {
    /// The outbox.
    pub store: Arc<dyn Store>,
    /// The road.
    pub broker: Arc<dyn Broker>,
    /// The groups whose queues must be there.
    pub groups: Vec<GroupName>,
    /// Hints that rows were written.
    pub signals: Signals,
    /// The partitions it should serve; others may serve the same for a moment.
    pub partitions: watch::Receiver<Vec<Partition>>,
    /// A process is gone when its last heartbeat is older than this.
    pub member_ttl: Duration,
    /// How it works.
    pub settings: RelaySettings,
    /// Ends it: what is in flight is awaited, confirmed rows are deleted.
    pub stop: CancellationToken,
}

/// Starts the relay's tasks.
pub fn start(parts: RelayParts) -> Vec<AbortOnDropHandle<()>> {
    let schedule = schedule::run(parts.clone());
    let take_over = schedule::take_over_what_is_held(parts.clone());
    [tokio::spawn(publish::run(parts)), tokio::spawn(schedule), tokio::spawn(take_over)]
        .map(AbortOnDropHandle::new)
        .into()
}
