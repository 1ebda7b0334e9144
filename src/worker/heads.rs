//! The heads of the logs, asked for once a second for all loops of a process. A loop compares its
//! place with the head of a second ago, so that the road is not raced.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    message::{Offset, Partition},
    store::{Heads, LogKind, Store},
};

/// How often the heads are read.
const EVERY: Duration = Duration::from_secs(1);

/// The two newest readings.
#[derive(Clone, Debug, Default)]
struct Readings {
    latest: Heads,
    before: Heads,
}

/// Shares the readings. Cheap to clone.
#[derive(Clone)]
pub struct HeadWatch {
    readings: watch::Receiver<Readings>,
}

impl HeadWatch {
    /// Starts to read.
    pub fn start(store: Arc<dyn Store>, stop: CancellationToken) -> Self {
        let (sender, readings) = watch::channel(Readings::default());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
                match store.heads().await {
                    Ok(heads) => sender.send_modify(|readings| {
                        readings.before = std::mem::replace(&mut readings.latest, heads);
                    }),
                    Err(error) => tracing::debug!(%error, "the heads of the logs are not known"),
                }
            }
        });
        Self { readings }
    }

    /// The head as it was at least a second ago (0 if it is not known yet).
    pub fn a_second_ago(&self, log: LogKind, partition: Partition) -> Offset {
        self.readings.borrow().before.of(log, partition)
    }

    /// The newest reading.
    pub fn latest(&self, log: LogKind, partition: Partition) -> Offset {
        self.readings.borrow().latest.of(log, partition)
    }
}
