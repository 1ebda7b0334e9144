//! The check afterwards, with every process of the service stopped: what clients were told is
//! compared with what the tables hold, read by plain SQL. It shares no code with the service.

mod attempts;
mod cancellations;
mod cancelled;
mod counts;
mod dead_letters;
mod deadlines;
mod deaths;
mod drills;
mod failed;
mod money;
mod order;
mod people;
mod stored;
#[cfg(test)]
mod tests;
mod told;
mod violations;

pub use violations::Violations;

use super::{
    error::ChaosError,
    log::{Entry, Wishes},
    services::{Postgres, Rabbit},
};
use crate::{database::Source, verify};
use cancelled::Cancelled;
pub use counts::{Counts, LaneCounts};
use dead_letters::DeadLetters;
use failed::Failed;
use stored::Stored;

/// What the check saw.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What must not be.
    pub violations: Violations,
    /// What clients sent and asked for, and what came of it.
    pub counts: Counts,
    /// Messages in the intake's dead-letter queue.
    pub dead_letters: u64,
    /// Dead letters of the service: commands that died, keys that were parked.
    pub deaths: u64,
    /// What people were told done about them.
    pub actions: u64,
    /// Attempts that failed.
    pub failed_attempts: u64,
}

/// Checks everything. `crashes`: how many processes ended by themselves.
pub(super) async fn check(
    entries: &[Entry],
    wishes: &Wishes,
    crashes: usize,
    postgres: &Postgres,
    rabbit: &Rabbit,
) -> Result<Checked, ChaosError> {
    let mut checked = Checked::default();
    let violations = &mut checked.violations;
    audit(postgres, violations).await?;
    let stored = Stored::read(postgres).await?;
    let dead_letters = DeadLetters::take(rabbit, crashes, violations).await?;
    let failed = Failed::read(postgres).await?;
    let cancelled = Cancelled::read(postgres).await?;
    told::check(entries, &stored, &failed, &dead_letters, violations);
    order::check(entries, &stored, &failed, violations);
    order::check_seen(entries, &stored, violations);
    order::check_strict(entries, &stored, violations);
    cancellations::check(entries, wishes, &stored, &failed, &cancelled, violations);
    deadlines::check(entries, &stored, &failed, violations);
    attempts::check(entries, &stored, &failed, violations);
    deaths::check(entries, &stored, &failed, violations);
    people::check(&wishes.acted, &stored, &failed, violations);
    drills::check(entries, &stored, &failed, violations);
    money::check(entries, &stored, postgres, violations).await?;
    checked.dead_letters = dead_letters.count();
    checked.deaths = failed.letters.len() as u64;
    checked.actions = wishes.acted.iter().filter(|acted| acted.done).count() as u64;
    checked.failed_attempts = failed.attempts.values().map(|all| all.len() as u64).sum();
    checked.counts = Counts::of(entries, wishes, &stored, cancelled.jobs.len());
    Ok(checked)
}

/// The audit of `bank verify`: outcomes, logs without holes, views that equal the fold.
async fn audit(postgres: &Postgres, violations: &mut Violations) -> Result<(), ChaosError> {
    let report = verify::verify(&Source::postgres(postgres.url()), None).await?;
    for check in &report.checks {
        violations.found_many(check.name, check.found, &check.findings);
    }
    for (group, events) in &report.behind {
        violations.found("a view is behind", || format!("{group} is {events} events behind"));
    }
    Ok(())
}
