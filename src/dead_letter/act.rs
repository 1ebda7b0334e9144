//! Acting on dead letters: what people ask for one by one and what jobs do comes by here, is sent to
//! who can do it, and is counted.

use super::{DeadLetterId, DeadLetterKind};
use crate::{
    observe::names,
    store::{Acted, ActedBy, RetryRequest, Store, StoreError},
};

/// What is asked for of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Execute it again.
    Retry,
    /// Give it up.
    Discard,
}

/// Executes dead letters again; answers in the order of the requests.
pub(crate) async fn retry(
    store: &dyn Store,
    requests: &[RetryRequest],
    by: &ActedBy,
) -> Result<Vec<Acted>, StoreError> {
    let acted = store.retry_dead_commands(requests, by).await?;
    let ids = requests.iter().map(|request| request.id);
    Ok(counted(Asked::Retry, ids.zip(acted), by))
}

/// Gives dead letters up; answers in the order of the ids.
pub(crate) async fn discard(
    store: &dyn Store,
    ids: &[DeadLetterId],
    by: &ActedBy,
) -> Result<Vec<Acted>, StoreError> {
    let acted = store.discard_dead_letters(ids, by).await?;
    Ok(counted(Asked::Discard, ids.iter().copied().zip(acted), by))
}

fn counted(
    asked: Asked,
    acted: impl Iterator<Item = (DeadLetterId, Acted)>,
    by: &ActedBy,
) -> Vec<Acted> {
    let (mut commands, mut answers) = (0, Vec::new());
    for (id, answer) in acted {
        commands += u64::from(answer == Acted::Done);
        let is_key = answer == Acted::ParkedKey;
        answers.push(if is_key { ask_for_replay(id, asked, by) } else { answer });
    }
    let name = match asked {
        Asked::Retry => names::DEAD_LETTERS_RETRIED_TOTAL,
        Asked::Discard => names::DEAD_LETTERS_DISCARDED_TOTAL,
    };
    let kind = DeadLetterKind::Command.as_str();
    metrics::counter!(name, "kind" => kind).increment(commands);
    answers
}

/// The one place where what is asked for of a parked key goes to its group. No group takes it in this
/// release: [`Acted::ParkedKey`] says so to the caller.
fn ask_for_replay(id: DeadLetterId, asked: Asked, by: &ActedBy) -> Acted {
    tracing::debug!(%id, ?asked, who = by.who, "a parked key cannot be acted on yet");
    Acted::ParkedKey
}
