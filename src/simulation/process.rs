//! One process of a simulated service: it starts, works, dies in one way or another, and comes back
//! as another incarnation.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    broker::SimulatedBroker,
    store::SimulatedStore,
    world::{Door, Gate, World},
};
use crate::{
    domain::Service,
    immediate::{AsyncCommandProcessor, ImmediateSettings, ProcessorParts},
    ingress::{CommitSettings, GroupCommit, OutboxLimit, Validator, amqp},
    service::{Process, ProcessParts, ProcessSettings},
    store::{Role, Store},
};

/// How long a process in order may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long a commit of the intake is tried: short, so that callers hear "unknown" at times.
const GIVE_UP_AFTER_MS: u64 = 1_500;
const MAX_COMMAND_BYTES: usize = 256 * 1024;

/// What a process should be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Run.
    Run,
    /// Stop in order; another incarnation takes its place. Counts.
    Replace(u32),
    /// Stop in order, for good.
    End,
}

pub(super) struct SimulatedProcess {
    pub(super) name: String,
    pub(super) roles: Vec<Role>,
    pub(super) service: Service,
    pub(super) settings: ProcessSettings,
    pub(super) world: Arc<World>,
    pub(super) orders: watch::Receiver<Order>,
    /// The present incarnation, for whoever wants to harm it.
    pub(super) gate: watch::Sender<Arc<Gate>>,
}

/// What one incarnation is made of. Dropping it is a crash.
struct Incarnation {
    process: Process,
    intake: Option<IntakeTasks>,
}

struct IntakeTasks {
    stop: CancellationToken,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl SimulatedProcess {
    pub(super) async fn live(mut self) {
        let mut incarnation = 0_u32;
        loop {
            incarnation += 1;
            let gate = Arc::new(Gate::new(format!("{}.{incarnation}", self.name)));
            self.gate.send_replace(gate.clone());
            // Who was to be replaced has been, if it died meanwhile.
            if *self.orders.borrow_and_update() == Order::End {
                return;
            }
            let ends = self.live_once(&gate).await;
            self.close_door(&gate);
            gate.kill();
            if ends {
                return;
            }
            tokio::time::sleep(self.absence()).await;
        }
    }

    /// Some come back at once, some after the others have taken over.
    fn absence(&self) -> Duration {
        if !self.world.is_armed() {
            return Duration::from_millis(10);
        }
        let mut dice = self.world.dice();
        if dice.happens(5_000) { dice.millis(10, 500) } else { dice.millis(500, 9_000) }
    }

    /// Whether it was told to end.
    async fn live_once(&mut self, gate: &Arc<Gate>) -> bool {
        let started = tokio::select! {
            biased;
            () = gate.died() => return false,
            started = self.start(gate) => started,
        };
        let Some(incarnation) = started else { return false };
        let order = tokio::select! {
            biased;
            () = gate.died() => return false,
            changed = self.orders.changed() => match changed {
                Ok(()) => *self.orders.borrow_and_update(),
                Err(_) => Order::End,
            },
        };
        self.close_door(gate);
        if let Some(intake) = &incarnation.intake {
            intake.stop.cancel();
        }
        tokio::select! {
            biased;
            () = gate.died() => {}
            () = incarnation.process.stop(STOP_WITHIN) => {}
        }
        order == Order::End
    }

    fn close_door(&self, gate: &Arc<Gate>) {
        self.world.doors().retain(|door| !Arc::ptr_eq(&door.gate, gate));
    }

    /// `None`: the store did not let it.
    async fn start(&self, gate: &Arc<Gate>) -> Option<Incarnation> {
        let world = &self.world;
        let store = Arc::new(SimulatedStore { world: world.clone(), gate: gate.clone() });
        let broker = Arc::new(SimulatedBroker {
            world: world.clone(),
            gate: gate.clone(),
            inner: world.broker.connect(),
        });
        let started = Process::start(ProcessParts {
            service: self.service.clone(),
            store: store.clone(),
            broker: broker.clone(),
            roles: self.roles.clone(),
            name: gate.name.clone(),
            settings: self.settings.clone(),
        });
        let process = match started.await {
            Ok(process) => process,
            Err(error) => {
                world.remark(format_args!("{} does not start: {error}", gate.name));
                return None;
            }
        };
        let intake = self
            .roles
            .contains(&Role::Ingress)
            .then(|| self.open_door(gate, store, broker, &process));
        Some(Incarnation { process, intake })
    }

    fn open_door(
        &self,
        gate: &Arc<Gate>,
        store: Arc<dyn Store>,
        broker: Arc<SimulatedBroker>,
        process: &Process,
    ) -> IntakeTasks {
        let settings =
            CommitSettings { give_up_after_ms: GIVE_UP_AFTER_MS, ..CommitSettings::default() };
        let (commit, committing) = GroupCommit::start(
            store.clone(),
            process.signals().clone(),
            OutboxLimit::default(),
            &settings,
        );
        let stop = CancellationToken::new();
        let (immediate, executing) = AsyncCommandProcessor::start(ProcessorParts {
            registry: self.service.registry().clone(),
            store: store.clone(),
            executor: process.executor().clone(),
            commit: commit.clone(),
            outbox: OutboxLimit::default(),
            signals: process.signals().clone(),
            clock: process.clock().clone(),
            member: process.id(),
            due: process.lane_partitions(),
            settings: self.lane_settings(),
            stop: stop.clone(),
        });
        let intake = amqp::run(amqp::AmqpIntakeParts {
            broker,
            store,
            validator: Validator::new(self.service.registry().clone()).with_immediate_lane(true),
            commit: commit.clone(),
            immediate: Some(immediate.clone()),
            max_body_bytes: MAX_COMMAND_BYTES,
            stop: stop.clone(),
        });
        let tasks = [committing, executing, tokio::spawn(intake)].map(AbortOnDropHandle::new);
        self.world.doors().push(Door { gate: gate.clone(), commit, immediate });
        IntakeTasks { stop, _tasks: tasks }
    }

    /// So small that there is no room at times, and that what waits does not fit into one batch.
    fn lane_settings(&self) -> ImmediateSettings {
        let waiting_commands = match self.world.dice().below(4) {
            0 => 1,
            1 => 3,
            _ => 40,
        };
        ImmediateSettings {
            executions: 6,
            transactions: 2,
            waiting_commands,
            ..ImmediateSettings::default()
        }
    }
}
