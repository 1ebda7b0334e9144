//! A running process: the roles it has, wired together, from start to a clean stop.

mod declare;
#[cfg(feature = "http")]
mod reports;
#[cfg(all(
    feature = "http",
    any(feature = "embedded", all(feature = "postgres", feature = "rabbitmq"))
))]
mod server;
mod workers;

#[cfg(feature = "http")]
pub use reports::OwnershipByHash;
#[cfg(all(feature = "http", feature = "embedded"))]
pub use server::EmbeddedSettings;
#[cfg(all(feature = "http", feature = "postgres", feature = "rabbitmq"))]
pub use server::ServicesSettings;
#[cfg(all(
    feature = "http",
    any(feature = "embedded", all(feature = "postgres", feature = "rabbitmq"))
))]
pub use server::{Backing, Server, ServerError, ServerSettings, serve, stop_signal};

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use crate::{
    broker::{Broker, BrokerError},
    domain::Service,
    execute::{Executor, ExecutorSettings, StoreClock},
    housekeeping::{self, HousekeepingParts, RetentionSettings},
    message::{GroupName, MemberId, Partition},
    recurring::{self, RecurringParts, RecurringSettings},
    relay::{self, RelayParts, RelaySettings},
    signals::Signals,
    store::{HintParts, Role, Store, StoreError},
    worker::{
        EntryStats, GroupSettings, HeadWatch, LanePartitions, Membership, MembershipParts,
        MembershipSettings, ParkingSettings, ProcessBreakers,
    },
};

/// How a process works.
#[derive(Clone, Debug, Default)]
pub struct ProcessSettings {
    /// Executor and aggregate cache.
    pub executor: ExecutorSettings,
    /// Relay.
    pub relay: RelaySettings,
    /// Partition loops.
    pub groups: GroupSettings,
    /// Heartbeats.
    pub membership: MembershipSettings,
    /// When a projection parks a key, and how it replays one.
    pub parking: ParkingSettings,
    /// How long things are kept (role relay).
    pub retention: RetentionSettings,
    /// How recurring commands are fired (role relay).
    pub recurring: RecurringSettings,
    /// The most bytes of documents that each projection remembers.
    pub projection_cache_bytes: ProjectionCacheBytes,
}

/// A limit in bytes, per projection (default 8 MiB).
#[derive(Clone, Copy, Debug)]
pub struct ProjectionCacheBytes(pub u64);

impl Default for ProjectionCacheBytes {
    fn default() -> Self {
        Self(8 * 1024 * 1024)
    }
}

/// What a process is made of.
pub struct ProcessParts {
    /// The domain.
    pub service: Service,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The road.
    pub broker: Arc<dyn Broker>,
    /// What it does. [`Role::Ingress`] only makes it a member: the ingress is started with
    /// [`Process::signals`] by whoever has the settings for it.
    pub roles: Vec<Role>,
    /// How it is shown to people: host and process id.
    pub name: String,
    /// How it works.
    pub settings: ProcessSettings,
}

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not answer or does not fit.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker holds something that does not fit.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A running process. Dropping it ends it at once, as a crash would: what it had in hand comes
/// again.
pub struct Process {
    id: MemberId,
    signals: Signals,
    clock: StoreClock,
    executor: Arc<Executor>,
    breakers: ProcessBreakers,
    membership: Membership,
    broker: Arc<dyn Broker>,
    stops: Stops,
    workers: Vec<AbortOnDropHandle<()>>,
    relay: Vec<AbortOnDropHandle<()>>,
    relay_partitions: watch::Receiver<Vec<Partition>>,
    /// End whatever listens to a stop, with the process.
    #[expect(dead_code, reason = "held, not used")]
    ends: [DropGuard; 3],
}

/// The parts stop one after the other.
struct Stops {
    workers: CancellationToken,
    relay: CancellationToken,
    rest: CancellationToken,
}

impl Process {
    /// Starts the roles. A broker that cannot be reached is waited for in the background; one that
    /// holds something incompatible is an error.
    pub async fn start(parts: ProcessParts) -> Result<Self, StartError> {
        let (store, broker) = (parts.store.clone(), parts.broker.clone());
        let clock = StoreClock::starting_at(store.now().await?);
        let (signals, stats) = (Signals::default(), EntryStats::default());
        let groups = groups_of(&parts.service);
        let stops = Stops {
            workers: CancellationToken::new(),
            relay: CancellationToken::new(),
            rest: CancellationToken::new(),
        };
        declare::at_start(&broker, &groups, stops.rest.clone()).await?;

        let members_changed = Arc::new(Notify::new());
        let relay_elsewhere = Arc::new(AtomicBool::new(false));
        store.clone().pass_hints(HintParts {
            signals: signals.clone(),
            members_changed: members_changed.clone(),
            relay_elsewhere: relay_elsewhere.clone(),
            stop: stops.rest.clone(),
        });
        let id = MemberId::generate();
        let membership = Membership::join(MembershipParts {
            store: store.clone(),
            id,
            name: parts.name.clone(),
            roles: parts.roles.clone(),
            groups: groups.clone(),
            clock: clock.clone(),
            stats: stats.clone(),
            members_changed,
            settings: parts.settings.membership,
        })
        .await?;
        follow_relays(&membership, relay_elsewhere, stops.rest.clone());

        let executor = Arc::new(Executor::new(
            parts.service.registry().clone(),
            store.clone(),
            signals.clone(),
            clock.clone(),
            parts.settings.executor.clone(),
            stops.workers.clone(),
        ));
        let heads = HeadWatch::start(store.clone(), stops.rest.clone());
        let workers::Started { tasks: workers, breakers } = workers::start(
            &parts,
            &executor,
            &signals,
            &heads,
            &stats,
            &membership,
            &stops.workers,
        );
        let (relay, relay_partitions) = if parts.roles.contains(&Role::Relay) {
            start_relay(&parts, &signals, groups, &membership, &stops.relay)
        } else {
            (Vec::new(), watch::channel(Vec::new()).1)
        };
        tracing::info!(member = %id, roles = ?parts.roles, log_id = %store.identity().log_id,
            partitions = store.identity().partitions.get(), "started");
        let ends = [&stops.workers, &stops.relay, &stops.rest].map(|it| it.clone().drop_guard());
        Ok(Self {
            id,
            signals,
            clock,
            executor,
            breakers,
            membership,
            broker,
            stops,
            workers,
            relay,
            relay_partitions,
            ends,
        })
    }

    /// This incarnation.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// The hints of this process, for its ingress.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The store's clock, as this process knows it.
    pub fn clock(&self) -> &StoreClock {
        &self.clock
    }

    /// The executor, for its cache's counters.
    pub fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }

    /// What this process suspends.
    pub fn breakers(&self) -> &ProcessBreakers {
        &self.breakers
    }

    /// The partitions that this process relays, as they change; none without the role.
    pub fn relay_partitions(&self) -> watch::Receiver<Vec<Partition>> {
        self.relay_partitions.clone()
    }

    /// The partitions for which this process claims what fell due for the immediate lane, as they
    /// change: none without an ingress, and none while it drains.
    pub fn lane_partitions(&self) -> LanePartitions {
        self.membership.lanes()
    }

    /// Hands over and stops: partitions first (the others take them at once), then the relay, whose
    /// confirmations are awaited, then the rest. Stop the ingress before. Bounded by `within`.
    pub async fn stop(self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        self.membership.drain();
        self.stops.workers.cancel();
        end_all("worker", self.workers, deadline).await;
        self.stops.relay.cancel();
        end_all("relay", self.relay, deadline).await;
        let rest = async {
            self.membership.leave(&self.stops.rest).await;
            self.broker.close().await;
        };
        if tokio::time::timeout_at(deadline, rest).await.is_err() {
            tracing::warn!("stopping took too long; the rest is left to the others");
        }
        tracing::info!(member = %self.id, "stopped");
    }
}

async fn end_all(what: &str, tasks: Vec<AbortOnDropHandle<()>>, deadline: tokio::time::Instant) {
    for task in tasks {
        if tokio::time::timeout_at(deadline, task).await.is_err() {
            tracing::warn!("a {what} did not end in time; what it had in hand comes again");
        }
    }
}

/// Every group of a service: the command executor and its projections.
pub fn groups_of(service: &Service) -> Vec<GroupName> {
    let mut groups = vec![GroupName::commands()];
    groups.extend(service.registry().event_groups());
    groups
}

/// Keeps the flag up to date that says whether notifying other relays is worth it.
fn follow_relays(membership: &Membership, flag: Arc<AtomicBool>, stop: CancellationToken) {
    let mut ownership = membership.ownership();
    tokio::spawn(async move {
        loop {
            flag.store(ownership.take().relay_elsewhere, Ordering::Relaxed);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = ownership.changed() => if changed.is_err() { return },
            }
        }
    });
}

fn start_relay(
    parts: &ProcessParts,
    signals: &Signals,
    groups: Vec<GroupName>,
    membership: &Membership,
    stop: &CancellationToken,
) -> (Vec<AbortOnDropHandle<()>>, watch::Receiver<Vec<Partition>>) {
    let mut ownership = membership.ownership();
    let initial = ownership.take().relay;
    let (sender, partitions) = watch::channel(initial);
    let ended = stop.clone();
    tokio::spawn(async move {
        // While it drains it goes on with what it had: others may publish the same, harmlessly.
        while tokio::select! { biased; () = ended.cancelled() => false, changed = ownership.changed() => changed.is_ok() }
        {
            let owned = ownership.take();
            sender.send_if_modified(|current| {
                let changed = *current != owned.relay && !owned.draining;
                if changed {
                    *current = owned.relay;
                }
                changed
            });
        }
        ended.cancelled().await;
    });
    let keeping = (!parts.settings.retention.is_off()).then(|| {
        housekeeping::start(HousekeepingParts {
            store: parts.store.clone(),
            event_groups: parts.service.registry().event_groups(),
            partitions: partitions.clone(),
            settings: parts.settings.retention.clone(),
            stop: stop.clone(),
        })
    });
    let firing = recurring::start(RecurringParts {
        store: parts.store.clone(),
        registry: parts.service.registry().clone(),
        signals: signals.clone(),
        partitions: partitions.clone(),
        settings: parts.settings.recurring.clone(),
        stop: stop.clone(),
    });
    let mut tasks = relay::start(RelayParts {
        store: parts.store.clone(),
        broker: parts.broker.clone(),
        groups,
        signals: signals.clone(),
        partitions: partitions.clone(),
        member_ttl: parts.settings.membership.ttl,
        settings: parts.settings.relay.clone(),
        stop: stop.clone(),
    });
    tasks.extend(keeping);
    tasks.push(firing);
    (tasks, partitions)
}
