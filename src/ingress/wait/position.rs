//! Waits until a view has applied a position (read your own writes).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use crate::{
    message::{GroupName, Offset, Position},
    signals::{Applied, Signals},
    store::{Store, StoreError},
};

/// Tells callers when a group has passed a position. Cheap to clone.
#[derive(Clone)]
pub struct PositionWatcher {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
    max_waiters: usize,
}

#[derive(Default)]
struct Waiting {
    groups: HashMap<GroupName, Vec<Waiter>>,
    waiters: usize,
    /// Groups with a waiter that nobody has looked for yet.
    unseen: Vec<GroupName>,
    stopped: bool,
}

struct Waiter {
    position: Position,
    reached: oneshot::Sender<()>,
}

impl PositionWatcher {
    /// Starts the task; it ends at `shutdown`, and with it every wait.
    pub fn start(
        store: Arc<dyn Store>,
        signals: Signals,
        max_waiters: usize,
        shutdown: CancellationToken,
    ) -> Self {
        let shared =
            Arc::new(Shared { waiting: Mutex::default(), changed: Notify::new(), max_waiters });
        let task = Task { shared: shared.clone(), store: store.clone(), signals };
        tokio::spawn(async move {
            let shared = task.shared.clone();
            let _ = shutdown.run_until_cancelled(task.run()).await;
            shared.stop();
        });
        Self { shared, store }
    }

    /// Whether the group has passed the position, waiting for it up to `limit`.
    pub async fn reached(
        &self,
        group: &GroupName,
        position: Position,
        limit: Duration,
    ) -> Result<bool, StoreError> {
        let registered = if limit.is_zero() { None } else { self.register(group, position) };
        let Some(reached) = registered else {
            let checkpoints = self.store.checkpoints(group).await?;
            return Ok(passed(&checkpoints, position));
        };
        Ok(matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(()))))
    }

    fn register(&self, group: &GroupName, position: Position) -> Option<oneshot::Receiver<()>> {
        let mut waiting = self.shared.lock();
        if waiting.stopped || waiting.waiters >= self.shared.max_waiters {
            return None;
        }
        let (reached, receiver) = oneshot::channel();
        waiting.waiters += 1;
        waiting.groups.entry(group.clone()).or_default().push(Waiter { position, reached });
        if !waiting.unseen.contains(group) {
            waiting.unseen.push(group.clone());
        }
        drop(waiting);
        self.shared.changed.notify_one();
        Some(receiver)
    }
}

fn passed(checkpoints: &[Offset], position: Position) -> bool {
    checkpoints.get(position.partition.index()).is_some_and(|reached| *reached >= position.offset)
}

impl Shared {
    /// No panic happens under this lock; if one did, the map would still be whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { stopped: true, ..Waiting::default() };
    }

    /// Forgets who went away; whether anybody is left.
    fn is_idle(&self) -> bool {
        self.lock().release(|_, waiter| waiter.reached.is_closed());
        self.lock().groups.is_empty()
    }

    fn all(&self) -> Vec<GroupName> {
        let mut waiting = self.lock();
        waiting.unseen.clear();
        waiting.groups.keys().cloned().collect()
    }

    fn unseen(&self) -> Vec<GroupName> {
        std::mem::take(&mut self.lock().unseen)
    }
}

impl Waiting {
    /// Tells (or forgets) the waiters for which `done` holds; how many.
    fn release(&mut self, done: impl Fn(&GroupName, &Waiter) -> bool) -> usize {
        let mut released = 0;
        self.groups.retain(|group, waiters| {
            for waiter in waiters.extract_if(.., |waiter| done(group, waiter)) {
                released += 1;
                // Gone meanwhile: nobody to tell.
                let _ = waiter.reached.send(());
            }
            !waiters.is_empty()
        });
        self.waiters -= released;
        released
    }
}

struct Task {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    signals: Signals,
}

impl Task {
    async fn run(self) {
        loop {
            while self.shared.is_idle() {
                self.shared.changed.notified().await;
            }
            self.serve().await;
        }
    }

    /// Serves until nobody waits.
    async fn serve(&self) {
        let mut hints = self.signals.watch_applied();
        let mut pace = Pace::new();
        self.look(self.shared.all()).await;
        while !self.shared.is_idle() {
            let groups = tokio::select! {
                hint = hints.recv() => match hint {
                    // It says where the checkpoint is: nothing to ask.
                    Ok(moves) => {
                        self.apply(&moves);
                        Vec::new()
                    }
                    // Missed some: poll.
                    Err(_) => self.shared.all(),
                },
                () = self.shared.changed.notified() => {
                    pace.quicken();
                    self.shared.unseen()
                }
                () = tokio::time::sleep_until(pace.next()) => Vec::new(),
            };
            let due = pace.is_due();
            let found = self.look(if due { self.shared.all() } else { groups }).await;
            if due {
                pace.polled(found);
            }
        }
    }

    fn apply(&self, moves: &[Applied]) {
        self.shared.lock().release(|group, waiter| {
            moves.iter().any(|moved| {
                moved.group == *group
                    && moved.partition == waiter.position.partition
                    && moved.offset >= waiter.position.offset
            })
        });
    }

    /// Asks for these groups' checkpoints and tells who waits; whether anybody could be told.
    async fn look(&self, groups: Vec<GroupName>) -> bool {
        let mut found = false;
        for asked in groups {
            match self.store.checkpoints(&asked).await {
                Ok(checkpoints) => {
                    let done = |group: &GroupName, waiter: &Waiter| {
                        *group == asked && passed(&checkpoints, waiter.position)
                    };
                    found |= self.shared.lock().release(done) > 0;
                }
                // The next poll asks again.
                Err(error) => tracing::debug!(%error, "checkpoints could not be read"),
            }
        }
        found
    }
}
