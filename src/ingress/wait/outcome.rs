//! Waits for commands to end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use crate::{
    message::{CommandId, Outcome, Partition},
    signals::Signals,
    store::Store,
};

/// How many commands are asked for in one query.
const CHUNK: usize = 1_000;

/// Tells callers when commands end. Cheap to clone.
#[derive(Clone)]
pub struct OutcomeWatcher {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
    max_waiters: usize,
}

#[derive(Default)]
struct Waiting {
    commands: HashMap<CommandId, Waited>,
    /// Those that may have ended before their waiter came, and that nobody has looked at since.
    unseen: Vec<CommandId>,
    waiters: usize,
    next_ticket: u64,
    stopped: bool,
}

struct Waited {
    partition: Partition,
    waiters: Vec<(u64, oneshot::Sender<Outcome>)>,
}

impl OutcomeWatcher {
    /// Starts the task; it ends at `shutdown`, and with it every wait.
    pub fn start(
        store: Arc<dyn Store>,
        signals: Signals,
        max_waiters: usize,
        shutdown: CancellationToken,
    ) -> Self {
        let shared =
            Arc::new(Shared { waiting: Mutex::default(), changed: Notify::new(), max_waiters });
        let task = Task { shared: shared.clone(), store, signals };
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
        self.register(partition, id, false)
    }

    /// Registers interest in a command that may have ended already: it is looked at at once.
    pub fn watch(&self, partition: Partition, id: CommandId) -> WaitForOutcome {
        self.register(partition, id, true)
    }

    fn register(&self, partition: Partition, id: CommandId, unseen: bool) -> WaitForOutcome {
        let mut waiting = self.shared.lock();
        if waiting.stopped || waiting.waiters >= self.shared.max_waiters {
            return WaitForOutcome { registration: None };
        }
        let (sender, receiver) = oneshot::channel();
        waiting.waiters += 1;
        waiting.next_ticket += 1;
        let ticket = waiting.next_ticket;
        let waited = waiting.commands.entry(id);
        let waited = waited.or_insert_with(|| Waited { partition, waiters: Vec::new() });
        waited.waiters.push((ticket, sender));
        if unseen {
            waiting.unseen.push(id);
        }
        drop(waiting);
        self.shared.changed.notify_one();
        let registration = Registration { shared: self.shared.clone(), id, ticket };
        WaitForOutcome { registration: Some((registration, receiver)) }
    }
}

/// A wait that was registered. Dropping it ends the interest.
pub struct WaitForOutcome {
    /// `None`: too many wait already, or the process stops; nothing is waited for.
    registration: Option<(Registration, oneshot::Receiver<Outcome>)>,
}

impl WaitForOutcome {
    /// The outcome; `None` if the command has not ended within `limit` or the process stops.
    pub async fn within(self, limit: Duration) -> Option<Outcome> {
        let (_registration, receiver) = self.registration?;
        tokio::time::timeout(limit, receiver).await.ok()?.ok()
    }
}

/// Takes the waiter out when its caller goes away.
struct Registration {
    shared: Arc<Shared>,
    id: CommandId,
    ticket: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        let Some(waited) = waiting.commands.get_mut(&self.id) else { return };
        let before = waited.waiters.len();
        waited.waiters.retain(|(ticket, _)| *ticket != self.ticket);
        let (gone, empty) = (before - waited.waiters.len(), waited.waiters.is_empty());
        waiting.waiters -= gone;
        if empty {
            waiting.commands.remove(&self.id);
        }
    }
}

impl Shared {
    /// No panic happens under this lock; if one did, the map would still be whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        self.lock().commands.is_empty()
    }

    fn stop(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { stopped: true, ..Waiting::default() };
    }

    /// All that are waited for.
    fn all(&self) -> Vec<(Partition, CommandId)> {
        let mut waiting = self.lock();
        waiting.unseen.clear();
        waiting.commands.iter().map(|(id, waited)| (waited.partition, *id)).collect()
    }

    /// Those that nobody has looked at.
    fn unseen(&self) -> Vec<(Partition, CommandId)> {
        let unseen = std::mem::take(&mut self.lock().unseen);
        self.waited_of(&unseen)
    }

    /// Those of `ids` that are waited for.
    fn waited_of(&self, ids: &[CommandId]) -> Vec<(Partition, CommandId)> {
        let waiting = self.lock();
        let waited = |id: &CommandId| Some((waiting.commands.get(id)?.partition, *id));
        ids.iter().filter_map(waited).collect()
    }

    fn finish(&self, ended: Vec<(CommandId, Outcome)>) {
        let mut waiting = self.lock();
        for (id, outcome) in ended {
            let Some(waited) = waiting.commands.remove(&id) else { continue };
            waiting.waiters -= waited.waiters.len();
            for (_, waiter) in waited.waiters {
                // Gone meanwhile: nobody to tell.
                let _ = waiter.send(outcome.clone());
            }
        }
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
            // While nobody waits, no hint is listened to.
            while self.shared.is_idle() {
                self.shared.changed.notified().await;
            }
            self.serve().await;
        }
    }

    /// Serves until nobody waits.
    async fn serve(&self) {
        let mut hints = self.signals.watch_ended();
        let mut pace = Pace::new();
        // What was registered before the hints were listened to may have ended unheard.
        self.look(self.shared.all()).await;
        while !self.shared.is_idle() {
            let hinted = tokio::select! {
                hint = hints.recv() => match hint {
                    Ok(ids) => self.shared.waited_of(&drain(&mut hints, ids.to_vec())),
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
            let found = self.look(if due { self.shared.all() } else { hinted }).await;
            if due {
                pace.polled(found);
            }
        }
    }

    /// Asks the store for these and tells who waits; whether any had ended.
    async fn look(&self, commands: Vec<(Partition, CommandId)>) -> bool {
        let mut found = false;
        for chunk in commands.chunks(CHUNK) {
            match self.store.outcomes(chunk).await {
                Ok(ended) => {
                    found |= !ended.is_empty();
                    self.shared.finish(ended);
                }
                // The next poll asks again.
                Err(error) => tracing::debug!(%error, "outcomes could not be read"),
            }
        }
        found
    }
}

/// Further hints that are there already, so that they share the query.
fn drain(
    hints: &mut broadcast::Receiver<Arc<[CommandId]>>,
    mut ids: Vec<CommandId>,
) -> Vec<CommandId> {
    while let Ok(more) = hints.try_recv() {
        ids.extend_from_slice(&more);
    }
    ids
}
