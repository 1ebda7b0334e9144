//! Hints between the parts of one process: "look now". A hint saves the wait until the next poll;
//! nothing depends on its arrival.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};

use crate::message::{CommandId, GroupName, Offset, Partition};

/// How many hints a slow receiver may lag behind before it misses some (and polls instead).
const CAPACITY: usize = 1024;

/// A checkpoint that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The group.
    pub group: GroupName,
    /// The partition.
    pub partition: Partition,
    /// Where the checkpoint is now.
    pub offset: Offset,
}

/// The hints of one process. Cheap to clone.
#[derive(Clone)]
pub struct Signals {
    inner: Arc<Inner>,
}

struct Inner {
    outbox: Notify,
    outbox_remote: Notify,
    schedule: Notify,
    replays: Notify,
    callbacks: Notify,
    ended: broadcast::Sender<Arc<[CommandId]>>,
    cancelled: broadcast::Sender<Arc<[CommandId]>>,
    applied: broadcast::Sender<Arc<[Applied]>>,
}

impl Default for Signals {
    fn default() -> Self {
        let inner = Inner {
            outbox: Notify::new(),
            outbox_remote: Notify::new(),
            schedule: Notify::new(),
            replays: Notify::new(),
            callbacks: Notify::new(),
            ended: broadcast::channel(CAPACITY).0,
            cancelled: broadcast::channel(CAPACITY).0,
            applied: broadcast::channel(CAPACITY).0,
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Signals {
    /// Rows were committed to the outbox by this process.
    pub fn outbox_written(&self) {
        self.inner.outbox.notify_one();
        self.inner.outbox_remote.notify_one();
    }

    /// Another process says that it committed rows to the outbox.
    pub fn outbox_written_elsewhere(&self) {
        self.inner.outbox.notify_one();
    }

    /// Ends when rows were written since the last call; for the relay of this process.
    pub async fn outbox_hint(&self) {
        self.inner.outbox.notified().await;
    }

    /// Ends when this process wrote rows since the last call; for whoever tells the others.
    pub async fn outbox_hint_for_others(&self) {
        self.inner.outbox_remote.notified().await;
    }

    /// Rows that are due at once were committed to the schedule by this process.
    pub fn schedule_written(&self) {
        self.inner.schedule.notify_one();
    }

    /// Ends when such rows were written since the last call; for the relay of this process.
    pub async fn schedule_hint(&self) {
        self.inner.schedule.notified().await;
    }

    /// Somebody asked for the replay of a parked key.
    pub fn replay_asked(&self) {
        self.inner.replays.notify_one();
    }

    /// Ends when a replay was asked for since the last call; for whoever replays in this process.
    pub async fn replay_hint(&self) {
        self.inner.replays.notified().await;
    }

    /// Somebody is to be called back.
    pub fn callbacks_owed(&self) {
        self.inner.callbacks.notify_one();
    }

    /// Ends when that was said since the last call; for whoever delivers callbacks in this process.
    pub async fn callback_hint(&self) {
        self.inner.callbacks.notified().await;
    }

    /// Commands ended.
    pub fn commands_ended(&self, ids: Vec<CommandId>) {
        if self.inner.ended.receiver_count() > 0 && !ids.is_empty() {
            // No receiver is no error: a hint for nobody.
            let _ = self.inner.ended.send(ids.into());
        }
    }

    /// Hears of commands that end in this process.
    pub fn watch_ended(&self) -> broadcast::Receiver<Arc<[CommandId]>> {
        self.inner.ended.subscribe()
    }

    /// Commands were called off, and have ended by that.
    pub fn commands_cancelled(&self, ids: Vec<CommandId>) {
        if self.inner.cancelled.receiver_count() > 0 && !ids.is_empty() {
            let _ = self.inner.cancelled.send(ids.as_slice().into());
        }
        self.commands_ended(ids);
    }

    /// Hears of commands that this process calls off.
    pub fn watch_cancelled(&self) -> broadcast::Receiver<Arc<[CommandId]>> {
        self.inner.cancelled.subscribe()
    }

    /// Checkpoints moved.
    pub fn checkpoints_moved(&self, moves: Vec<Applied>) {
        if self.inner.applied.receiver_count() > 0 && !moves.is_empty() {
            let _ = self.inner.applied.send(moves.into());
        }
    }

    /// Hears of checkpoints that move in this process.
    pub fn watch_applied(&self) -> broadcast::Receiver<Arc<[Applied]>> {
        self.inner.applied.subscribe()
    }
}
