//! A promise: the handle of a command that was accepted.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::{
    answer::{Dispatched, End, Executed},
    dispatcher::{AskError, Shared},
};
use crate::{
    cancellation,
    domain::{Aggregate, DomainError},
    message::{CommandId, Failure, Outcome, OutcomeStatus, Partition},
    store::{CancelAnswer, CancelledBy, CommandStatus},
};

/// For how long one wait is registered, and how long to wait when there is no room for it.
const ONE_WAIT: Duration = Duration::from_mins(1);
const WITHOUT_ROOM: Duration = Duration::from_millis(500);

/// A command that was accepted, and the promise of its outcome. Dropping it cancels nothing.
pub struct CommandHandle<A> {
    place: Where,
    end: Promise,
    aggregate: PhantomData<fn() -> A>,
}

/// Which command, and whom to ask.
pub(super) struct Where {
    pub(super) id: CommandId,
    /// `None`: not known yet.
    pub(super) partition: Option<Partition>,
    pub(super) shared: Arc<Shared>,
}

enum Promise {
    /// It is known.
    Kept(Box<Outcome>),
    /// This process executes it.
    Here(Dispatched),
    /// Somebody else does, or did.
    Elsewhere,
}

/// How a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum NotSucceeded<E> {
    /// The aggregate refused: a domain answer. `error` is the domain's own, if it can be read back
    /// ([`DomainError::from_failure`]).
    #[error("rejected: {}", failure.message)]
    Rejected {
        /// As the domain has it.
        error: Option<E>,
        /// As it is stored.
        failure: Failure,
    },
    /// It could not be executed; a person must look at it.
    #[error("dead: {}", .0.message)]
    Dead(Failure),
    /// It was called off, or its deadline had passed.
    #[error("cancelled: {}", .0.message)]
    Cancelled(Failure),
    /// What it answered is not of the type that the aggregate has now.
    #[error("the reply cannot be read: {0}")]
    Reply(serde_json::Error),
    /// Its outcome could not be asked for; it may have ended.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl<A: Aggregate> CommandHandle<A> {
    pub(super) fn executed(place: Where, executed: Executed) -> Self {
        let end = match executed {
            Executed::Ended(_, outcome) => Promise::Kept(outcome),
            Executed::Accepted(..) => Promise::Elsewhere,
        };
        Self { place, end, aggregate: PhantomData }
    }

    pub(super) fn dispatched(place: Where, dispatched: Dispatched) -> Self {
        Self { place, end: Promise::Here(dispatched), aggregate: PhantomData }
    }

    pub(super) fn elsewhere(place: Where) -> Self {
        Self { place, end: Promise::Elsewhere, aggregate: PhantomData }
    }

    /// The command's id.
    pub fn id(&self) -> CommandId {
        self.place.id
    }

    /// Where the command is in its life.
    ///
    /// # Errors
    ///
    /// When there is no such command, or the store does not answer.
    pub async fn status(&self) -> Result<CommandStatus, AskError> {
        if let Promise::Kept(outcome) = &self.end {
            return Ok(CommandStatus::Ended(outcome.status));
        }
        let record = self.place.shared.store.command(self.place.id).await?;
        record.map(|record| record.status()).ok_or(AskError::NotFound(self.place.id))
    }

    /// Waits, as long as it takes, for the outcome as it is stored.
    ///
    /// # Errors
    ///
    /// When there is no such command, or the store does not answer.
    pub async fn raw_outcome(mut self) -> Result<Outcome, AskError> {
        match std::mem::replace(&mut self.end, Promise::Elsewhere) {
            Promise::Kept(outcome) => return Ok(*outcome),
            Promise::Here(Dispatched { end: Some(end), .. }) => {
                if let Ok(End::Ended(_, outcome)) = end.await {
                    return Ok(*outcome);
                }
            }
            Promise::Here(_) | Promise::Elsewhere => {}
        }
        self.place.until_ended().await
    }

    /// Waits, as long as it takes, for what the aggregate answered.
    ///
    /// # Errors
    ///
    /// When the command did not succeed: rejected (with the domain's error), dead or cancelled; or
    /// when it cannot be asked for.
    pub async fn outcome(self) -> Result<A::Reply, NotSucceeded<A::Error>>
    where
        A::Reply: DeserializeOwned,
    {
        let outcome = self.raw_outcome().await?;
        let failure =
            outcome.error.unwrap_or_else(|| Failure::new("unknown", "no error is stored"));
        match outcome.status {
            OutcomeStatus::Succeeded => {
                let reply = outcome.reply.as_ref().map_or("null", |reply| reply.as_str());
                serde_json::from_str(reply).map_err(NotSucceeded::Reply)
            }
            OutcomeStatus::Rejected => {
                Err(NotSucceeded::Rejected { error: A::Error::from_failure(&failure), failure })
            }
            OutcomeStatus::Dead => Err(NotSucceeded::Dead(failure)),
            OutcomeStatus::Cancelled => Err(NotSucceeded::Cancelled(failure)),
        }
    }

    /// Calls the command off, unless it has ended: whether that took place. The outcome says who
    /// (`who`) and why.
    ///
    /// # Errors
    ///
    /// When there is no such command, or the store does not answer; after
    /// [`StoreError::Unknown`](crate::store::StoreError) ask again, nothing is done twice.
    pub async fn cancel(&self, who: &str, reason: Option<&str>) -> Result<bool, AskError> {
        let by = CancelledBy { who: who.to_owned(), reason: reason.map(str::to_owned), job: None };
        let shared = &self.place.shared;
        let (store, ids) = (shared.store.as_ref(), [self.place.id]);
        let answers = cancellation::cancel(store, &shared.signals, &ids, &by).await?;
        match answers.first() {
            Some(CancelAnswer::Cancelled { .. }) => Ok(true),
            Some(CancelAnswer::AlreadyEnded(_)) => Ok(false),
            Some(CancelAnswer::NotFound) | None => Err(AskError::NotFound(self.place.id)),
        }
    }

    /// Calls `callback` with the outcome when the command has ended. The task ends then, or when the
    /// command cannot be asked for; aborting it cancels the callback, not the command.
    pub fn on_complete<F>(self, callback: F) -> JoinHandle<()>
    where
        A::Reply: DeserializeOwned,
        F: FnOnce(Result<A::Reply, NotSucceeded<A::Error>>) + Send + 'static,
    {
        tokio::spawn(async move { callback(self.outcome().await) })
    }
}

impl Where {
    async fn until_ended(&self) -> Result<Outcome, AskError> {
        let store = &self.shared.store;
        let mut partition = self.partition;
        loop {
            if self.shared.stop.is_cancelled() {
                return Err(AskError::Stopping(self.id));
            }
            let asked = if let Some(partition) = partition {
                partition
            } else {
                let record = store.command(self.id).await?;
                let record = record.ok_or(AskError::NotFound(self.id))?;
                if let Some(outcome) = record.outcome {
                    return Ok(outcome);
                }
                *partition.insert(record.partition)
            };
            // It is looked at at once, and then whenever something hints at it.
            let wait = self.shared.watcher.watch(asked, self.id);
            let had_room = wait.is_registered();
            if let Some(outcome) = wait.within(ONE_WAIT).await {
                return Ok(outcome);
            }
            if !had_room {
                tokio::select! {
                    biased;
                    () = self.shared.stop.cancelled() => {}
                    () = tokio::time::sleep(WITHOUT_ROOM) => {}
                }
            }
            // It may have been removed, long after it ended.
            let record = store.command(self.id).await?.ok_or(AskError::NotFound(self.id))?;
            if let Some(outcome) = record.outcome {
                return Ok(outcome);
            }
        }
    }
}
