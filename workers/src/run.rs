//! Starts the roles of this process and stops them again.

use std::{net::SocketAddr, time::Duration};

use adjutant::{
    immediate::Dispatcher,
    ingress::http::StartError as IngressStartError,
    message::PartitionCount,
    service::{Server, ServerError, stop_signal},
    store::postgres::MigrateError,
};

use crate::{
    accounts,
    config::{Config, Place},
    drill, settings, welcome,
};

/// Why the service does not run (any more).
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration lacks something that running needs.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A setting has a value that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The domain cannot be registered.
    #[error(transparent)]
    Domain(#[from] adjutant::domain::BuildError),
    /// It does not start.
    #[error(transparent)]
    Start(#[from] ServerError),
    /// The database cannot be set up.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A signal handler cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
}

impl RunError {
    /// Whether the configuration must change, rather than the world.
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::Config(_) | Self::Setting(_) | Self::Start(ServerError::Broker(_)) => true,
            Self::Start(ServerError::Ingress(error)) => {
                !matches!(error, IngressStartError::Listen { .. })
            }
            Self::Migrate(error) | Self::Start(ServerError::Migrate(error)) => {
                matches!(error, MigrateError::Url(_) | MigrateError::PartitionCount { .. })
            }
            _ => false,
        }
    }
}

/// The roles of this process, at work.
pub struct Running {
    server: Server,
    shutdown: Duration,
}

impl Running {
    /// Where the HTTP API listens, if the role ingress is among the roles. Ports that were asked
    /// for as 0 are known here.
    pub fn api(&self) -> Option<SocketAddr> {
        self.server.api()
    }

    /// Dispatches commands from Rust, if the role ingress is among the roles.
    pub fn dispatcher(&self) -> Option<&Dispatcher> {
        self.server.dispatcher()
    }

    /// Where probes and metrics are served.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.server.admin()
    }

    /// Stops intake, finishes what runs, gives partitions away, closes connections; what is not
    /// finished within `shutdown_ms` is done by another process.
    pub async fn stop(self) {
        self.server.stop(self.shutdown).await;
    }
}

/// Starts the roles of `config.roles`, after the migrations if `database.migrate_at_start` says so;
/// returns when they are ready. May be called more than once in one process: `bank bench` runs
/// several sets of roles beside each other, each a member of its own.
pub async fn start_roles(config: &Config) -> Result<Running, RunError> {
    let service = if config.bank.fault_injection {
        tracing::warn!("bank.fault_injection is on: callers can make this process crash");
        drill::service(config.bank.cured)?
    } else {
        accounts::service()?
    };
    let server = Server::start(service, settings::of(config)?).await?;
    Ok(Running { server, shutdown: Duration::from_millis(config.shutdown_ms) })
}

/// Runs the migrations that are missing; answers what was done, for people.
pub async fn migrate(config: &Config) -> Result<String, RunError> {
    let partitions = PartitionCount::new(config.database.partitions)
        .map_err(|error| RunError::Setting(format!("database.partitions: {error}")))?;
    let url = config.require_database()?;
    let migrated = adjutant::store::postgres::migrate(url, Some(partitions)).await?;
    Ok(format!(
        "the schema is at migration {}, log {} with {} partitions",
        migrated.version, migrated.log_id, migrated.partitions
    ))
}

/// Gives the log a new name after a restore; answers what was done, for people.
pub async fn new_log_id(config: &Config) -> Result<String, RunError> {
    let log_id = adjutant::store::postgres::new_log_id(config.require_database()?).await?;
    Ok(format!("the log is now called {log_id}; messages of its old name are not applied any more"))
}

/// Runs the roles until the process is told to stop (SIGTERM or SIGINT), then stops them within
/// `shutdown_ms`.
pub async fn serve(config: &Config) -> Result<(), RunError> {
    let running = start_roles(config).await?;
    if let (Place::Embedded(directory), Some(api)) = (config.place()?, running.api()) {
        println!("{}", welcome::embedded(directory, api));
    }
    if let Some(api) = running.api() {
        tracing::info!("the HTTP API listens on http://{api}");
    }
    if let Some(admin) = running.admin() {
        tracing::info!("probes and metrics are served on http://{admin}");
    }
    let signal = stop_signal().await?;
    tracing::info!(signal, "stopping");
    running.stop().await;
    Ok(())
}
