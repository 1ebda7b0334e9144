//! Group commit: commands that arrive while a commit runs share the next one. Nothing waits on
//! purpose: with a commit free, a command that comes alone is committed alone.
//!
//! Tasks of their own own the store's calls, so a caller that goes away (a dropped future) takes
//! nothing with it: its command is accepted whole or not at all.

mod batch;
mod committer;
mod room;

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{committer::Committer, room::Room};
use super::{CommitSettings, OutboxLimit, Problem, ProblemCode};
use crate::{
    message::Timestamp,
    signals::Signals,
    store::{NewCommand, Store},
};

/// An accepted command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// When it was accepted first, by the store's clock.
    pub accepted_at: Timestamp,
    /// It had been accepted before, with the same content; nothing was done.
    pub replay: bool,
}

/// Why a command was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The waiting room is full, or the wait for a commit became too long.
    Overloaded,
    /// The outbox is full.
    OutboxFull,
    /// The process is stopping.
    Stopping,
    /// The store did not answer in time; nothing was accepted.
    Unavailable(String),
    /// The store can never store it.
    Unstorable(String),
    /// The id is taken by a command with other content.
    Conflict,
    /// The answer to COMMIT was lost and could not be made good in time: it may be accepted.
    Unknown(String),
    /// Something unexpected; nothing was accepted.
    Internal(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, detail) = match refusal {
            Refusal::Overloaded => {
                (ProblemCode::Overloaded, "too many commands are waiting to be accepted".into())
            }
            Refusal::OutboxFull => (
                ProblemCode::OutboxFull,
                "too many messages wait for the broker; commands are accepted again when it took them"
                    .into(),
            ),
            Refusal::Stopping => (ProblemCode::Stopping, "this process is stopping".into()),
            Refusal::Unavailable(why) => (ProblemCode::Unavailable, why),
            Refusal::Unstorable(why) => (ProblemCode::Unstorable, why),
            Refusal::Conflict => (
                ProblemCode::IdConflict,
                "this id was accepted before, for a command with other content".into(),
            ),
            Refusal::Unknown(why) => (
                ProblemCode::AcceptanceUnknown,
                format!("{why}; repeat the command with the same id to learn what became of it"),
            ),
            Refusal::Internal(why) => (ProblemCode::Internal, why),
        };
        Problem::new(code, detail)
    }
}

/// What became of one command.
pub type Answer = Result<Acceptance, Refusal>;

/// Commands of one caller that stay together and in order.
struct Entry {
    commands: Vec<NewCommand>,
    bytes: usize,
    arrived: tokio::time::Instant,
    answer: oneshot::Sender<Vec<Answer>>,
    /// Gives the room back when the entry is answered.
    _place: room::Place,
}

/// The handle through which commands are accepted. Cheap to clone; when it is closed, or the last
/// clone is gone, the committer commits what waits and ends.
#[derive(Clone)]
pub struct GroupCommit {
    sender: mpsc::UnboundedSender<Entry>,
    room: Room,
    outbox: OutboxLimit,
    closed: CancellationToken,
}

impl GroupCommit {
    /// Starts the committer. The task ends when it is closed or every handle is dropped, and all is
    /// answered.
    pub fn start(
        store: Arc<dyn Store>,
        signals: Signals,
        outbox: OutboxLimit,
        settings: &CommitSettings,
    ) -> (Self, JoinHandle<()>) {
        // Unbounded, because the waiting room bounds it.
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Room::new(settings.waiting_commands, settings.waiting_bytes);
        let closed = CancellationToken::new();
        let committer = Committer::new(store, signals, room.clone(), settings);
        let task = tokio::spawn(committer.run(receiver, closed.clone()));
        (Self { sender, room, outbox, closed }, task)
    }

    /// Takes no more; what waits is committed. Whoever has a handle still is refused as
    /// [`Refusal::Stopping`].
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Accepts one command. If this future is dropped, the command is still accepted or refused as
    /// a whole.
    pub async fn accept(&self, command: NewCommand) -> Answer {
        let mut answers = self.accept_together(vec![command]).await?;
        answers.pop().unwrap_or_else(|| Err(Refusal::Internal("no answer".into())))
    }

    /// Accepts commands that came together: in one transaction and in their order. Each is answered
    /// on its own; an `Err` refuses all of them.
    pub async fn accept_together(&self, commands: Vec<NewCommand>) -> Result<Vec<Answer>, Refusal> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        if self.outbox.is_full() {
            return Err(Refusal::OutboxFull);
        }
        let bytes = commands.iter().map(size_of_command).sum();
        let place = self.room.enter(commands.len(), bytes).ok_or(Refusal::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let count = commands.len();
        let arrived = tokio::time::Instant::now();
        let entry = Entry { commands, bytes, arrived, answer, _place: place };
        self.sender.send(entry).map_err(|_| Refusal::Stopping)?;
        if planted!(AnswersBeforeCommit) {
            let accepted = Acceptance { accepted_at: Timestamp::UNIX_EPOCH, replay: false };
            return Ok(vec![Ok(accepted); count]);
        }
        // The sender is dropped without an answer only if the committing task panicked.
        answered.await.map_err(|_| Refusal::Unknown("the commit broke off".into()))
    }
}

/// What a command weighs in memory, roughly.
fn size_of_command(command: &NewCommand) -> usize {
    const FIXED: usize = 512;
    FIXED + command.payload.as_str().len()
}

#[cfg(test)]
mod tests;
