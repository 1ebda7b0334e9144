//! One history, from its seed to its verdict.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Dice, Evidence, History, Scenario, SimulationError, SimulationSettings,
    canceller::{self, Canceller},
    checks::{self, Heard},
    client::{Clients, INTAKE, Memory, REPLIES},
    harm::{Harm, Target},
    person::{self, Person},
    process::{Order, SimulatedProcess},
    recurring::Recurrences,
    world::{Clock, Gate, World},
};
use crate::{
    broker::local::{LocalBroker, LocalSettings},
    chance::Seeded,
    domain::Service,
    execute::{ExecutorSettings, PerType, RetrySchedule},
    housekeeping::RetentionSettings,
    ingress::Validator,
    message::{LogId, PartitionCount},
    recurring::RecurringSettings,
    relay::RelaySettings,
    service::{ProcessSettings, groups_of},
    store::{
        Role,
        sqlite::{ClockSource, SqliteStore},
    },
};

/// Few, so that commands share them.
const PARTITIONS: i64 = 4;
/// How long a healed service may go on without an attempt or an outcome until everything is done, in
/// simulated time. A stream of strict commands that fail comes to its end one attempt at a time.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long it may take in all.
const IN_ALL: Duration = Duration::from_hours(1);
/// How many call commands off.
const CANCELLERS: usize = 1;
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the history of a seed.
pub fn simulate(
    scenario: Box<dyn Scenario>,
    seed: u64,
    settings: &SimulationSettings,
) -> Result<History, SimulationError> {
    let mut dice = Dice::with(seed);
    let _seeded = Seeded::with(dice.fork());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(run(scenario, seed, dice, settings))
}

async fn run(
    scenario: Box<dyn Scenario>,
    seed: u64,
    mut dice: Dice,
    settings: &SimulationSettings,
) -> Result<History, SimulationError> {
    let service = scenario.service();
    let scenario = Arc::new(Mutex::new(scenario));
    let cast = casting(&mut dice);
    let world = Arc::new(build_world(dice, settings.prints)?);
    let replies = listen_to_replies(&world);

    let mut running = JoinSet::new();
    let mut targets = Vec::new();
    for (i, roles) in cast.into_iter().enumerate() {
        let (orders, received) = watch::channel(Order::Run);
        let (gate, gates) = watch::channel(Arc::new(Gate::new(String::new())));
        targets.push(Target { gate: gates, orders });
        let process = SimulatedProcess {
            name: format!("process-{i}"),
            roles,
            service: service.clone(),
            settings: process_settings(),
            world: world.clone(),
            orders: received,
            gate,
        };
        running.spawn(process.live());
    }
    let harm = Arc::new(Harm { world: world.clone(), targets });
    let harming = harm.clone();
    let harming = tokio::spawn(async move { harming.run().await });
    let done = person::Done::default();
    let people: Vec<_> = (0..person::PEOPLE)
        .map(|i| {
            let person = Person {
                world: world.clone(),
                scenario: scenario.clone(),
                name: format!("person-{i}"),
                done: done.clone(),
            };
            AbortOnDropHandle::new(tokio::spawn(person.work()))
        })
        .collect();
    let validator = Validator::new(service.registry().clone());
    let recurring = Arc::new(Recurrences::new(world.clone(), scenario.clone(), validator));
    let setting = tokio::spawn(recurring.clone().set());
    let told = canceller::Heard::default();
    let cancellers: Vec<_> = (0..CANCELLERS)
        .map(|i| {
            let (name, heard) = (format!("canceller-{i}"), told.clone());
            let canceller = Canceller { world: world.clone(), name, heard };
            AbortOnDropHandle::new(tokio::spawn(canceller.work()))
        })
        .collect();
    let memory = send_all(&world, &scenario, &service, settings).await;

    world.disarm();
    let mut violations = Vec::new();
    violations.extend(broken_off("setting", setting.await.map(drop)));
    violations.extend(broken_off("harm", harming.await));
    harm.heal();
    recurring.end().await?;
    if let Some(rest) = until_idle(&world, &service, &recurring).await {
        violations.push(format!("stuck after everything was healed: {rest}"));
    }
    for person in people.into_iter().chain(cancellers) {
        person.abort();
        if let Err(error) = person.await
            && !error.is_cancelled()
        {
            violations.push(format!("a person broke off: {error}"));
        }
    }
    for target in &harm.targets {
        target.orders.send_replace(Order::End);
    }
    while let Some(ended) = running.join_next().await {
        violations.extend(broken_off("a process", ended));
    }

    let evidence = read(&world)?;
    let memory = std::mem::take(&mut *memory.lock().unwrap_or_else(PoisonError::into_inner));
    let replies = std::mem::take(&mut *replies.lock().unwrap_or_else(PoisonError::into_inner));
    let done = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
    let (dead_letters, runs) = (dead_letters(&world), recurring.runs());
    let cancelled = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    let clock = world.clock.clone();
    let heard = Heard { memory, replies, dead_letters, done, runs, cancelled, clock };
    violations.extend(recurring.check(&evidence).await?);
    violations.extend(checks::all(&service, &evidence, &heard));
    let scenario = scenario.lock().unwrap_or_else(PoisonError::into_inner);
    violations.extend(scenario.check(&evidence));
    let trace = world.trace();
    Ok(History {
        seed,
        hash: trace.hash(),
        steps: trace.steps(),
        commands: evidence.commands.len(),
        succeeded: evidence.outcomes.iter().filter(|outcome| outcome.status == 1).count(),
        cancelled: evidence.outcomes.iter().filter(|outcome| outcome.status == 4).count(),
        simulated: world.clock.elapsed(),
        faults: world.faults(),
        violations,
    })
}

/// Which processes there are: every role at least twice, in one of several ways.
fn casting(dice: &mut Dice) -> Vec<Vec<Role>> {
    use Role::{CommandWorker, Ingress, ProjectionWorker, Relay};
    let all = || vec![Ingress, Relay, CommandWorker, ProjectionWorker];
    match dice.below(4) {
        0 => vec![all(), all()],
        1 => vec![all(), all(), all()],
        2 => vec![
            vec![Ingress, Relay],
            vec![Ingress, Relay],
            vec![CommandWorker, ProjectionWorker],
            vec![CommandWorker, ProjectionWorker],
        ],
        _ => vec![
            vec![Ingress, CommandWorker],
            vec![Ingress, CommandWorker, Relay],
            vec![Relay, ProjectionWorker],
            vec![ProjectionWorker],
        ],
    }
}

fn build_world(dice: Dice, prints: bool) -> Result<World, SimulationError> {
    let clock = Arc::new(Clock::starting_now());
    let told = clock.clone();
    let partitions = PartitionCount::new(PARTITIONS).unwrap_or(PartitionCount::DEFAULT);
    let source = ClockSource::new(move || told.now());
    let store = SqliteStore::in_memory(partitions, source, LogId::generate())?;
    let broker = LocalBroker::new(LocalSettings::default(), partitions);
    Ok(World::new(Arc::new(store), broker, clock, dice, prints))
}

/// Small enough for everything to happen in a short history.
fn process_settings() -> ProcessSettings {
    ProcessSettings {
        executor: ExecutorSettings {
            snapshot_every: 5,
            retry: PerType::all(RetrySchedule {
                immediate: 1,
                delays: [200, 1_000, 3_000].map(Duration::from_millis).into(),
                jitter: 0.2,
            }),
            ..ExecutorSettings::default()
        },
        relay: RelaySettings { page_rows: 8, ..RelaySettings::default() },
        // A history is shorter than anything is kept.
        retention: RetentionSettings::off(),
        // After a jump of the clock a few runs tell as much as many.
        recurring: RecurringSettings { most_at_once: 4, ..RecurringSettings::default() },
        ..ProcessSettings::default()
    }
}

/// Runs the clients to their end.
async fn send_all(
    world: &Arc<World>,
    scenario: &Arc<Mutex<Box<dyn Scenario>>>,
    service: &Service,
    settings: &SimulationSettings,
) -> Arc<Mutex<Memory>> {
    let memory = Arc::new(Mutex::new(Memory::default()));
    let clients = Arc::new(Clients {
        world: world.clone(),
        scenario: scenario.clone(),
        validator: Validator::new(service.registry().clone()).with_immediate_lane(true),
        memory: memory.clone(),
    });
    let mut running = JoinSet::new();
    let count = settings.clients.max(1);
    for i in 0..count {
        let share = settings.commands / count + usize::from(i < settings.commands % count);
        running.spawn(clients.clone().run(share));
    }
    while let Some(ended) = running.join_next().await {
        let broken_off = broken_off("a client", ended);
        memory.lock().unwrap_or_else(PoisonError::into_inner).complaints.extend(broken_off);
    }
    memory
}

/// What ends by itself must not end by a panic.
fn broken_off(who: &str, ended: Result<(), tokio::task::JoinError>) -> Option<String> {
    ended.err().map(|error| format!("{who} broke off: {error}"))
}

/// What came to the senders' reply queue, by correlation id.
type Replies = Arc<Mutex<Vec<String>>>;

fn listen_to_replies(world: &World) -> Replies {
    let heard = Replies::default();
    // A connection of its own: what breaks the processes' does not break it.
    let Ok(mut queue) = world.broker.connect().replies(REPLIES, usize::MAX) else { return heard };
    let kept = heard.clone();
    tokio::spawn(async move {
        while let Ok(reply) = queue.next().await {
            let correlation_id = reply.correlation_id.unwrap_or_default();
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(correlation_id);
        }
    });
    heard
}

/// What lies in the intake's dead-letter queue: the `message-id`s that were refused.
fn dead_letters(world: &World) -> Vec<String> {
    let queue = format!("{INTAKE}.dlq");
    let taken = std::iter::from_fn(|| world.broker.take(&queue));
    taken.filter_map(|letter| letter.header("adjutant-message-id").map(str::to_owned)).collect()
}

/// Waits until nothing is left to do; says what is, if it takes too long.
async fn until_idle(world: &World, service: &Service, recurring: &Recurrences) -> Option<String> {
    let last = Instant::now() + IN_ALL;
    let (mut deadline, mut done) = (Instant::now() + PATIENCE, 0);
    loop {
        let rest = match (recurring.owed().await, read(world)) {
            (Ok(0), Ok(evidence)) => {
                let now_done = evidence.attempts.len() + evidence.outcomes.len();
                if now_done > done {
                    (deadline, done) = (last.min(Instant::now() + PATIENCE), now_done);
                }
                rest(world, service, &evidence)
            }
            (Ok(owed), Ok(_)) => Some(format!("{owed} runs of recurring commands are owed")),
            (Err(error), _) => Some(error.to_string()),
            (_, Err(error)) => Some(error.to_string()),
        };
        rest.as_ref()?;
        if Instant::now() > deadline {
            return rest;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn rest(world: &World, service: &Service, evidence: &Evidence) -> Option<String> {
    let (Some(waiting), Some(unacknowledged)) =
        (world.broker.depth(INTAKE), world.broker.unacknowledged(INTAKE))
    else {
        return Some("there is no intake".to_owned());
    };
    let waiting = waiting + unacknowledged;
    if waiting > 0 {
        return Some(format!("{waiting} messages wait in the intake"));
    }
    if let Some(last) = evidence.due.last() {
        let last = Duration::from_micros(last.unsigned_abs());
        let beginning = world.clock.now() - world.clock.elapsed();
        let beginning = Duration::from_secs(beginning.unix_timestamp().unsigned_abs());
        let ahead = last.saturating_sub(beginning + world.clock.elapsed());
        if !ahead.is_zero() {
            world.clock.jump(ahead);
        }
        return Some(format!("{} commands wait for their time", evidence.due.len()));
    }
    let left = evidence.dead_letters.iter().filter(|letter| matches!(letter.state, 1 | 2)).count();
    if left > 0 {
        return Some(format!("{left} dead letters are open or retried"));
    }
    let loads = world.doors().iter().map(|door| door.immediate.stats()).collect::<Vec<_>>();
    let in_lanes: usize = loads.iter().map(|stats| stats.running + stats.waiting).sum();
    if in_lanes + evidence.immediate.len() > 0 {
        let held = evidence.immediate.len();
        return Some(format!("{in_lanes} commands are in immediate lanes, {held} are held"));
    }
    if evidence.outbox_rows > 0 {
        return Some(format!("{} rows are left in the outbox", evidence.outbox_rows));
    }
    let partitions = usize::try_from(PARTITIONS).unwrap_or_default();
    groups_of(service).iter().find_map(|group| {
        let is_commands = *group == crate::message::GroupName::commands();
        (0..partitions).find_map(|partition| {
            let is_here = |of: i16| usize::try_from(of) == Ok(partition);
            let head = if is_commands {
                evidence
                    .command_log
                    .iter()
                    .filter(|it| is_here(it.partition))
                    .map(|it| it.offset)
                    .max()
            } else {
                evidence.events.iter().filter(|it| is_here(it.partition)).map(|it| it.offset).max()
            };
            let (head, reached) = (head.unwrap_or_default(), evidence.reached(group, partition));
            (head != reached).then(|| format!("{group}.p{partition:02} is at {reached} of {head}"))
        })
    })
}

impl Evidence {
    fn reached(&self, group: &crate::message::GroupName, partition: usize) -> i64 {
        let of = |it: &&super::CheckpointFact| {
            it.group == group.as_str() && usize::try_from(it.partition) == Ok(partition)
        };
        self.checkpoints.iter().find(of).map_or(0, |checkpoint| checkpoint.reached)
    }
}

fn read(world: &World) -> Result<Evidence, SimulationError> {
    let evidence = world.store.evidence().transpose();
    let evidence = evidence.map_err(|error| SimulationError::Evidence(error.to_string()))?;
    evidence.ok_or_else(|| SimulationError::Evidence("the store is not in memory".into()))
}
