//! The seam to the library's runtime: starts the roles of this process and stops them again.

use std::{net::SocketAddr, time::Duration};

use crate::config::Config;

/// Why the service does not run (any more).
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration lacks something that running needs.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The domain cannot be registered.
    #[error(transparent)]
    Domain(#[from] adjutant::domain::BuildError),
    /// The library's runtime has not landed yet.
    #[error("not wired yet: the runtime has not landed")]
    NotWired,
    /// A signal handler cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(#[from] std::io::Error),
    /// Work was not finished within the time limit; other processes will do it.
    #[error("stopping took longer than {0:?}; what was unfinished is left to other processes")]
    StopTimeout(Duration),
}

/// The roles of this process, at work.
#[derive(Debug)]
pub struct Running {
    api: Option<SocketAddr>,
}

impl Running {
    /// Where the HTTP API listens, if the role ingress is among the roles. Ports that were asked
    /// for as 0 are known here.
    pub fn api(&self) -> Option<SocketAddr> {
        self.api
    }

    /// Ends only when something fails that no retry can mend.
    pub async fn failed(&mut self) -> RunError {
        std::future::pending().await
    }

    /// Stops intake, finishes what runs, gives partitions away, closes connections.
    #[allow(clippy::unused_async)] // until the runtime lands
    pub async fn stop(self) -> Result<(), RunError> {
        Err(RunError::NotWired)
    }
}

/// Starts the roles of `config.roles`, after the migrations if `database.migrate_at_start` says so;
/// returns when they are ready. May be called more than once in one process: `bank bench` runs
/// several sets of roles beside each other, each a member of its own.
#[allow(clippy::unused_async)] // until the runtime lands
pub async fn start_roles(config: &Config) -> Result<Running, RunError> {
    config.require_urls()?;
    let _service = crate::accounts::service()?;
    Err(RunError::NotWired)
}

/// Runs the migrations that are missing; answers what was done, for people.
#[allow(clippy::unused_async)] // until the runtime lands
pub async fn migrate(config: &Config) -> Result<String, RunError> {
    config.require_database()?;
    Err(RunError::NotWired)
}

/// Runs the roles until the process is told to stop (SIGTERM or SIGINT), then stops them within
/// `shutdown_ms`.
pub async fn serve(config: &Config) -> Result<(), RunError> {
    let mut running = start_roles(config).await?;
    if let Some(api) = running.api() {
        tracing::info!("the HTTP API listens on http://{api}");
    }
    tokio::select! {
        signal = stop_signal() => tracing::info!(signal = signal?, "stopping"),
        error = running.failed() => return Err(error),
    }
    let limit = Duration::from_millis(config.shutdown_ms);
    match tokio::time::timeout(limit, running.stop()).await {
        Ok(stopped) => stopped,
        Err(_) => Err(RunError::StopTimeout(limit)),
    }
}

async fn stop_signal() -> Result<&'static str, std::io::Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
