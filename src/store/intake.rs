//! What the ingress needs: accepting commands.

use async_trait::async_trait;

use super::StoreError;
#[cfg(any(feature = "postgres", feature = "embedded"))]
use crate::message::CommandEnvelope;
use crate::message::{
    CommandId, ContentHash, Lane, MemberId, Metadata, RawJson, ReplyAddress, StreamId, Timestamp,
    Version,
};

/// A command that was checked and may be accepted.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Its id.
    pub id: CommandId,
    /// The wire name.
    pub command_type: String,
    /// The stream.
    pub stream: StreamId,
    /// The payload.
    pub payload: RawJson,
    /// Who asked.
    pub metadata: Metadata,
    /// Where it is executed.
    pub lane: Lane,
    /// The version the stream must have.
    pub expected_version: Option<Version>,
    /// Not to be started before.
    pub not_before: Option<Timestamp>,
    /// What a repetition must repeat.
    pub content_hash: ContentHash,
    /// Where the outcome goes besides the database.
    pub reply_to: Option<ReplyAddress>,
    /// Not to be started after.
    pub not_after: Option<Timestamp>,
    /// Where the command is sent when it has ended.
    pub callback_url: Option<String>,
    /// Whether it may take the queue if the immediate lane has no room.
    pub or_queued: bool,
    /// The process that executes it, without the queue (the immediate lane): it holds the command
    /// instead of the command log. `None`, or with a `not_before` in the future: the queued lane
    /// owes it.
    pub held_by: Option<MemberId>,
    /// Whether it waits in the schedule for a process with an immediate lane that claims it, until it
    /// is due or, without a `not_before`, from now on. If nobody does so for a while, the queued
    /// lane has it. Takes precedence over `held_by`.
    pub when_due: WhenDue,
}

/// Who has a command when it is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDue {
    /// The command log.
    #[default]
    Log,
    /// The immediate lane of some process; not for strict commands, which have their order by the
    /// log.
    Lane,
}

impl WhenDue {
    /// Who has it of this lane.
    pub fn of(lane: Lane, needs_log: bool) -> Self {
        if lane == Lane::Immediate && !needs_log { Self::Lane } else { Self::Log }
    }

    /// As the schedule has it.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Log => "not_before",
            Self::Lane => "immediate",
        }
    }
}

/// A command of the schedule that a process of the immediate lane has claimed, and holds.
#[derive(Clone, Debug)]
pub struct ClaimedCommand {
    /// The command; held by that process.
    pub command: NewCommand,
    /// When it was accepted, by the store's clock.
    pub accepted_at: Timestamp,
}

impl ClaimedCommand {
    /// As it was accepted.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(crate) fn new(
        envelope: CommandEnvelope,
        owner: MemberId,
        content_hash: ContentHash,
        not_before: Option<Timestamp>,
    ) -> Self {
        let accepted_at = envelope.accepted_at;
        let command = NewCommand {
            id: envelope.id,
            command_type: envelope.command_type,
            stream: envelope.stream,
            payload: envelope.payload,
            metadata: envelope.metadata,
            lane: Lane::Immediate,
            expected_version: envelope.expected_version,
            not_before,
            content_hash,
            reply_to: envelope.reply_to,
            not_after: envelope.not_after,
            callback_url: envelope.callback_url,
            or_queued: false,
            held_by: Some(owner),
            when_due: WhenDue::Lane,
        };
        Self { command, accepted_at }
    }
}

/// What became of one command of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// It is durable and will end in exactly one outcome.
    New {
        /// When, by the store's clock.
        accepted_at: Timestamp,
    },
    /// The id was accepted before.
    Occupied(Occupied),
}

/// Who holds the id already.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupied {
    /// The content of the command that holds it: the same, or another?
    pub content_hash: ContentHash,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// A message that the AMQP intake refused, on its way to the intake's dead-letter queue.
#[derive(Clone, Debug)]
pub struct RejectedMessage {
    /// The body as it came.
    pub body: Vec<u8>,
    /// Its content type as it came.
    pub content_type: String,
    /// Headers to add: at least the reason.
    pub headers: Vec<(String, String)>,
}

/// Accepting. Two flights: the commands, then (under the log locks) log entries, outbox rows and
/// COMMIT.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Accepts commands in one transaction, each with its log entry and outbox row; those with a
    /// `not_before` in the future, and those that an immediate lane is to claim, get a schedule row
    /// instead, those that a process holds a row that says so. Answers in the order of `batch`.
    /// Ids that were accepted before change nothing.
    async fn accept(&self, batch: Vec<NewCommand>) -> Result<Vec<Accepted>, StoreError>;

    /// Writes outbox rows for the intake's dead-letter queue, in one transaction.
    async fn reject_messages(&self, messages: Vec<RejectedMessage>) -> Result<(), StoreError>;
}
