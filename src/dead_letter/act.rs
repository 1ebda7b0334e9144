//! Acting on dead letters: what people ask for one by one and what jobs do comes by here, is sent to
//! who can do it, and is counted.

use super::{DeadLetterId, DeadLetterKind};
use crate::{
    observe::names,
    signals::Signals,
    store::{Acted, ActedBy, CallbackAction, Replay, ReplayAsked, RetryRequest, Store, StoreError},
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
    signals: &Signals,
    requests: &[RetryRequest],
    by: &ActedBy,
) -> Result<Vec<Acted>, StoreError> {
    let acted = store.retry_dead_commands(requests, by).await?;
    let ids = requests.iter().map(|request| request.id);
    complete(store, signals, Asked::Retry, ids.zip(acted), by).await
}

/// Gives dead letters up; answers in the order of the ids.
pub(crate) async fn discard(
    store: &dyn Store,
    signals: &Signals,
    ids: &[DeadLetterId],
    by: &ActedBy,
) -> Result<Vec<Acted>, StoreError> {
    let acted = store.discard_dead_letters(ids, by).await?;
    complete(store, signals, Asked::Discard, ids.iter().copied().zip(acted), by).await
}

/// Asks for what a job has left out of parked keys that it has passed; answers in their order.
pub(crate) async fn ask_again(
    store: &dyn Store,
    signals: &Signals,
    asked: Asked,
    ids: &[DeadLetterId],
    by: &ActedBy,
) -> Result<Vec<Acted>, StoreError> {
    let keys = ids.iter().map(|id| (*id, Acted::ParkedKey));
    complete(store, signals, asked, keys, by).await
}

/// Sends what is asked for of parked keys to their groups, and of callbacks to who delivers them; and
/// counts what was done.
async fn complete(
    store: &dyn Store,
    signals: &Signals,
    asked: Asked,
    acted: impl Iterator<Item = (DeadLetterId, Acted)>,
    by: &ActedBy,
) -> Result<Vec<Acted>, StoreError> {
    let (mut commands, mut keys, mut callbacks, mut answers) = (0, 0, 0, Vec::new());
    for (id, answer) in acted {
        commands += u64::from(answer == Acted::Done);
        answers.push(match answer {
            Acted::ParkedKey => {
                let answer = ask_for_replay(store, id, asked, by).await?;
                if answer == Acted::Done {
                    keys += 1;
                    signals.replay_asked();
                }
                answer
            }
            // In a job, a process that dies before this leaves it open, as with parked keys.
            Acted::Callback => {
                let action = match asked {
                    Asked::Retry => CallbackAction::Retry,
                    Asked::Discard => CallbackAction::Discard,
                };
                let answer = store.act_on_callback(id, action, by).await?;
                if answer == Acted::Done {
                    callbacks += 1;
                    signals.callbacks_owed();
                }
                answer
            }
            answer => answer,
        });
    }
    let name = match asked {
        Asked::Retry => names::DEAD_LETTERS_RETRIED_TOTAL,
        Asked::Discard => names::DEAD_LETTERS_DISCARDED_TOTAL,
    };
    if commands > 0 {
        signals.schedule_written();
    }
    let counts = [
        (DeadLetterKind::Command, commands),
        (DeadLetterKind::ParkedKey, keys),
        (DeadLetterKind::Callback, callbacks),
    ];
    for (kind, count) in counts {
        metrics::counter!(name, "kind" => kind.as_str()).increment(count);
    }
    Ok(answers)
}

/// The one place where what is asked for of a parked key goes to its group. In a job, a process that
/// dies before this leaves the letter open, though the job has passed it: whoever takes the job up
/// [asks again](ask_again).
async fn ask_for_replay(
    store: &dyn Store,
    id: DeadLetterId,
    asked: Asked,
    by: &ActedBy,
) -> Result<Acted, StoreError> {
    let replay = match asked {
        Asked::Retry => Replay::Retry,
        Asked::Discard => Replay::Discard,
    };
    let answer = store.ask_for_replay(id, replay, by).await?;
    Ok(match answer {
        ReplayAsked::Accepted => Acted::Done,
        ReplayAsked::AlreadyAsked => match store.dead_letter(id).await? {
            Some(found) => Acted::NotOpen(found.letter.state),
            None => Acted::NotFound,
        },
        ReplayAsked::NotFound => Acted::NothingToRetry,
    })
}
