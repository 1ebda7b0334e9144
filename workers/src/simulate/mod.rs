//! `bank simulate`: histories of the whole bank in which everything goes wrong, each from a seed,
//! and a check of the laws at the end of each. The same seed gives the same history.

#[cfg(feature = "planted-bugs")]
pub mod planted;
mod report;
mod scenario;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use adjutant::simulation::{History, SimulationError, SimulationSettings, simulate};

pub use report::Report;
pub use scenario::Bank;

use crate::cli::SimulateArgs;

/// The history of one seed.
pub fn history(seed: u64, settings: &SimulationSettings) -> Result<History, SimulationError> {
    simulate(Box::new(Bank::default()), seed, settings)
}

/// Runs all histories, as many at a time as there are jobs. Blocks.
pub fn run(args: &SimulateArgs) -> Result<Report, SimulationError> {
    let settings = SimulationSettings {
        commands: args.commands,
        prints: args.trace,
        ..SimulationSettings::default()
    };
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let report = Mutex::new(Ok(Report::default()));
    let work = || {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= args.seeds {
                return;
            }
            let done = history(args.seed.wrapping_add(nth), &settings).and_then(|history| {
                // The same once more: it must not differ in anything.
                let again = if nth < args.repeat {
                    Some(self::history(history.seed, &settings)?)
                } else {
                    None
                };
                Ok((history, again))
            });
            let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *report, done) {
                (Ok(report), Ok((history, again))) => report.add(&history, again.as_ref()),
                (Ok(_), Err(error)) => *report = Err(error),
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.map(|mut report| {
        report.took = began.elapsed();
        report
    })
}
