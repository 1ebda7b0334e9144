//! Commands to accept.

use adjutant::{
    message::{CommandContent, CommandId, Lane, Metadata, RawJson, StreamId},
    store::{NewCommand, WhenDue},
};

pub fn stream(counter: &str) -> StreamId {
    format!("counter/{counter}").parse().expect("a stream")
}

pub fn command(id: CommandId, name: &str, counter: &str, payload: serde_json::Value) -> NewCommand {
    let stream = stream(counter);
    let content = CommandContent {
        command_type: name,
        stream: &stream,
        payload: &payload,
        not_before: None,
        not_after: None,
        expected_version: None,
    };
    NewCommand {
        id,
        command_type: name.to_owned(),
        content_hash: content.hash().expect("hash"),
        payload: RawJson::encode(&payload).expect("JSON"),
        metadata: Metadata::default(),
        lane: Lane::Queued,
        expected_version: None,
        not_before: None,
        reply_to: None,
        not_after: None,
        callback_url: None,
        or_queued: false,
        held_by: None,
        when_due: WhenDue::Log,
        stream,
    }
}

/// What a flaky command does: see [`Flaky`](super::domain::Flaky).
pub fn flaky(kind: &str, counter: &str, key: &str, fails: u32, how: &str) -> NewCommand {
    let payload = serde_json::json!({ "key": key, "fails": fails, "how": how, "amount": 1 });
    command(CommandId::generate(), &format!("counter.{kind}"), counter, payload)
}

/// Adds an amount to a counter, under a new id.
pub fn add(counter: &str, amount: i64) -> NewCommand {
    let payload = serde_json::json!({ "amount": amount });
    command(CommandId::generate(), "counter.add", counter, payload)
}
