//! Who waits for what.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics::{Gauge, gauge};
use tokio::sync::{Notify, oneshot};

use super::command::{NoRoom, Told};
use crate::{
    latest,
    message::{CommandId, Outcome, Partition},
    observe::names,
    store::CommandProgress,
};

/// The newest thing told of a command; `None`: nothing yet.
pub(super) type News = latest::Receiver<Option<Arc<Told>>>;

pub(super) struct Shared {
    waiting: Mutex<Waiting>,
    pub(super) changed: Notify,
    max_waiters: usize,
    /// How many wait for an outcome, and how many watch.
    gauges: [Gauge; 2],
}

#[derive(Default)]
struct Waiting {
    commands: HashMap<CommandId, Watched>,
    /// Those that may have changed before their waiter came, and that nobody has looked at since.
    unseen: Vec<CommandId>,
    waiters: usize,
    next_ticket: u64,
    stopped: bool,
}

/// Tells one who waits. In a box, because a channel has room for what it carries, and many wait.
type Teller = oneshot::Sender<Box<Outcome>>;

/// A command that somebody waits for.
struct Watched {
    partition: Partition,
    outcome: Vec<(u64, Teller)>,
    status: Option<Box<Status>>,
}

/// A command whose every change somebody watches.
struct Status {
    /// How far the command was when it was told last; `None`: a watcher came who knows otherwise.
    known: Option<CommandProgress>,
    /// The ticket at which that watcher came: what was read before is too old to be told.
    since: u64,
    watchers: usize,
    /// It has ended, and the end was told.
    ended: bool,
    /// `None`: the watching was ended.
    teller: Option<latest::Sender<Option<Arc<Told>>>>,
    /// What watchers get a copy of.
    hearer: News,
}

/// What to ask the store for.
#[derive(Default)]
pub(super) struct Questions {
    pub(super) outcomes: Vec<(Partition, CommandId)>,
    pub(super) statuses: Vec<(Partition, CommandId)>,
}

impl Questions {
    pub(super) fn len(&self) -> usize {
        self.outcomes.len() + self.statuses.len()
    }

    fn add(&mut self, id: CommandId, watched: &Watched) {
        if !watched.outcome.is_empty() {
            self.outcomes.push((watched.partition, id));
        }
        if watched.status.as_ref().is_some_and(|status| !status.ended) {
            self.statuses.push((watched.partition, id));
        }
    }
}

/// When something was read: before or after a watcher came.
#[derive(Clone, Copy)]
pub(super) struct ReadAt(u64);

impl Shared {
    pub(super) fn new(max_waiters: usize) -> Self {
        let gauge = |kind: &'static str| gauge!(names::WATCHERS, "kind" => kind);
        Self {
            waiting: Mutex::default(),
            changed: Notify::new(),
            max_waiters,
            gauges: [gauge("outcome"), gauge("status")],
        }
    }

    /// No panic happens under this lock; if one did, the map would still be whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers somebody who waits for an outcome.
    pub(super) fn wait(
        self: &Arc<Self>,
        partition: Partition,
        id: CommandId,
        unseen: bool,
    ) -> Result<(Registration, oneshot::Receiver<Box<Outcome>>), NoRoom> {
        let mut waiting = self.lock();
        let ticket = waiting.admit(self.max_waiters)?;
        let (sender, receiver) = oneshot::channel();
        let tellers = &mut waiting.watched(partition, id).outcome;
        if tellers.is_empty() {
            // Most commands are waited for by one.
            tellers.reserve_exact(1);
        }
        tellers.push((ticket, sender));
        if unseen {
            waiting.unseen.push(id);
        }
        drop(waiting);
        Ok((self.registered(id, Some(ticket)), receiver))
    }

    /// Registers somebody who watches, and knows how far the command was.
    pub(super) fn watch(
        self: &Arc<Self>,
        partition: Partition,
        id: CommandId,
        known: CommandProgress,
    ) -> Result<(Registration, News), NoRoom> {
        let mut waiting = self.lock();
        let ticket = waiting.admit(self.max_waiters)?;
        waiting.unseen.push(id);
        let watched = waiting.watched(partition, id);
        let status = watched.status.get_or_insert_with(|| Box::new(Status::new(known)));
        if status.teller.is_none() {
            **status = Status { watchers: status.watchers, ..Status::new(known) };
        }
        status.watchers += 1;
        status.ended = false;
        if status.known != Some(known) {
            (status.known, status.since) = (None, ticket);
        }
        let mut latest = status.hearer.clone();
        // What was told before it came, it knows, or it is told anew.
        latest.take();
        drop(waiting);
        Ok((self.registered(id, None), latest))
    }

    fn registered(self: &Arc<Self>, id: CommandId, ticket: Option<u64>) -> Registration {
        self.gauge(ticket).increment(1);
        self.changed.notify_one();
        Registration { shared: self.clone(), id, ticket }
    }

    fn gauge(&self, ticket: Option<u64>) -> &Gauge {
        &self.gauges[usize::from(ticket.is_none())]
    }

    pub(super) fn stop(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { stopped: true, ..Waiting::default() };
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().commands.is_empty()
    }

    /// All that is waited for.
    pub(super) fn all(&self) -> Questions {
        let mut waiting = self.lock();
        waiting.unseen.clear();
        waiting.questions(|_| true)
    }

    /// All that is waited for in these partitions.
    pub(super) fn of_partitions(&self, partitions: &BTreeSet<Partition>) -> Questions {
        self.lock().questions(|watched| partitions.contains(&watched.partition))
    }

    /// What nobody has looked at.
    pub(super) fn unseen(&self) -> Questions {
        let mut waiting = self.lock();
        let unseen = std::mem::take(&mut waiting.unseen);
        waiting.questions_of(&unseen)
    }

    /// What is waited for of `ids`.
    pub(super) fn of_ids(&self, ids: &[CommandId]) -> Questions {
        self.lock().questions_of(ids)
    }

    pub(super) fn finish(&self, ended: Vec<(CommandId, Outcome)>) {
        let mut waiting = self.lock();
        for (id, outcome) in ended {
            let Some(watched) = waiting.commands.get_mut(&id) else { continue };
            let told = std::mem::take(&mut watched.outcome);
            waiting.forget_if_unwatched(id);
            for (_, waiter) in told {
                // Gone meanwhile: nobody to tell.
                let _ = waiter.send(Box::new(outcome.clone()));
            }
        }
    }

    /// What is read from now on is newer than what anybody knows who watches already.
    pub(super) fn reading(&self) -> ReadAt {
        ReadAt(self.lock().next_ticket)
    }

    /// Those that are not where they were when they were told last.
    pub(super) fn changed_of(
        &self,
        found: &[(CommandId, CommandProgress)],
    ) -> Vec<(CommandId, CommandProgress)> {
        let waiting = self.lock();
        let changed = |(id, progress): &&(CommandId, CommandProgress)| {
            let status = waiting.commands.get(id).and_then(|watched| watched.status.as_ref());
            status.is_some_and(|status| status.known != Some(*progress))
        };
        found.iter().filter(changed).copied().collect()
    }

    /// Tells watchers of a command that was read at `read`, when it had come so far.
    pub(super) fn tell(&self, id: CommandId, progress: CommandProgress, read: ReadAt, told: Told) {
        let mut waiting = self.lock();
        let Some(status) = waiting.commands.get_mut(&id).and_then(|it| it.status.as_mut()) else {
            return;
        };
        if status.since > read.0 {
            // Somebody came meanwhile who may know better.
            waiting.unseen.push(id);
            drop(waiting);
            self.changed.notify_one();
            return;
        }
        status.known = Some(progress);
        status.ended = told.last;
        if let Some(teller) = &status.teller {
            teller.send_replace(Some(Arc::new(told)));
        }
    }

    /// Ends the watching of a command that is not there any more, or cannot be told.
    pub(super) fn end_watching(&self, id: CommandId) {
        let mut waiting = self.lock();
        if let Some(status) = waiting.commands.get_mut(&id).and_then(|it| it.status.as_mut()) {
            (status.teller, status.ended) = (None, true);
        }
    }
}

impl Waiting {
    /// A place, if there is one.
    fn admit(&mut self, max_waiters: usize) -> Result<u64, NoRoom> {
        if self.stopped {
            return Err(NoRoom::Stopping);
        }
        if self.waiters >= max_waiters {
            return Err(NoRoom::Full);
        }
        self.waiters += 1;
        self.next_ticket += 1;
        Ok(self.next_ticket)
    }

    fn watched(&mut self, partition: Partition, id: CommandId) -> &mut Watched {
        let watched = self.commands.entry(id);
        watched.or_insert_with(|| Watched { partition, outcome: Vec::new(), status: None })
    }

    fn questions(&self, of: impl Fn(&Watched) -> bool) -> Questions {
        let mut questions = Questions::default();
        self.commands
            .iter()
            .filter(|(_, watched)| of(watched))
            .for_each(|(id, watched)| questions.add(*id, watched));
        questions
    }

    fn questions_of(&self, ids: &[CommandId]) -> Questions {
        let mut questions = Questions::default();
        for id in ids {
            if let Some(watched) = self.commands.get(id) {
                questions.add(*id, watched);
            }
        }
        questions
    }

    fn forget_if_unwatched(&mut self, id: CommandId) {
        if self.commands.get(&id).is_some_and(|it| it.outcome.is_empty() && it.status.is_none()) {
            self.commands.remove(&id);
        }
    }
}

impl Status {
    fn new(known: CommandProgress) -> Self {
        let (teller, hearer) = latest::channel(None);
        let teller = Some(teller);
        Self { known: Some(known), since: 0, watchers: 0, ended: false, teller, hearer }
    }

    /// After a watcher has gone; `None` if it was the last one.
    fn without_one(mut self: Box<Self>) -> Option<Box<Self>> {
        self.watchers -= 1;
        (self.watchers > 0).then_some(self)
    }
}

/// Takes the waiter out when its caller goes away.
pub(super) struct Registration {
    shared: Arc<Shared>,
    id: CommandId,
    /// `None`: it watches.
    ticket: Option<u64>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.gauge(self.ticket).decrement(1);
        let mut waiting = self.shared.lock();
        if waiting.stopped {
            return;
        }
        waiting.waiters -= 1;
        let Some(watched) = waiting.commands.get_mut(&self.id) else { return };
        match self.ticket {
            Some(mine) => watched.outcome.retain(|(ticket, _)| *ticket != mine),
            None => {
                watched.status = watched.status.take().and_then(Status::without_one);
            }
        }
        waiting.forget_if_unwatched(self.id);
    }
}
