//! The handle through which commands are executed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    ImmediateSettings, LaneStats,
    answer::{Dispatched, End, Executed},
    cancelled, due, reconcile,
    room::{Room, Ticket, Waits},
    run,
    stats::Stats,
};
use crate::{
    domain::Registry,
    execute::{Executor, RetryPolicy, StoreClock},
    ingress::{Acceptance, Answer, GroupCommit, OutboxLimit, Refusal},
    message::{CommandId, Lane, MemberId, PartitionCount, StreamId, Timestamp},
    observe::names,
    signals::Signals,
    store::{NewCommand, Store, WhenDue},
    worker::LanePartitions,
};

/// What the immediate lane works with.
pub struct ProcessorParts {
    /// The registered types.
    pub registry: Arc<Registry>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Executes; shared with the queued lane of this process.
    pub executor: Arc<Executor>,
    /// Accepts what is answered before it is executed, and what takes the queued lane.
    pub commit: GroupCommit,
    /// Whether the outbox is full.
    pub outbox: OutboxLimit,
    /// Hints of this process.
    pub signals: Signals,
    /// The store's clock, as this process knows it.
    pub clock: StoreClock,
    /// The incarnation of this process.
    pub member: MemberId,
    /// For which partitions it claims what fell due.
    pub due: LanePartitions,
    /// How it works.
    pub settings: ImmediateSettings,
    /// Ends it: nothing more is taken, what runs is awaited. What this process holds then is taken
    /// over by others.
    pub stop: CancellationToken,
}

/// Executes commands in this process. Cheap to clone.
#[derive(Clone)]
pub struct AsyncCommandProcessor {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) parts: ProcessorParts,
    pub(super) partitions: PartitionCount,
    room: Mutex<Room<Waiting>>,
    pub(super) work: Notify,
    pub(super) stats: Stats,
}

/// A command in the room.
pub(super) struct Waiting {
    pub(super) command: NewCommand,
    /// When it was accepted, if it was: this process holds it.
    pub(super) held: Option<Timestamp>,
    ready: bool,
    pub(super) arrived: Instant,
    pub(super) answer: Option<oneshot::Sender<End>>,
}

impl Waits for Waiting {
    fn id(&self) -> CommandId {
        self.command.id
    }

    /// The fixed part: the structures around it.
    fn bytes(&self) -> usize {
        const FIXED: usize = 1_024;
        FIXED + self.command.payload.as_str().len()
    }

    fn is_ready(&self) -> bool {
        self.ready
    }
}

impl AsyncCommandProcessor {
    /// Starts the lane. The task ends after `stop`, when nothing runs any more.
    pub fn start(parts: ProcessorParts) -> (Self, JoinHandle<()>) {
        let room = Room::new(parts.settings.waiting_commands, parts.settings.waiting_bytes);
        let shared = Arc::new(Shared {
            partitions: parts.store.identity().partitions,
            room: Mutex::new(room),
            work: Notify::new(),
            stats: Stats::default(),
            parts,
        });
        let task = tokio::spawn(run::run(shared.clone()));
        tokio::spawn(reconcile::run(shared.clone()));
        tokio::spawn(cancelled::run(shared.clone()));
        tokio::spawn(due::run(shared.clone()));
        (Self { shared }, task)
    }

    /// Executes a command whose caller waits up to `wait`. When that is over and it has not been
    /// started, it is made durable and goes on; when it has, its end is awaited. If this future is
    /// dropped, the command is still executed or refused as a whole.
    pub async fn execute(&self, command: NewCommand, wait: Duration) -> Result<Executed, Refusal> {
        self.shared.goes_on()?;
        if self.shared.parts.outbox.is_full() {
            return Err(Refusal::OutboxFull);
        }
        // A strict one may run at once if nothing is before it; the transaction finds out.
        if wait.is_zero() || command.not_before.is_some() || command.lane == Lane::Queued {
            return self.accept(command).await;
        }
        failpoint!(ImmediateArrived);
        let stream = command.stream.clone();
        let (sender, mut end) = oneshot::channel();
        let ticket = match self.shared.enter(command, true, Some(sender)) {
            Ok(ticket) => ticket,
            Err(refused) => return self.without_room(*refused).await,
        };
        tokio::select! {
            biased;
            end = &mut end => return told(end),
            () = tokio::time::sleep(wait) => {}
        }
        if let Some(durable) = self.make_durable(&stream, ticket) {
            let answer = durable.await.unwrap_or_else(|_| Err(broke_off()))?;
            return Ok(Executed::Accepted(answer, Lane::Immediate));
        }
        told(end.await)
    }

    /// Makes commands durable, and has those of the immediate lane executed: each is answered before
    /// it is. Those of the queued lane are accepted with them, all in the order given.
    pub async fn dispatch_together(
        &self,
        commands: Vec<NewCommand>,
    ) -> Result<Vec<Answer>, Refusal> {
        if commands.iter().any(|command| command.lane == Lane::Immediate) {
            self.shared.goes_on()?;
        }
        let mut placed = Vec::with_capacity(commands.len());
        // What came behind one that found no room must not overtake it: it shares its fate.
        let mut without_room: HashMap<StreamId, bool> = HashMap::new();
        for command in commands {
            placed.push(match without_room.get(&command.stream) {
                Some(queues) if command.lane == Lane::Immediate => {
                    self.shared.count_refused(if *queues { "queued" } else { "refused" }, 1);
                    if *queues { Placed::Queue(to_queue(command)) } else { Placed::Nowhere }
                }
                _ => {
                    let (stream, lane) = (command.stream.clone(), command.lane);
                    let place = self.shared.place(command, None);
                    match &place {
                        Placed::Nowhere => drop(without_room.insert(stream, false)),
                        Placed::Queue(queued) if queued.lane != lane => {
                            without_room.insert(stream, true);
                        }
                        _ => {}
                    }
                    place
                }
            });
        }
        self.accept_placed(placed).await
    }

    /// Makes one command durable and has it executed.
    pub async fn dispatch(&self, command: NewCommand) -> Result<Dispatched, Refusal> {
        self.shared.goes_on()?;
        let (sender, end) = oneshot::channel();
        let placed = self.shared.place(command, Some(sender));
        let runs_here = matches!(placed, Placed::Here { .. });
        let mut answers = self.accept_placed(vec![placed]).await?;
        let acceptance = answers.pop().unwrap_or_else(|| Err(broke_off()))?;
        Ok(Dispatched { acceptance, end: runs_here.then_some(end) })
    }

    /// How the lane stands.
    pub fn stats(&self) -> LaneStats {
        let (commands, bytes, running) = self.shared.room().load();
        let stats = &self.shared.stats;
        LaneStats {
            running,
            waiting: commands - running,
            refused: stats.refused.load(Ordering::Relaxed),
            bytes,
            executed: stats.executed.load(Ordering::Relaxed),
            latency: stats.latencies.read(),
        }
    }

    async fn accept(&self, command: NewCommand) -> Result<Executed, Refusal> {
        let placed = self.shared.place(command, None);
        let lane = placed.command().map_or(Lane::Immediate, |command| command.lane);
        let answer = self.accept_placed(vec![placed]).await?.pop();
        answer.unwrap_or_else(|| Err(broke_off())).map(|it| Executed::Accepted(it, lane))
    }

    /// Accepts what has its place. The task goes on if the caller does not: no place in the room is
    /// left behind.
    async fn accept_placed(&self, placed: Vec<Placed>) -> Result<Vec<Answer>, Refusal> {
        let shared = self.shared.clone();
        let count = placed.len();
        let accepting = tokio::spawn(async move { shared.accept_placed(placed).await });
        if planted!(ImmediateAnsweredBeforeAccept) {
            let accepted = Acceptance { accepted_at: Timestamp::UNIX_EPOCH, replay: false };
            return Ok(vec![Ok(accepted); count]);
        }
        accepting.await.map_err(|_| broke_off())?
    }

    /// Makes a command durable that waits still. `None`: it is being executed, or was.
    fn make_durable(&self, stream: &StreamId, ticket: Ticket) -> Option<JoinHandle<Answer>> {
        let command = self.shared.room().change(stream, ticket, |waiting| {
            // Those of its stream that came later wait until it is durable.
            waiting.ready = false;
            let queues = self.shared.must_queue(&waiting.command);
            let held_by = (!queues).then_some(self.shared.parts.member);
            NewCommand { held_by, ..waiting.command.clone() }
        })?;
        let shared = self.shared.clone();
        Some(tokio::spawn(async move {
            failpoint!(ImmediateWaitIsOver);
            let answer = shared.parts.commit.accept(command.clone()).await;
            if command.held_by.is_some() {
                shared.accepted(&command, ticket, &answer);
            } else {
                shared.leave(&command, ticket, None);
            }
            failpoint!(ImmediateMadeDurable);
            answer
        }))
    }
}

/// Where a command goes.
enum Placed {
    /// It is executed here, and has its place.
    Here { command: NewCommand, ticket: Ticket },
    /// It takes the queue.
    Queue(NewCommand),
    /// There is no room.
    Nowhere,
}

impl Shared {
    /// Commands were cancelled: those that wait in the room leave it, and whoever waits for them asks
    /// the store. One that nobody holds has its own fate, though it has the same id.
    pub(super) fn cancelled(&self, ids: &[CommandId]) {
        let mut room = self.room();
        let left: Vec<_> =
            ids.iter().filter_map(|id| room.remove_id(*id, |it| it.held.is_some())).collect();
        drop(room);
        if !left.is_empty() {
            // Those behind them may have their turn.
            self.work.notify_one();
        }
    }

    /// A lane that stops has no room, which is not to be told as if it were full.
    fn goes_on(&self) -> Result<(), Refusal> {
        if self.parts.stop.is_cancelled() { Err(Refusal::Stopping) } else { Ok(()) }
    }

    pub(super) fn room(&self) -> MutexGuard<'_, Room<Waiting>> {
        // No panic happens under this lock; if one did, the room would still be whole.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Strict commands hold each other in the order of their log: those that are answered before they
    /// run take their place there at once. Delayed ones take theirs in the schedule.
    fn must_queue(&self, command: &NewCommand) -> bool {
        command.lane == Lane::Queued
            || command.not_before.is_some()
            || self.parts.registry.is_strict(&command.command_type)
    }

    fn enter(
        &self,
        command: NewCommand,
        ready: bool,
        answer: Option<oneshot::Sender<End>>,
    ) -> Result<Ticket, Box<NewCommand>> {
        let stream = command.stream.clone();
        let arrived = Instant::now();
        let waiting = Box::new(Waiting { command, held: None, ready, arrived, answer });
        let entered = self.room().enter(&stream, waiting);
        if ready {
            self.work.notify_one();
        }
        entered.map_err(|refused| Box::new(refused.command))
    }

    /// A command that this process holds by the store; it may run.
    pub(super) fn enter_held(
        &self,
        command: NewCommand,
        accepted_at: Timestamp,
    ) -> Result<(), Box<NewCommand>> {
        let stream = command.stream.clone();
        let (held, arrived) = (Some(accepted_at), Instant::now());
        let waiting = Box::new(Waiting { command, held, ready: true, arrived, answer: None });
        let entered = self.room().enter(&stream, waiting);
        entered.map(drop).map_err(|refused| Box::new(refused.command))
    }

    fn place(&self, mut command: NewCommand, answer: Option<oneshot::Sender<End>>) -> Placed {
        if command.not_before.is_some() {
            let is_strict = self.parts.registry.is_strict(&command.command_type);
            command.when_due = WhenDue::of(command.lane, is_strict);
        }
        if self.must_queue(&command) {
            return Placed::Queue(command);
        }
        let held = NewCommand { held_by: Some(self.parts.member), ..command.clone() };
        match self.enter(command, false, answer) {
            Ok(ticket) => Placed::Here { command: held, ticket },
            Err(command) if command.or_queued => {
                self.count_refused("queued", 1);
                Placed::Queue(to_queue(*command))
            }
            Err(_) => {
                self.count_refused("refused", 1);
                Placed::Nowhere
            }
        }
    }

    pub(super) fn count_refused(&self, what: &'static str, commands: usize) {
        let commands = commands as u64;
        self.stats.refused.fetch_add(commands, Ordering::Relaxed);
        metrics::counter!(names::IMMEDIATE_REFUSED_TOTAL, "became" => what).increment(commands);
    }

    async fn accept_placed(self: Arc<Self>, placed: Vec<Placed>) -> Result<Vec<Answer>, Refusal> {
        let commands = placed.iter().filter_map(Placed::command).cloned().collect();
        failpoint!(ImmediateBeforeAccept);
        let accepted = self.parts.commit.accept_together(commands).await;
        failpoint!(ImmediateAccepted);
        let refused = accepted.as_ref().err().cloned();
        if let Some(refusal) = refused.clone().filter(|it| !matches!(it, Refusal::Unknown(_))) {
            // Nothing was accepted, of any of them.
            for placed in &placed {
                if let Placed::Here { command, ticket } = placed {
                    self.leave(command, *ticket, None);
                }
            }
            return Err(refusal);
        }
        let nowhere = placed.iter().all(|placed| matches!(placed, Placed::Nowhere));
        if nowhere && !placed.is_empty() {
            return Err(Refusal::Overloaded);
        }
        let mut accepted = accepted.unwrap_or_default().into_iter();
        let mut answers = Vec::with_capacity(placed.len());
        for placed in placed {
            if matches!(placed, Placed::Nowhere) {
                answers.push(Err(Refusal::Overloaded));
                continue;
            }
            let otherwise = || Err(refused.clone().unwrap_or_else(broke_off));
            let answer = accepted.next().unwrap_or_else(otherwise);
            if let Placed::Here { command, ticket } = &placed {
                self.accepted(command, *ticket, &answer);
            }
            answers.push(answer);
        }
        failpoint!(ImmediateAcknowledging);
        Ok(answers)
    }

    /// A command in the room was accepted, or was not: it may run, or leaves.
    fn accepted(self: &Arc<Self>, command: &NewCommand, ticket: Ticket, answer: &Answer) {
        match answer {
            Ok(Acceptance { accepted_at, replay: false }) => {
                self.may_run(command, ticket, *accepted_at);
            }
            Err(Refusal::Unknown(_)) => {
                // It may be held by us, and then nobody else executes it: find out.
                let (shared, command) = (self.clone(), command.clone());
                tokio::spawn(async move { shared.find_out(command, ticket).await });
            }
            Ok(acceptance) => self.leave(command, ticket, Some(*acceptance)),
            Err(_) => self.leave(command, ticket, None),
        }
    }

    fn may_run(&self, command: &NewCommand, ticket: Ticket, accepted_at: Timestamp) {
        self.room().change(&command.stream, ticket, |waiting| {
            waiting.held = Some(accepted_at);
            waiting.ready = waiting.answer.is_some() || !planted!(HeldForgotten);
        });
        self.work.notify_one();
    }

    fn leave(&self, command: &NewCommand, ticket: Ticket, acceptance: Option<Acceptance>) {
        let left = self.room().remove(&command.stream, ticket);
        self.work.notify_one();
        if let Some((answer, acceptance)) = left.and_then(|it| it.answer).zip(acceptance) {
            let _ = answer.send(End::Elsewhere(acceptance));
        }
    }

    /// Asks until the store says whether it has the command. Whether this process holds it is found
    /// out when it is executed: only then is it ended by it.
    async fn find_out(self: Arc<Self>, command: NewCommand, ticket: Ticket) {
        let mut delays = RetryPolicy::forever().start();
        // When the process stops, others take over what it holds.
        while delays.wait().await && !self.parts.stop.is_cancelled() {
            // Whether it is there is asked of the store, whatever the door says.
            let place = (self.partitions.of(&command.stream), command.id);
            if self.parts.store.held(&[place]).await.is_ok_and(|held| !held.is_empty()) {
                return self.may_run(&command, ticket, self.parts.clock.now());
            }
            match self.parts.commit.accept(command.clone()).await {
                Ok(acceptance) => {
                    return self.may_run(&command, ticket, acceptance.accepted_at);
                }
                Err(Refusal::Conflict | Refusal::Unstorable(_) | Refusal::Stopping) => break,
                Err(refusal) => {
                    tracing::warn!(?refusal, command = %command.id, "not known whether it was accepted");
                }
            }
        }
        self.leave(&command, ticket, None);
    }
}

impl AsyncCommandProcessor {
    async fn without_room(&self, command: NewCommand) -> Result<Executed, Refusal> {
        if !command.or_queued {
            self.shared.count_refused("refused", 1);
            return Err(Refusal::Overloaded);
        }
        self.shared.count_refused("queued", 1);
        let accepted = self.shared.parts.commit.accept(to_queue(command)).await?;
        failpoint!(ImmediateQueued);
        Ok(Executed::Accepted(accepted, Lane::Queued))
    }
}

impl Placed {
    fn command(&self) -> Option<&NewCommand> {
        match self {
            Self::Here { command, .. } | Self::Queue(command) => Some(command),
            Self::Nowhere => None,
        }
    }
}

fn to_queue(command: NewCommand) -> NewCommand {
    let id = if planted!(FallbackNewId) { CommandId::generate() } else { command.id };
    NewCommand { id, lane: Lane::Queued, held_by: None, when_due: WhenDue::Log, ..command }
}

fn told(end: Result<End, oneshot::error::RecvError>) -> Result<Executed, Refusal> {
    match end {
        Ok(End::Ended(acceptance, outcome)) => Ok(Executed::Ended(acceptance, outcome)),
        Ok(End::Elsewhere(acceptance)) => Ok(Executed::Accepted(acceptance, Lane::Immediate)),
        Ok(End::Refused(refusal)) => Err(refusal),
        Err(_) => Err(broke_off()),
    }
}

fn broke_off() -> Refusal {
    Refusal::Unknown("executing broke off".into())
}
