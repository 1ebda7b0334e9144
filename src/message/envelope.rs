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
    /// Not to be started after, by the store's clock.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "time::serde::timestamp::microseconds::option"
    )]
    pub not_after: Option<Timestamp>,
    /// Where the command is sent when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
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

impl Batch {
    /// How many entries there are.
    #[cfg(feature = "runtime")]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Commands(commands) => commands.len(),
            Self::Events(events) => events.len(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Batch, decode_batch, encode_commands};

    fn command() -> CommandEnvelope {
        CommandEnvelope {
            id: CommandId("0190b3c4-0000-7000-8000-000000000001".parse().unwrap()),
            command_type: "account.deposit".into(),
            stream: "account/a".parse().unwrap(),
            payload: RawJson::encode(&serde_json::json!({ "amount": 5 })).unwrap(),
            metadata: Metadata::default(),
            expected_version: None,
            reply_to: None,
            accepted_at: Timestamp::from_unix_timestamp(1_700_000_000).unwrap(),
            attempt: Attempt::FIRST,
            first_offset: None,
            edit: 0,
            not_after: None,
            callback_url: None,
        }
    }

    fn again() -> CommandEnvelope {
        CommandEnvelope { attempt: Attempt(3), first_offset: Some(Offset(7)), edit: 2, ..command() }
    }

    fn hex(commands: &[CommandEnvelope]) -> String {
        let bytes = encode_commands(commands).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Messages outlive the release that wrote them: these forms must never change.
    #[test]
    fn the_form_of_a_command_on_the_road_never_changes() {
        assert_eq!(hex(&[command()]), FIRST);
        assert_eq!(hex(&[again()]), AGAIN);
    }

    #[test]
    fn both_forms_are_read_back() {
        for (form, command) in [(FIRST, command()), (AGAIN, again())] {
            let bytes: Vec<u8> = (0..form.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&form[at..at + 2], 16).unwrap())
                .collect();
            assert_eq!(decode_batch(&bytes, true).unwrap(), Batch::Commands(vec![command]));
        }
    }

    const FIRST: &str = "82a6666f726d617401a8636f6d6d616e64739185a26964c4100190b3c40000700080000000000000\
        01a474797065af6163636f756e742e6465706f736974a673747265616da96163636f756e742f61a7\
        7061796c6f6164ac7b22616d6f756e74223a357dab61636365707465645f6174c410000000000000\
        000000060a24181e4000";
    const AGAIN: &str = "82a6666f726d617401a8636f6d6d616e64739188a26964c4100190b3c40000700080000000000000\
        01a474797065af6163636f756e742e6465706f736974a673747265616da96163636f756e742f61a7\
        7061796c6f6164ac7b22616d6f756e74223a357dab61636365707465645f6174c410000000000000\
        000000060a24181e4000a7617474656d707403ac66697273745f6f666673657407a46564697402";
}
