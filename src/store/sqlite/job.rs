//! What callers hand to the writer's thread: work to run inside a savepoint, and a way to answer.

use std::{sync::mpsc, time::Duration};

use tokio::sync::oneshot;

use super::transaction::Transaction;
use crate::store::StoreError;

/// Work inside a transaction.
pub(super) trait Work<T>:
    FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static
{
}

impl<T, F> Work<T> for F where F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static {}

/// A piece of work of some caller.
pub(super) trait Job: Send {
    /// Whether the caller still waits; nobody misses the work of one that went away.
    fn is_wanted(&self) -> bool;
    /// Whether it waits for its caller while it runs.
    fn waits_for_caller(&self) -> bool;
    /// Does the work; whether its effects are to be kept.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// Tells the caller, once it is known whether the shared transaction took place.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Call<W, T> {
    work: Option<W>,
    waits_for_caller: bool,
    done: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, W: Work<T>> Job for Call<W, T> {
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn waits_for_caller(&self) -> bool {
        self.waits_for_caller
    }

    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        self.done = self.work.take().map(|work| work(transaction));
        matches!(self.done, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (self.done, committed) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(shared)) => Err(shared),
            (Some(Ok(done)), Ok(())) => Ok(done),
            (None, Ok(())) => Err(StoreError::Internal("the work was not run".into())),
        };
        // The caller may have gone away; what was committed stays committed.
        let _ = self.answer.send(answer);
    }
}

/// What a caller waits for.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

/// A job that needs nothing but the transaction.
pub(super) fn call<T: Send + 'static>(work: impl Work<T>) -> (Box<dyn Job>, Answer<T>) {
    job(work, false)
}

fn job<T: Send + 'static>(work: impl Work<T>, waits_for_caller: bool) -> (Box<dyn Job>, Answer<T>) {
    let (answer, answered) = oneshot::channel();
    let job = Call { work: Some(work), waits_for_caller, done: None, answer };
    (Box::new(job), answered)
}

/// The caller's side of a job that asks it something in the middle.
pub(super) struct Conversation<L, D, T> {
    /// What was loaded.
    pub(super) loaded: oneshot::Receiver<L>,
    /// Where the decision goes. Dropped without one: nothing takes place.
    pub(super) decision: mpsc::SyncSender<D>,
    /// How it ended.
    pub(super) answer: Answer<T>,
}

/// A job that loads, lets its caller decide, and writes what was decided, with no other writer in
/// between. The caller's closure stays where it is; only values travel. A caller that goes away
/// ends the job at once, one that does not decide in time ends it after `limit`.
pub(super) fn conversation<L, D, T>(
    load: impl Work<L>,
    finish: impl FnOnce(&Transaction<'_>, D) -> Result<T, StoreError> + Send + 'static,
    limit: Duration,
) -> (Box<dyn Job>, Conversation<L, D, T>)
where
    L: Send + 'static,
    D: Send + 'static,
    T: Send + 'static,
{
    let (tell, loaded) = oneshot::channel();
    let (decision, decided) = mpsc::sync_channel(1);
    let work = move |transaction: &Transaction<'_>| {
        let gone = || StoreError::Transient("the caller went away without a decision".into());
        tell.send(load(transaction)?).map_err(|_| gone())?;
        let decision = decided.recv_timeout(limit).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                StoreError::Transient(format!("there was no decision within {limit:?}"))
            }
            mpsc::RecvTimeoutError::Disconnected => gone(),
        })?;
        finish(transaction, decision)
    };
    let (job, answer) = job(work, true);
    (job, Conversation { loaded, decision, answer })
}
