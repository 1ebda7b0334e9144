//! The breakers of an executor: one per command type that fails.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Run,
    breaker::{Admission, Breaker, BreakerSettings, BreakerState},
    schedule::PerType,
};
use crate::{
    message::{CommandEnvelope, CommandId},
    observe::names,
};

/// Breakers by command type. Only types with recent failures have one.
pub(super) struct Breakers {
    settings: PerType<BreakerSettings>,
    types: Mutex<BTreeMap<String, Breaker>>,
    /// Whether there is any; without one nothing is looked up.
    any: AtomicBool,
}

/// What the breakers let through of a batch, asked once for all its tries.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    any: bool,
    /// Types that are not tried, with when to come back, and the one command that is tried.
    suspended: BTreeMap<String, (Duration, Option<CommandId>)>,
}

impl Admissions {
    /// How long this command must wait, if it must.
    pub(super) fn suspended(&self, command: &CommandEnvelope) -> Option<Duration> {
        let (delay, probe) = self.suspended.get(&command.command_type)?;
        (*probe != Some(command.id)).then_some(*delay)
    }

    /// Whether somebody counts what goes well.
    pub(super) fn wants_successes(&self) -> bool {
        self.any
    }
}

impl Breakers {
    pub(super) fn new(settings: PerType<BreakerSettings>) -> Self {
        Self { settings, types: Mutex::default(), any: AtomicBool::new(false) }
    }

    /// What of this batch may be tried now.
    pub(super) fn ask(&self, runs: &[Run]) -> Admissions {
        if !self.any.load(Ordering::Acquire) {
            return Admissions::default();
        }
        let mut types = self.lock();
        let now = Instant::now();
        let mut suspended = BTreeMap::new();
        for command in runs.iter().flat_map(|run| &run.entries).map(|entry| &entry.command) {
            let command_type = &command.command_type;
            if suspended.contains_key(command_type) {
                continue;
            }
            let Some(breaker) = types.get_mut(command_type) else { continue };
            let pause = self.settings.of(command_type).open_for;
            match breaker.ask(now) {
                Admission::Go => {}
                Admission::Probe => {
                    show(command_type, breaker);
                    suspended.insert(command_type.clone(), (pause, Some(command.id)));
                }
                Admission::Wait(delay) => {
                    suspended.insert(command_type.clone(), (delay, None));
                }
            }
        }
        Admissions { any: true, suspended }
    }

    /// Takes what came of a batch: by type, why a try failed; `None`: it did not.
    pub(super) fn record(&self, tries: &[(String, Option<String>)]) {
        if tries.is_empty() {
            return;
        }
        let mut types = self.lock();
        let now = Instant::now();
        for (command_type, reason) in tries {
            let breaker = match (types.get_mut(command_type), reason) {
                (Some(breaker), _) => breaker,
                (None, None) => continue,
                (None, Some(_)) => types
                    .entry(command_type.clone())
                    .or_insert_with(|| Breaker::new(*self.settings.of(command_type))),
            };
            let before = breaker.state();
            match reason {
                None => breaker.succeeded(),
                Some(fingerprint) => breaker.failed(fingerprint, now),
            }
            tell(command_type, before, breaker);
        }
        types.retain(|_, breaker| !breaker.is_idle());
        self.any.store(!types.is_empty(), Ordering::Release);
    }

    /// How those stand that have seen failures lately.
    pub(super) fn states(&self) -> Vec<(String, BreakerState)> {
        self.lock().iter().map(|(name, breaker)| (name.clone(), breaker.state())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Breaker>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(command_type: &str, before: BreakerState, breaker: &Breaker) {
    let after = breaker.state();
    if before == after {
        return;
    }
    if after == BreakerState::Open {
        tracing::error!(
            command_type,
            "most recent tries failed for one reason: its breaker is open"
        );
        metrics::counter!(names::BREAKER_OPENED_TOTAL, "type" => command_type.to_owned())
            .increment(1);
    } else {
        tracing::info!(command_type, state = after.as_str(), "its breaker changed");
    }
    show(command_type, breaker);
}

fn show(command_type: &str, breaker: &Breaker) {
    metrics::gauge!(names::BREAKER_STATE, "type" => command_type.to_owned())
        .set(f64::from(breaker.state().code()));
}
