//! One history: decides its commands, and replays what happened in every way production may.

use super::{
    START,
    given::{nth_command_id, stream_of},
    subject::{Ended, Subject, Surroundings},
    tree,
};
use crate::{
    domain::{Aggregate, EncodedEvent},
    message::{Metadata, Version},
};

/// Longer histories are cut at this many places, evenly spread.
const MOST_CUTS: usize = 128;

/// Decides `commands` on an empty stream. Answers the events that happened, or the promise that
/// is broken.
pub(super) fn check<A: Aggregate>(commands: &[A::Command]) -> Result<Vec<EncodedEvent>, String> {
    let mut subject = Subject::<A>::new(stream_of::<A>("1"));
    let mut events = Vec::new();
    for (nth, command) in (1_u32..).zip(commands) {
        let around = Surroundings {
            command_id: nth_command_id(0, nth.into()),
            metadata: Metadata::default(),
            now: START + time::Duration::seconds(nth.into()),
            expected_version: None,
        };
        let at = |reason| format!("command {nth}: {reason}");
        match subject.decide(command, &around).map_err(at)? {
            Ended::Succeeded(mut happened) => {
                subject.advance(&mut happened);
                events.append(&mut happened.events);
            }
            // Rules may be stricter than they look from here; the ingress would refuse it.
            Ended::Invalid(_) | Ended::Rejected(..) => {}
            failed @ (Ended::Dead(_) | Ended::Retryable(_)) => return Err(at(failed.shown())),
        }
    }
    replay_from_every_snapshot(&subject, &events)?;
    Ok(events)
}

/// The state from all events must be the state from a snapshot at any cut and the events after it.
pub(super) fn replay_from_every_snapshot<A: Aggregate>(
    decided: &Subject<A>,
    events: &[EncodedEvent],
) -> Result<(), String> {
    let mut full = Subject::<A>::new(decided.stream.clone());
    let mut snapshots = vec![full.snapshot()?];
    for event in events {
        full.fold(event)?;
        snapshots.push(full.snapshot()?);
    }
    let whole = full.snapshot()?;
    if let Some(difference) = tree::difference(&decided.snapshot()?, &whole) {
        return Err(format!(
            "replaying all {} events gives another state than deciding did:\n{difference}",
            events.len()
        ));
    }
    let step = snapshots.len().div_ceil(MOST_CUTS);
    for (cut, snapshot) in snapshots.iter().enumerate().step_by(step) {
        let mut resumed = full.restored(snapshot, Version(cut as i64))?;
        for event in events.iter().skip(cut) {
            resumed.fold(event)?;
        }
        if let Some(difference) = tree::difference(&whole, &resumed.snapshot()?) {
            return Err(format!(
                "a snapshot at version {cut} and the {} events after it give another state than \
                 all {} events:\n{difference}",
                events.len() - cut,
                events.len()
            ));
        }
    }
    Ok(())
}
