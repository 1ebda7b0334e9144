//! Is the process alive, ready, started? The three questions of Kubernetes' probes.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};

use crate::{broker::Broker, store::Store, worker::ProcessBreakers};

/// How long an answer is used again.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// How long a check may take before it counts as failed.
const CHECK_LIMIT: Duration = Duration::from_secs(2);

/// Something that must work.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// A word for it: `store`, `broker`.
    fn name(&self) -> &'static str;
    /// Whether it works; if not, why.
    async fn check(&self) -> Result<(), String>;
}

/// The store answers.
pub struct StoreCheck(pub Arc<dyn Store>);

#[async_trait]
impl HealthCheck for StoreCheck {
    fn name(&self) -> &'static str {
        "store"
    }
    async fn check(&self) -> Result<(), String> {
        self.0.now().await.map(drop).map_err(|error| error.to_string())
    }
}

/// The broker can be connected to.
pub struct BrokerCheck(pub Arc<dyn Broker>);

#[async_trait]
impl HealthCheck for BrokerCheck {
    fn name(&self) -> &'static str {
        "broker"
    }
    async fn check(&self) -> Result<(), String> {
        self.0.check().await.map_err(|error| error.to_string())
    }
}

/// No command type is suspended, and no group pauses. Shown once the process has started.
#[derive(Clone, Default)]
pub struct BreakersCheck(Arc<OnceLock<ProcessBreakers>>);

impl BreakersCheck {
    /// From now on these breakers are shown.
    pub fn watch(&self, breakers: ProcessBreakers) {
        // A process has one set of them: a second one would be the same.
        let _ = self.0.set(breakers);
    }
}

#[async_trait]
impl HealthCheck for BreakersCheck {
    fn name(&self) -> &'static str {
        "breakers"
    }
    async fn check(&self) -> Result<(), String> {
        let open = self.0.get().map(ProcessBreakers::open).unwrap_or_default();
        let suspended: Vec<String> =
            open.iter().map(|(of, state)| format!("{of} is {}", state.as_str())).collect();
        if suspended.is_empty() { Ok(()) } else { Err(suspended.join(", ")) }
    }
}

/// No key is parked. Nothing that a restart would help: to be shown, not required.
pub struct ParkedCheck(pub Arc<dyn Store>);

#[async_trait]
impl HealthCheck for ParkedCheck {
    fn name(&self) -> &'static str {
        "parked_keys"
    }
    async fn check(&self) -> Result<(), String> {
        let counts = self.0.parked_counts().await.map_err(|error| error.to_string())?;
        let parked: Vec<String> =
            counts.iter().map(|count| format!("{}: {}", count.group, count.keys)).collect();
        if parked.is_empty() {
            return Ok(());
        }
        Err(format!("keys are parked and wait for a person ({})", parked.join(", ")))
    }
}

/// What one check said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct CheckReport {
    /// Which check.
    pub name: String,
    /// `ok` or `failed`.
    pub status: &'static str,
    /// Whether the process is not ready while it fails.
    pub required: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct HealthReport {
    /// `ok`, `degraded` (something that is not required fails), `failed`, `starting` or `stopping`.
    pub status: &'static str,
    /// What each check said.
    pub checks: Vec<CheckReport>,
}

impl HealthReport {
    /// Whether the probe succeeds.
    pub fn is_ok(&self) -> bool {
        matches!(self.status, "ok" | "degraded")
    }

    fn plain(status: &'static str) -> Self {
        Self { status, checks: Vec::new() }
    }
}

/// The health of this process. Shared as an `Arc`.
#[derive(Default)]
pub struct Health {
    checks: Vec<(Arc<dyn HealthCheck>, bool)>,
    started: AtomicBool,
    stopping: AtomicBool,
    last: Mutex<Option<(Instant, Vec<CheckReport>)>>,
}

impl Health {
    /// No checks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready while this fails.
    #[must_use]
    pub fn require(mut self, check: impl HealthCheck + 'static) -> Self {
        self.checks.push((Arc::new(check), true));
        self
    }

    /// Shown, and `degraded` while it fails, but ready: the ingress does not need the broker.
    #[must_use]
    pub fn show(mut self, check: impl HealthCheck + 'static) -> Self {
        self.checks.push((Arc::new(check), false));
        self
    }

    /// Everything is started.
    pub fn mark_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// The process stops: not ready any more, so that no new work is sent here.
    pub fn mark_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The process runs and answers.
    pub fn live(&self) -> HealthReport {
        HealthReport::plain("ok")
    }

    /// The process has started.
    pub fn startup(&self) -> HealthReport {
        let started = self.started.load(Ordering::Relaxed);
        HealthReport::plain(if started { "ok" } else { "starting" })
    }

    /// The process can do its work: every required check holds. Answers are about a second old.
    pub async fn ready(&self) -> HealthReport {
        let checks = self.checks().await;
        let failed = |required| {
            checks.iter().any(|check| check.required == required && check.status != "ok")
        };
        let status = if self.stopping.load(Ordering::Relaxed) {
            "stopping"
        } else if !self.started.load(Ordering::Relaxed) {
            "starting"
        } else if failed(true) {
            "failed"
        } else if failed(false) {
            "degraded"
        } else {
            "ok"
        };
        HealthReport { status, checks }
    }

    /// One caller checks, the others wait for its answer.
    async fn checks(&self) -> Vec<CheckReport> {
        let mut last = self.last.lock().await;
        if let Some((at, checks)) = last.as_ref()
            && at.elapsed() < KEPT_FOR
        {
            return checks.clone();
        }
        let reports = self.checks.iter().map(|(check, required)| run(check.as_ref(), *required));
        let reports = futures_util::future::join_all(reports).await;
        *last = Some((Instant::now(), reports.clone()));
        reports
    }
}

async fn run(check: &dyn HealthCheck, required: bool) -> CheckReport {
    let result = tokio::time::timeout(CHECK_LIMIT, check.check()).await;
    let error = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(format!("no answer within {} s", CHECK_LIMIT.as_secs())),
    };
    let status = if error.is_none() { "ok" } else { "failed" };
    CheckReport { name: check.name().to_owned(), status, required, error }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Scripted(&'static str, Arc<AtomicBool>, Arc<AtomicUsize>);

    #[async_trait]
    impl HealthCheck for Scripted {
        fn name(&self) -> &'static str {
            self.0
        }
        async fn check(&self) -> Result<(), String> {
            self.2.fetch_add(1, Ordering::Relaxed);
            if self.1.load(Ordering::Relaxed) { Ok(()) } else { Err("away".into()) }
        }
    }

    struct Hanging;

    #[async_trait]
    impl HealthCheck for Hanging {
        fn name(&self) -> &'static str {
            "hanging"
        }
        async fn check(&self) -> Result<(), String> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_follows_the_required_checks_and_is_kept_for_a_second() {
        let (store, broker, asked) = (Arc::default(), Arc::default(), Arc::default());
        let health = Health::new()
            .require(Scripted("store", Arc::clone(&store), Arc::clone(&asked)))
            .show(Scripted("broker", Arc::clone(&broker), Arc::default()));
        assert_eq!(health.startup().status, "starting");
        store.store(true, Ordering::Relaxed);
        assert_eq!(health.ready().await.status, "starting");
        health.mark_started();
        let report = health.ready().await;
        assert_eq!((report.status, report.is_ok()), ("degraded", true));
        assert_eq!(report.checks[1].error.as_deref(), Some("away"));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "the answer was kept");

        store.store(false, Ordering::Relaxed);
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(health.ready().await.status, "failed");
        health.mark_stopping();
        assert!(!health.ready().await.is_ok());
        assert!(health.live().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let health = Health::new().require(Hanging);
        health.mark_started();
        let report = health.ready().await;
        assert_eq!(report.status, "failed");
        assert_eq!(report.checks[0].error.as_deref(), Some("no answer within 2 s"));
    }
}
