//! Dispatching commands from Rust: each gives a handle, a promise of its outcome.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    AsyncCommandProcessor, CommandHandle, LaneStats, Request, handle::Where, request::WantedLane,
};
use crate::{
    domain::Aggregate,
    ingress::{
        Acceptance, CommandWatcher, GroupCommit, Problem, Refusal, Told, Validator, WatchSettings,
    },
    message::{CommandId, PartitionCount, Timestamp},
    signals::Signals,
    store::{NewCommand, Store, StoreError},
};

/// What a dispatcher works with.
pub struct DispatcherParts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Hints of this process.
    pub signals: Signals,
    /// Checks commands; it must know that there is an immediate lane.
    pub validator: Validator,
    /// Accepts commands for the queued lane.
    pub commit: GroupCommit,
    /// Executes commands in this process.
    pub processor: AsyncCommandProcessor,
    /// How many handles may wait at a time for what others execute.
    pub max_waiters: usize,
    /// Ends every wait.
    pub stop: CancellationToken,
}

/// Why a command was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// It is not a command that this service accepts.
    #[error("{}", .0.detail)]
    Invalid(Box<Problem>),
    /// It is, but it was not accepted (or, for [`Refusal::Unknown`], it may have been).
    #[error("the command was not accepted: {0:?}")]
    Refused(Refusal),
}

/// Dispatches commands of Rust code in a process that has the role ingress. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) stop: CancellationToken,
    pub(super) signals: Signals,
    pub(super) watcher: CommandWatcher,
    partitions: PartitionCount,
    validator: Validator,
    commit: GroupCommit,
    pub(super) processor: AsyncCommandProcessor,
}

impl Dispatcher {
    /// Starts one; it has one task, which asks the store for all handles that wait.
    pub fn start(parts: DispatcherParts) -> Self {
        let settings = WatchSettings { max_waiters: parts.max_waiters, tell: |_| Ok(nothing()) };
        let watcher = CommandWatcher::start(
            parts.store.clone(),
            parts.signals.clone(),
            settings,
            parts.stop.clone(),
        );
        let shared = Shared {
            partitions: parts.store.identity().partitions,
            store: parts.store,
            stop: parts.stop,
            signals: parts.signals,
            watcher,
            validator: parts.validator,
            commit: parts.commit,
            processor: parts.processor,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a command durable and has it executed in this process. When this returns, the command
    /// ends in exactly one outcome, whatever happens to this process.
    ///
    /// # Errors
    ///
    /// When the command is not valid, or there is no room.
    pub async fn dispatch<A: Aggregate>(
        &self,
        request: Request<A>,
    ) -> Result<CommandHandle<A>, DispatchError> {
        self.dispatch_to(&request, WantedLane::Immediate).await
    }

    /// The same, through the queue if this process has no room for it.
    pub async fn dispatch_immediate_or_queued<A: Aggregate>(
        &self,
        request: Request<A>,
    ) -> Result<CommandHandle<A>, DispatchError> {
        self.dispatch_to(&request, WantedLane::ImmediateOrQueued).await
    }

    /// Makes a command durable and leaves it to the command workers.
    pub async fn dispatch_queued<A: Aggregate>(
        &self,
        request: Request<A>,
    ) -> Result<CommandHandle<A>, DispatchError> {
        self.dispatch_to(&request, WantedLane::Queued).await
    }

    /// Makes a command durable that is not to be started before `time`, by the store's clock. When it
    /// is due, it enters the command log.
    pub async fn dispatch_at<A: Aggregate>(
        &self,
        time: Timestamp,
        request: Request<A>,
    ) -> Result<CommandHandle<A>, DispatchError> {
        self.dispatch_to(&request.not_before(time), WantedLane::Queued).await
    }

    /// Executes a command and waits for it, up to `wait`: one transaction holds the command, its
    /// events and its outcome. When the time is over, the command goes on and the handle knows it.
    pub async fn execute<A: Aggregate>(
        &self,
        request: Request<A>,
        wait: Duration,
    ) -> Result<CommandHandle<A>, DispatchError> {
        let command = self.check(&request, WantedLane::Immediate)?;
        let place = self.place_of(&command);
        let executed = self.shared.processor.execute(command, wait).await;
        let executed = executed.map_err(DispatchError::Refused)?;
        Ok(CommandHandle::executed(place, executed))
    }

    /// The handle of a command that anybody has sent, with this process or another one. Nothing is
    /// asked: a command that is not there is found out when its outcome or status is asked for.
    pub fn handle<A: Aggregate>(&self, id: CommandId) -> CommandHandle<A> {
        CommandHandle::elsewhere(Where { id, partition: None, shared: self.shared.clone() })
    }

    /// How the immediate lane of this process stands.
    pub fn stats(&self) -> LaneStats {
        self.shared.processor.stats()
    }

    async fn dispatch_to<A: Aggregate>(
        &self,
        request: &Request<A>,
        lane: WantedLane,
    ) -> Result<CommandHandle<A>, DispatchError> {
        let command = self.check(request, lane)?;
        let place = self.place_of(&command);
        if lane == WantedLane::Queued {
            let accepted = self.shared.commit.accept(command).await;
            let _: Acceptance = accepted.map_err(DispatchError::Refused)?;
            return Ok(CommandHandle::elsewhere(place));
        }
        let dispatched = self.shared.processor.dispatch(command).await;
        Ok(CommandHandle::dispatched(place, dispatched.map_err(DispatchError::Refused)?))
    }

    fn check<A: Aggregate>(
        &self,
        request: &Request<A>,
        lane: WantedLane,
    ) -> Result<NewCommand, DispatchError> {
        let checked = request.check(&self.shared.validator, lane);
        checked.map_err(|problem| DispatchError::Invalid(Box::new(problem)))
    }

    fn place_of(&self, command: &NewCommand) -> Where {
        let partition = Some(self.shared.partitions.of(&command.stream));
        Where { id: command.id, partition, shared: self.shared.clone() }
    }
}

/// Nobody watches here: outcomes are waited for.
fn nothing() -> Told {
    Told { mark: String::new(), text: bytes::Bytes::new(), last: true }
}

/// Why a command could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such command.
    #[error("there is no command {0}")]
    NotFound(CommandId),
    /// The process stops; the command goes on.
    #[error("the process stops; ask again for the outcome of command {0}")]
    Stopping(CommandId),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
