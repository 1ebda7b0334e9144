//! What was called off did nothing, was called off once, and whoever was told so is right; what expired
//! was late.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{super::Evidence, Heard};
use crate::{
    message::{Failure, OutcomeStatus},
    store::CancelAnswer,
};

pub(super) fn check(evidence: &Evidence, heard: &Heard, violations: &mut Vec<String>) {
    let outcomes: BTreeMap<Uuid, _> = evidence.outcomes.iter().map(|it| (it.command, it)).collect();
    let commands: BTreeMap<Uuid, _> = evidence.commands.iter().map(|it| (it.id, it)).collect();
    let mut kept: BTreeMap<Uuid, Vec<&str>> = BTreeMap::new();
    for cancellation in &evidence.cancellations {
        kept.entry(cancellation.command).or_default().push(&cancellation.who);
    }
    let mut unclaimed = kept.clone();
    for outcome in evidence.outcomes.iter().filter(|outcome| outcome.status == 4) {
        if outcome.events != 0 || outcome.first_offset.is_some() || outcome.reply.is_some() {
            violations
                .push(format!("{} was cancelled, with an effect: {outcome:?}", outcome.command));
        }
        let error = outcome.error.as_deref().and_then(|it| serde_json::from_str(it).ok());
        let code = error.map(|error: Failure| error.code).unwrap_or_default();
        let who = unclaimed.remove(&outcome.command).unwrap_or_default();
        let not_after = commands.get(&outcome.command).and_then(|command| command.not_after);
        let fits = match code.as_str() {
            "cancelled" => who.len() == 1,
            "expired" => who.is_empty() && not_after.is_some_and(|it| it < outcome.completed_at),
            _ => false,
        };
        if !fits {
            violations.push(format!(
                "{} ended as `{code}`; it was called off by {who:?}, and its time was over at \
                 {not_after:?}: {outcome:?}",
                outcome.command
            ));
        }
    }
    for (command, who) in unclaimed {
        violations.push(format!("{command} was called off by {who:?}, and ended otherwise"));
    }
    for told in &heard.cancelled {
        let status = outcomes.get(&told.command).and_then(|it| OutcomeStatus::from_code(it.status));
        let is_so = match &told.answer {
            CancelAnswer::Cancelled { .. } => {
                let who = kept.get(&told.command).map(Vec::as_slice);
                status == Some(OutcomeStatus::Cancelled) && who == Some(&[told.who.as_str()])
            }
            // A person may have brought it back since.
            CancelAnswer::AlreadyEnded(OutcomeStatus::Dead) => status.is_some(),
            CancelAnswer::AlreadyEnded(ended) => status == Some(*ended),
            CancelAnswer::NotFound => false,
        };
        if !is_so {
            violations.push(format!("{told:?}, but the command ended as {status:?}"));
        }
    }
}
