//! Times: nothing is started before its `not_before` or after its `not_after`, by the database's clock,
//! which every stored time is read from.

use time::{Duration, OffsetDateTime};

use super::{Violations, failed::Failed, stored::Stored};
use crate::chaos::log::Entry;

/// How long what was started in time may take until it is stored. A decision has a second, and its
/// batch may hold several that block; between the decision and the commit its process may be stopped
/// (6.5 s at most), and so may the answer be by which the process knows the database's clock.
pub(super) const LATE: Duration = Duration::seconds(15);

pub(super) fn check(
    entries: &[Entry],
    stored: &Stored,
    failed: &Failed,
    violations: &mut Violations,
) {
    for entry in entries {
        let (id, times) = (entry.command.id, entry.command.times);
        let outcome = stored.outcome(id).filter(|outcome| !outcome.is_cancelled());
        let ended = outcome.map(|outcome| outcome.completed_at);
        let attempts = failed.attempts.get(&id).into_iter().flatten().map(|it| it.failed_at);
        let tried: Vec<OffsetDateTime> = ended.into_iter().chain(attempts).collect();
        let in_words = || format!("{id}: {times:?}, but it was tried at {tried:?}");
        if times.not_before.is_some_and(|due| tried.iter().any(|at| *at < due)) {
            violations.found("started before its time", in_words);
        }
        if times.not_after.is_some_and(|due| tried.iter().any(|at| *at > due + LATE)) {
            violations.found("started after its deadline", in_words);
        }
    }
}
