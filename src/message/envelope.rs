//! The messages themselves. A message is a batch: the entries of one partition with consecutive
//! offsets. The first offset, the log id and the time stand in the message's headers, because only
//! the database knows them when it commits.

use serde::{Deserialize, Serialize};

use super::{Attempt, CommandId, Metadata, Offset, RawJson, StreamId, Timestamp, Version};

/// The version of the wire format that this release writes.
pub const WIRE_FORMAT: u16 = 1;

/// Where a command is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Through RabbitMQ, by a command worker.
    #[default]
    Queued,
    /// In the process that received it.
    Immediate,
}

/// Where the outcome of a command that came by AMQP is sent (AMQP 0-9-1 `reply-to`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyAddress {
    /// The queue, addressed through the default exchange.
    pub queue: String,
    /// Echoed as the reply's `correlation-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// A command on its way to the worker that executes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    /// The command's id.
    pub id: CommandId,
    /// The wire name, for example `account.deposit`.
    #[serde(rename = "type")]
    pub command_type: String,
    /// The stream it is meant for.
    pub stream: StreamId,
    /// The payload.
    pub payload: RawJson,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// The version the stream must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<Version>,
    /// Where the outcome goes besides the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ReplyAddress>,
    /// When it was accepted, by the store's clock.
    #[serde(with = "time::serde::timestamp::microseconds")]
    pub accepted_at: Timestamp,
    /// Which try this entry of the log owes. A first one does not travel.
    #[serde(default, skip_serializing_if = "Attempt::is_first")]
    pub attempt: Attempt,
    /// The offset of the command's first entry; `None`: this one is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<Offset>,
    /// Which correction of its payload this is (0: the payload as it was accepted).
    #[serde(default, skip_serializing_if = "is_original")]
    pub edit: i32,
}

impl CommandEnvelope {
    /// The offset of the command's first entry, if this one stands at `offset`.
    pub fn first_offset_at(&self, offset: Offset) -> Offset {
        self.first_offset.unwrap_or(offset)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_original(edit: &i32) -> bool {
    *edit == 0
}

/// An event as it was appended to its stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventEnvelope {
    /// The stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// The wire name, for example `account.deposited`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The schema version its data was written in.
    pub schema_version: i16,
    /// The data.
    pub data: RawJson,
    /// The command that caused it.
    pub command_id: CommandId,
    /// Copied from the command.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// The entries of one message.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Entries of a command log.
    Commands(Vec<CommandEnvelope>),
    /// Entries of an event log.
    Events(Vec<EventEnvelope>),
}

/// The body of a message on a command queue.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireCommands {
    /// [`WIRE_FORMAT`] of the writer.
    pub format: u16,
    /// The entries, in offset order.
    pub commands: Vec<CommandEnvelope>,
}

/// The body of a message on an event queue.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireEvents {
    /// [`WIRE_FORMAT`] of the writer.
    pub format: u16,
    /// The entries, in offset order.
    pub events: Vec<EventEnvelope>,
}
