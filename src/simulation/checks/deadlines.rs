//! Nothing is started after its deadline. A process knows the store's clock by the answers that it had
//! and counts on by itself: it learns late of a jump, and later if it stands still. So what is found
//! wrong was over for longer than anything takes.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::{Evidence, world::Clock};

/// How long what was started in time may take until it is stored: twice the longest time for which a
/// process stands still or is cut off, between an answer and the next, and between a decision and its
/// commit.
const LATE: i64 = 2 * 2 * 12_000_000;

pub(super) fn check(evidence: &Evidence, clock: &Clock, violations: &mut Vec<String>) {
    let commands: BTreeMap<Uuid, _> = evidence.commands.iter().map(|it| (it.id, it)).collect();
    for outcome in evidence.outcomes.iter().filter(|outcome| outcome.status != 4) {
        let not_after = commands.get(&outcome.command).and_then(|command| command.not_after);
        let Some(not_after) = not_after else { continue };
        let late = clock.passed(not_after, outcome.completed_at);
        if late > LATE {
            violations.push(format!(
                "{} was started though its time was over, and ended {late} µs after it: {outcome:?}",
                outcome.command
            ));
        }
    }
}
