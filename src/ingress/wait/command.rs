//! Waits for commands to end, and hears of every change of their status.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    look::Task,
    waiting::{News, Registration, Shared},
};
use crate::{
    message::{CommandId, Outcome, Partition},
    signals::Signals,
    store::{CommandProgress, CommandRecord, Store},
};

/// What is told of a command whose status has changed. Made once, however many hear it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Names what is told: the same, whichever process tells it.
    pub mark: String,
    /// The words.
    pub text: Bytes,
    /// Whether the command has ended: nothing comes after it.
    pub last: bool,
}

/// How watchers are told, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct WatchSettings {
    /// How many may wait or watch at a time.
    pub max_waiters: usize,
    /// What watchers are told of a command.
    pub tell: fn(&CommandRecord) -> Result<Told, serde_json::Error>,
}

/// Why nobody watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// As many wait or watch as may.
    #[error("as many wait or watch as may")]
    Full,
    /// The process stops.
    #[error("the process stops")]
    Stopping,
}

/// Tells callers when commands end, and of their changes until then. Cheap to clone.
#[derive(Clone)]
pub struct CommandWatcher {
    shared: Arc<Shared>,
}

impl CommandWatcher {
    /// Starts the task; it ends at `shutdown`, and with it every wait.
    pub fn start(
        store: Arc<dyn Store>,
        signals: Signals,
        settings: WatchSettings,
        shutdown: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared::new(settings.max_waiters));
        let task = Task { shared: shared.clone(), store, signals, tell: settings.tell };
        tokio::spawn(async move {
            let shared = task.shared.clone();
            let _ = shutdown.run_until_cancelled(task.run()).await;
            shared.stop();
        });
        Self { shared }
    }

    /// Registers interest in a command that has not been accepted yet: it is looked at when
    /// something hints at it and at every poll.
    pub fn expect(&self, partition: Partition, id: CommandId) -> WaitForOutcome {
        WaitForOutcome { registration: self.shared.wait(partition, id, false).ok() }
    }

    /// Registers interest in a command that may have ended already: it is looked at at once.
    pub fn watch(&self, partition: Partition, id: CommandId) -> WaitForOutcome {
        WaitForOutcome { registration: self.shared.wait(partition, id, true).ok() }
    }

    /// Registers interest in every change of a command's status after `known`, which the caller has
    /// read. It is looked at at once, so that nothing is missed between the two.
    pub fn changes(
        &self,
        partition: Partition,
        id: CommandId,
        known: CommandProgress,
    ) -> Result<StatusChanges, NoRoom> {
        let (registration, latest) = self.shared.watch(partition, id, known)?;
        Ok(StatusChanges { _registration: registration, latest })
    }
}

/// A wait that was registered. Dropping it ends the interest.
pub struct WaitForOutcome {
    /// `None`: too many wait already, or the process stops; nothing is waited for.
    registration: Option<(Registration, oneshot::Receiver<Box<Outcome>>)>,
}

impl WaitForOutcome {
    /// Whether there was room for it; if not, nothing is waited for.
    pub fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    /// The outcome; `None` if the command has not ended within `limit` or the process stops.
    pub async fn within(self, limit: Duration) -> Option<Outcome> {
        let (_registration, receiver) = self.registration?;
        tokio::time::timeout(limit, receiver).await.ok()?.ok().map(|outcome| *outcome)
    }
}

/// Hears of a command's changes. Dropping it ends the interest.
pub struct StatusChanges {
    _registration: Registration,
    latest: News,
}

impl StatusChanges {
    /// The next change. Whoever is slow hears the newest one only. `None`: the process stops, or the
    /// command is not there any more. Safe to cancel.
    pub async fn next(&mut self) -> Option<Arc<Told>> {
        loop {
            self.latest.changed().await.ok()?;
            if let Some(told) = self.latest.take() {
                return Some(told);
            }
        }
    }
}
