//! The HTTP API. Each file answers one group of paths; [`Ingress::start`] puts them together.

mod access;
mod batch;
mod body;
mod cancel;
mod cancel_all;
mod commands;
mod dead_letters;
mod headers;
mod jobs;
mod lanes;
mod letter_actions;
mod letter_filter;
mod metrics;
mod openapi;
mod operations;
mod params;
mod projections;
mod rate;
mod recurring;
mod reports;
mod resource;
mod respond;
mod routes;
mod streams;
mod submit;
mod types;
mod views;
mod watch;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::reports::{CacheReport, CacheStats, OwnershipReport};
pub use self::resource::command_json;
use self::{access::Access, body::BodyMemory, metrics::HttpMetrics};
use super::{
    Answer, CommandWatcher, GroupCommit, IngressSettings, PositionWatcher, Refusal, Validator,
    WatchSettings,
};
use crate::{
    domain::{Registry, Service},
    http_server::{self, ServerLimits},
    immediate::AsyncCommandProcessor,
    jobs::JobRunner,
    message::PartitionCount,
    observe::{Health, MetricsHandle, names},
    signals::Signals,
    store::{NewCommand, Store},
};

/// What the API is made of.
pub struct IngressParts {
    /// The types it accepts and the views it serves.
    pub service: Service,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Hints of this process.
    pub signals: Signals,
    /// Where commands are accepted; shared with the AMQP intake.
    pub commit: GroupCommit,
    /// The immediate lane, if this process has it; shared with the AMQP intake.
    pub immediate: Option<AsyncCommandProcessor>,
    /// What is configured.
    pub settings: IngressSettings,
    /// What probes answer.
    pub health: Arc<Health>,
    /// What `/metrics` shows.
    pub metrics: Option<MetricsHandle>,
    /// What `/v1/cache` shows.
    pub cache: Option<Arc<dyn CacheReport>>,
    /// Who owns which partitions, for `/v1/members`.
    pub ownership: Option<Arc<dyn OwnershipReport>>,
    /// Stops it: no new connections, requests in flight end, long-polls answer at once, event
    /// streams end.
    pub shutdown: CancellationToken,
}

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It would serve strangers.
    #[error(
        "refusing to listen on {listen} without tokens: everyone who reaches it could do everything. \
         Configure `tokens`, or listen on 127.0.0.1, or set `allow_anonymous = true` if a proxy in \
         front of it checks callers"
    )]
    Exposed {
        /// The address.
        listen: SocketAddr,
    },
    /// Both were configured, and they contradict each other.
    #[error("`tokens` and `allow_anonymous = true` contradict each other: remove one of them")]
    TokensAndAnonymous,
    /// A token cannot be used.
    #[error("token `{name}`: {reason}")]
    Token {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The API.
#[derive(Debug)]
pub struct Ingress;

/// The API, running.
#[derive(Debug)]
pub struct RunningIngress {
    /// Where it listens (the port, if 0 was asked for).
    pub local_addr: SocketAddr,
    /// Ends when the last connection has ended after `shutdown`.
    pub join: JoinHandle<()>,
}

impl Ingress {
    /// Whether it may be started with these settings: that it would not serve strangers by accident,
    /// and that its tokens are usable. For whoever wants to know before anything else is started.
    pub fn check(settings: &IngressSettings) -> Result<(), StartError> {
        Access::new(settings).map(|_| ())
    }

    /// Listens and serves. Must be called within a tokio runtime.
    pub fn start(parts: IngressParts) -> Result<RunningIngress, StartError> {
        let access = Access::new(&parts.settings)?;
        access::tell_exposure(&parts.settings);
        let listen = parts.settings.listen;
        let failed = |source| StartError::Listen { listen, source };
        let listener = http_server::bind(listen).map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let limits = ServerLimits {
            max_connections: parts.settings.max_connections,
            header_timeout: Duration::from_millis(parts.settings.header_timeout_ms),
            write_timeout: Duration::from_millis(parts.settings.write_timeout_ms),
            drain_timeout: Duration::from_millis(parts.settings.drain_timeout_ms),
            connections_gauge: Some(names::HTTP_CONNECTIONS),
            detached_gauge: Some(names::HTTP_DETACHED),
            on_panic: Some(routes::panicked),
        };
        let shutdown = parts.shutdown.clone();
        let router = routes::router(App(Arc::new(Shared::new(parts, access))));
        let join = tokio::spawn(http_server::serve(listener, router, limits, shutdown));
        tracing::info!(%local_addr, "the API listens");
        Ok(RunningIngress { local_addr, join })
    }
}

/// How many commands are read at a time, each by its id. When thousands of clients come back at once,
/// their reads wait here for as long as it takes, and not for a connection, which fails after a while.
const READS: usize = 32;

/// What handlers share.
#[derive(Clone)]
struct App(Arc<Shared>);

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

struct Shared {
    registry: Arc<Registry>,
    validator: Validator,
    store: Arc<dyn Store>,
    signals: Signals,
    partitions: PartitionCount,
    commit: GroupCommit,
    immediate: Option<AsyncCommandProcessor>,
    changes: CommandWatcher,
    positions: PositionWatcher,
    jobs: JobRunner,
    reads: Semaphore,
    access: Access,
    bodies: BodyMemory,
    health: Arc<Health>,
    recorder: Option<MetricsHandle>,
    metrics: HttpMetrics,
    cache: Option<Arc<dyn CacheReport>>,
    ownership: Option<Arc<dyn OwnershipReport>>,
    contract: Bytes,
    settings: IngressSettings,
}

impl Shared {
    fn new(parts: IngressParts, access: Access) -> Self {
        let IngressParts { store, signals, settings, shutdown, .. } = parts;
        let registry = parts.service.registry().clone();
        let max = settings.max_waiters;
        let watching = WatchSettings { max_waiters: max, tell: watch::tell };
        let (shared, stop) = (store.clone(), shutdown.clone());
        Self {
            validator: Validator::new(registry.clone())
                .with_immediate_lane(parts.immediate.is_some())
                .with_callbacks(settings.callbacks),
            registry,
            partitions: store.identity().partitions,
            commit: parts.commit,
            immediate: parts.immediate,
            changes: CommandWatcher::start(shared, signals.clone(), watching, stop),
            positions: PositionWatcher::start(
                store.clone(),
                signals.clone(),
                max,
                shutdown.clone(),
            ),
            reads: Semaphore::new(READS),
            jobs: JobRunner::start(store.clone(), signals.clone(), shutdown),
            store,
            signals,
            access,
            bodies: BodyMemory::new(settings.body_memory_bytes),
            health: parts.health,
            recorder: parts.metrics,
            metrics: HttpMetrics::new(),
            cache: parts.cache,
            ownership: parts.ownership,
            contract: openapi::contract().into(),
            settings,
        }
    }
}

impl Shared {
    /// Accepts commands that came together, each for the lane that it names.
    async fn accept_together(&self, commands: Vec<NewCommand>) -> Result<Vec<Answer>, Refusal> {
        match &self.immediate {
            Some(immediate) => immediate.dispatch_together(commands).await,
            None => self.commit.accept_together(commands).await,
        }
    }
}
