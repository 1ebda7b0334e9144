//! The whole service in one call: database, broker, roles, HTTP and AMQP intake, admin server. What
//! `bank serve` and `examples/minimal.rs` start.

mod backing;
mod gauges;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{OwnershipByHash, Process, ProcessParts, ProcessSettings, StartError, groups_of};
use crate::{
    broker::Broker,
    callback::{self, CallbackParts, CallbackSettings, NoCallbacks},
    domain::Service,
    immediate::{
        AsyncCommandProcessor, Dispatcher, DispatcherParts, ImmediateSettings, ProcessorParts,
    },
    ingress::{
        GroupCommit, IngressSettings, OutboxLimit, Validator, amqp,
        http::{Ingress, IngressParts, StartError as IngressStartError, command_json},
    },
    observe::{
        BreakersCheck, BrokerCheck, Health, MetricsError, ParkedCheck, StoreCheck, admin,
        install_metrics,
        notify::{self, NoWebhooks, NotifyParts, NotifySettings},
    },
    store::{Role, Store, StoreError},
};

pub use backing::Backing;
#[cfg(feature = "embedded")]
pub use backing::EmbeddedSettings;
use backing::Opened;
#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
pub use backing::ServicesSettings;

/// How long a process that could not start takes at most to leave.
const AFTER_FAILED_START: Duration = Duration::from_secs(5);

/// Everything that is configured of a process.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// What it does.
    pub roles: Vec<Role>,
    /// Where it keeps what it must not lose, and how its parts reach each other.
    pub backing: Backing,
    /// Whether commands are taken from `{prefix}.intake`, too (role ingress).
    pub amqp_intake: bool,
    /// Executor, relay, partition loops, membership.
    pub process: ProcessSettings,
    /// The HTTP API (role ingress).
    pub ingress: IngressSettings,
    /// The immediate lane (role ingress).
    pub immediate: ImmediateSettings,
    /// Where probes and metrics are served; `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Who is told of what is wrong (roles ingress and relay).
    pub notify: NotifySettings,
    /// Who is called back when a command ends (roles ingress, which accepts, and relay, which
    /// delivers).
    pub callbacks: CallbackSettings,
}

impl ServerSettings {
    /// The defaults, on PostgreSQL and RabbitMQ at these URLs.
    #[cfg(all(feature = "postgres", feature = "rabbitmq"))]
    pub fn new(database_url: impl Into<String>, amqp_url: impl Into<String>) -> Self {
        Self::on(Backing::Services(Box::new(ServicesSettings::new(database_url, amqp_url))))
    }

    /// The defaults: all roles, the API on 127.0.0.1:8080, the admin server on 127.0.0.1:9090.
    pub fn on(backing: Backing) -> Self {
        Self {
            roles: Role::ALL.to_vec(),
            backing,
            amqp_intake: true,
            process: ProcessSettings::default(),
            ingress: IngressSettings::default(),
            immediate: ImmediateSettings::default(),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9090))),
            notify: NotifySettings::default(),
            callbacks: CallbackSettings::default(),
        }
    }
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The database cannot be set up.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Migrate(#[from] crate::store::postgres::MigrateError),
    /// The database does not fit or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker's settings are not valid.
    #[cfg(feature = "rabbitmq")]
    #[error(transparent)]
    Broker(#[from] crate::broker::rabbitmq::InvalidRabbitSettings),
    /// The embedded database cannot be opened.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Embedded(#[from] crate::store::sqlite::SqliteOpenError),
    /// The embedded database was carried over to PostgreSQL.
    #[cfg(feature = "embedded")]
    #[error(
        "this data was moved to {place}: serving it here would split the truth in two. Set \
         ADJUTANT_DATABASE_URL and ADJUTANT_AMQP_URL; or, if the move is to be forgotten, delete {}",
        marker.display()
    )]
    Moved {
        /// The file that says so.
        marker: std::path::PathBuf,
        /// Where it is.
        place: String,
    },
    /// A role does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The API does not start.
    #[error(transparent)]
    Ingress(#[from] IngressStartError),
    /// Webhooks are configured and cannot be sent.
    #[error(transparent)]
    Notify(#[from] NoWebhooks),
    /// Callbacks are configured and cannot be sent.
    #[error(transparent)]
    Callbacks(#[from] NoCallbacks),
    /// Metrics cannot be recorded.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The admin server cannot listen.
    #[error("cannot listen on {listen} for probes and metrics: {source}")]
    Admin {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A URL is missing from the environment.
    #[error("{0} is not set; it must say where {1} is, for example {2}")]
    MissingUrl(&'static str, &'static str, &'static str),
    /// URLs were given to a service that was built without PostgreSQL and RabbitMQ.
    #[cfg(not(all(feature = "postgres", feature = "rabbitmq")))]
    #[error(
        "{DATABASE_URL} and {AMQP_URL} are set, but this service was built without the features \
         postgres and rabbitmq; build it with both, or unset them"
    )]
    OnlyEmbedded,
    /// The process cannot hear signals.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// A running service.
pub struct Server {
    process: Process,
    intake: Intake,
    health: Arc<Health>,
    admin: Option<(SocketAddr, AbortOnDropHandle<()>)>,
    notification: Vec<AbortOnDropHandle<()>>,
    callbacks: Delivering,
    rest: CancellationToken,
}

/// The delivery of callbacks, if this process has a part in it.
#[derive(Default)]
struct Delivering {
    stop: CancellationToken,
    task: Vec<AbortOnDropHandle<()>>,
}

/// The parts of the role ingress, if it is among the roles.
#[derive(Default)]
struct Intake {
    api: Option<SocketAddr>,
    dispatcher: Option<Dispatcher>,
    stop: CancellationToken,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Server {
    /// Starts the service; returns when it serves. A database that does not answer is waited for
    /// within `database_patience`; a broker that does not answer, in the background.
    pub async fn start(service: Service, settings: ServerSettings) -> Result<Self, ServerError> {
        let has_intake = settings.roles.contains(&Role::Ingress);
        if has_intake {
            // A mistake is told before there is anything to clean up.
            Ingress::check(&settings.ingress)?;
        }
        let metrics = install_metrics()?;
        let rest = CancellationToken::new();
        let Opened { store, broker, readings } = settings.backing.open().await?;
        // A broker that is away does not make this process less ready: intake goes on without it.
        let breakers = BreakersCheck::default();
        let health = Health::new()
            .require(StoreCheck(store.clone()))
            .show(BrokerCheck(broker.clone()))
            .show(breakers.clone())
            .show(ParkedCheck(store.clone()));
        let health = Arc::new(health);
        let admin = start_admin(&settings, &health, &metrics, &rest)?;
        let process = Process::start(ProcessParts {
            service: service.clone(),
            store: store.clone(),
            broker: broker.clone(),
            roles: settings.roles.clone(),
            name: process_name(),
            settings: settings.process.clone(),
        })
        .await?;
        breakers.watch(process.breakers().clone());
        gauges::start(&process, readings, groups_of(&service), rest.clone());
        let looking_after = start_notification(&settings, &service, &store, &process, &rest)
            .map_err(ServerError::from)
            .and_then(|tasks| Ok((tasks, start_callbacks(&settings, &store, &process)?)));
        let (notification, callbacks) = match looking_after {
            Ok(started) => started,
            Err(error) => {
                process.stop(AFTER_FAILED_START).await;
                rest.cancel();
                return Err(error);
            }
        };
        let parts = IntakeParts { service, store, broker, health: health.clone(), metrics };
        let intake = match has_intake.then(|| start_intake(&settings, parts, &process)) {
            None => Intake::default(),
            Some(Ok(intake)) => intake,
            Some(Err(error)) => {
                // It has joined the others: what it was given to do goes back to them.
                process.stop(AFTER_FAILED_START).await;
                rest.cancel();
                return Err(error);
            }
        };
        health.mark_started();
        Ok(Self { process, intake, health, admin, notification, callbacks, rest })
    }

    /// Where the API listens, if this process has the role ingress.
    pub fn api(&self) -> Option<SocketAddr> {
        self.intake.api
    }

    /// Where probes and metrics are served.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    /// Dispatches commands from Rust, if this process has the role ingress.
    pub fn dispatcher(&self) -> Option<&Dispatcher> {
        self.intake.dispatcher.as_ref()
    }

    /// The roles at work.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops: intake first, then the roles (what is in hand is finished, partitions are handed
    /// over, confirmations are awaited), the admin server last. Takes at most about `within`.
    pub async fn stop(self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        self.health.mark_stopping();
        self.intake.stop.cancel();
        self.callbacks.stop.cancel();
        super::end_all("part of the intake", self.intake.tasks, deadline).await;
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.process.stop(left.max(Duration::from_secs(1))).await;
        self.rest.cancel();
        super::end_all("delivery of callbacks", self.callbacks.task, deadline).await;
        super::end_all("part of notification", self.notification, deadline).await;
        if let Some((_, admin)) = self.admin {
            super::end_all("part of the admin server", vec![admin], deadline).await;
        }
    }
}

/// Runs a service with all roles until SIGTERM or SIGINT. `ADJUTANT_DATABASE_URL` and
/// `ADJUTANT_AMQP_URL` say where PostgreSQL and RabbitMQ are; with neither, and with the feature
/// `embedded`, everything runs in this process on `./adjutant-data`. Everything else is as
/// [`ServerSettings::on`] has it.
pub async fn serve(service: Service) -> Result<(), ServerError> {
    let server = Server::start(service, ServerSettings::on(backing_by_environment()?)).await?;
    stop_signal().await.map_err(ServerError::Signals)?;
    server.stop(Duration::from_secs(9)).await;
    Ok(())
}

const DATABASE_URL: &str = "ADJUTANT_DATABASE_URL";
const AMQP_URL: &str = "ADJUTANT_AMQP_URL";

fn backing_by_environment() -> Result<Backing, ServerError> {
    let set = |name: &'static str| std::env::var(name).ok().filter(|url| !url.is_empty());
    match (set(DATABASE_URL), set(AMQP_URL)) {
        #[cfg(all(feature = "postgres", feature = "rabbitmq"))]
        (Some(database), Some(amqp)) => {
            Ok(Backing::Services(Box::new(ServicesSettings::new(database, amqp))))
        }
        #[cfg(not(all(feature = "postgres", feature = "rabbitmq")))]
        (Some(_), Some(_)) => Err(ServerError::OnlyEmbedded),
        #[cfg(feature = "embedded")]
        (None, None) => Ok(Backing::Embedded(EmbeddedSettings::new(EmbeddedSettings::DIRECTORY))),
        (None, _) => {
            let example = "postgres://root@127.0.0.1:5432/test";
            Err(ServerError::MissingUrl(DATABASE_URL, "PostgreSQL", example))
        }
        (_, None) => {
            let example = "amqp://guest:guest@127.0.0.1:5672";
            Err(ServerError::MissingUrl(AMQP_URL, "RabbitMQ", example))
        }
    }
}

/// Ends when the process is told to stop, and says by which signal.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

fn start_admin(
    settings: &ServerSettings,
    health: &Arc<Health>,
    metrics: &crate::observe::MetricsHandle,
    stop: &CancellationToken,
) -> Result<Option<(SocketAddr, AbortOnDropHandle<()>)>, ServerError> {
    let Some(listen) = settings.admin_listen else { return Ok(None) };
    let observed = admin::Observed { health: health.clone(), metrics: Some(metrics.clone()) };
    let running = admin::start(listen, observed, stop.clone());
    let running = running.map_err(|source| ServerError::Admin { listen, source })?;
    Ok(Some((running.local_addr, AbortOnDropHandle::new(running.join))))
}

/// Processes that accept or relay look after the whole service.
fn start_notification(
    settings: &ServerSettings,
    service: &Service,
    store: &Arc<dyn Store>,
    process: &Process,
    stop: &CancellationToken,
) -> Result<Vec<AbortOnDropHandle<()>>, NoWebhooks> {
    let has = |wanted: &[Role]| settings.roles.iter().any(|role| wanted.contains(role));
    let mut sources = Vec::new();
    if has(&[Role::Ingress, Role::Relay]) {
        // Slow is not gone: a member is lost when it has been silent for twice as long as others
        // wait.
        let silent = 2 * settings.process.membership.ttl;
        sources = notify::of_the_store(store, &groups_of(service), silent, &settings.notify);
    }
    if has(&[Role::CommandWorker, Role::ProjectionWorker]) {
        sources.push(Arc::new(notify::OpenBreakers {
            breakers: process.breakers().clone(),
            process: process_name(),
        }));
    }
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let (store, settings, stop) = (store.clone(), settings.notify.clone(), stop.clone());
    notify::start(NotifyParts { store, sources, settings, stop })
}

/// Relays deliver: to send what is durable is what they are there for, and where intake faces the
/// world, nothing then needs a way out to it.
fn start_callbacks(
    settings: &ServerSettings,
    store: &Arc<dyn Store>,
    process: &Process,
) -> Result<Delivering, NoCallbacks> {
    let stop = CancellationToken::new();
    if !settings.roles.contains(&Role::Relay) {
        return Ok(Delivering { stop, task: Vec::new() });
    }
    let task = callback::start(CallbackParts {
        store: store.clone(),
        signals: process.signals().clone(),
        partitions: process.relay_partitions(),
        write: command_json,
        settings: settings.callbacks.clone(),
        stop: stop.clone(),
    })?;
    Ok(Delivering { stop, task: task.into_iter().collect() })
}

struct IntakeParts {
    service: Service,
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    health: Arc<Health>,
    metrics: crate::observe::MetricsHandle,
}

fn start_intake(
    settings: &ServerSettings,
    parts: IntakeParts,
    process: &Process,
) -> Result<Intake, ServerError> {
    let stop = CancellationToken::new();
    let store = parts.store;
    let outbox = OutboxLimit::watch(store.clone(), settings.ingress.outbox_limit, stop.clone());
    let (commit, committing) = GroupCommit::start(
        store.clone(),
        process.signals().clone(),
        outbox.clone(),
        &settings.ingress.commit,
    );
    let immediate_stop = CancellationToken::new();
    let (immediate, executing) = AsyncCommandProcessor::start(ProcessorParts {
        registry: parts.service.registry().clone(),
        store: store.clone(),
        executor: process.executor().clone(),
        commit: commit.clone(),
        outbox: outbox.clone(),
        signals: process.signals().clone(),
        clock: process.clock().clone(),
        member: process.id(),
        due: process.lane_partitions(),
        settings: settings.immediate.clone(),
        stop: immediate_stop.clone(),
    });
    let callbacks = settings.callbacks.target_rules();
    let validator = Validator::new(parts.service.registry().clone())
        .with_immediate_lane(true)
        .with_callbacks(callbacks);
    let api = Ingress::start(IngressParts {
        service: parts.service.clone(),
        store: store.clone(),
        signals: process.signals().clone(),
        commit: commit.clone(),
        immediate: Some(immediate.clone()),
        settings: IngressSettings { callbacks, ..settings.ingress.clone() },
        health: parts.health,
        metrics: Some(parts.metrics),
        cache: Some(Arc::new(process.executor().cache().clone())),
        ownership: Some(Arc::new(OwnershipByHash::new(
            store.identity().partitions,
            groups_of(&parts.service),
        ))),
        shutdown: stop.clone(),
    })?;
    let dispatcher = Dispatcher::start(DispatcherParts {
        store: store.clone(),
        signals: process.signals().clone(),
        validator: validator.clone(),
        commit: commit.clone(),
        processor: immediate.clone(),
        max_waiters: settings.ingress.max_waiters,
        stop: stop.clone(),
    });
    let executing = AbortOnDropHandle::new(executing);
    let from_broker = settings.amqp_intake.then(|| {
        let parts = amqp::AmqpIntakeParts {
            broker: parts.broker,
            store,
            validator,
            commit: commit.clone(),
            immediate: Some(immediate),
            max_body_bytes: settings.ingress.max_command_bytes,
            stop: stop.clone(),
        };
        AbortOnDropHandle::new(tokio::spawn(amqp::run(parts)))
    });
    // One after the other: whoever waits for a command in a request that is in flight is answered
    // before the lane stops, and what was sent is committed before the last.
    let ending = tokio::spawn(async move {
        let _ = api.join.await;
        immediate_stop.cancel();
        let _ = executing.await;
        if let Some(from_broker) = from_broker {
            let _ = from_broker.await;
        }
        commit.close();
    });
    let tasks = [ending, committing].map(AbortOnDropHandle::new).into();
    Ok(Intake { api: Some(api.local_addr), dispatcher: Some(dispatcher), stop, tasks })
}

/// `host/pid`, for people.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}/{}", if host.is_empty() { "localhost" } else { host }, std::process::id())
}
