//! `send`: one command, or a file of them.

use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    api::Api,
    failure::Failure,
    output::Output,
    send_file,
    status::{describe, ended},
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The command's type, for example `account.deposit`.
    #[arg(required_unless_present = "file")]
    command_type: Option<String>,
    /// The stream, for example `account/acc-42`.
    #[arg(required_unless_present = "file")]
    stream: Option<String>,
    /// The payload in JSON.
    #[arg(required_unless_present = "file")]
    payload: Option<String>,
    /// Send a file of commands instead, one JSON object a line; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["command_type", "id", "key", "expected_version", "not_before", "not_after", "actor", "correlation_id"])]
    file: Option<PathBuf>,
    /// Wait up to this many seconds for outcomes.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// The command's id; repeating it does nothing twice.
    #[arg(long)]
    id: Option<Uuid>,
    /// An idempotency key, from which the service makes the id.
    #[arg(long, conflicts_with = "id")]
    key: Option<String>,
    /// Reject the command if the stream is not at this version.
    #[arg(long)]
    expected_version: Option<i64>,
    /// Do not start it before this time (RFC 3339).
    #[arg(long)]
    not_before: Option<String>,
    /// Do not start it after this time (RFC 3339): it ends as cancelled.
    #[arg(long)]
    not_after: Option<String>,
    /// Who asks.
    #[arg(long)]
    actor: Option<String>,
    /// What it belongs to.
    #[arg(long)]
    correlation_id: Option<String>,
    /// Write what became of each line of the file to this file, one JSON object a line.
    #[arg(long, requires = "file")]
    results: Option<PathBuf>,
}

pub(crate) async fn run(api: &Api, output: &Output, arguments: Arguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.file {
        let results = arguments.results.as_deref();
        return send_file::run(api, output, file, results, arguments.wait).await;
    }
    let mut request = api.request(Method::POST, &["commands"])?.json(&command(&arguments)?);
    if arguments.wait > 0 {
        request = request.header("Prefer", format!("wait={}", arguments.wait.min(60)));
    }
    if let Some(key) = &arguments.key {
        request = request.header("Idempotency-Key", key);
    }
    let command = api.json(request).await?;
    output.value(&command, describe);
    let status = command["status"].as_str().unwrap_or_default();
    if ended(&command) && status != "succeeded" {
        return Err(Failure::No(format!("the command was {status}")));
    }
    if arguments.wait > 0 && !ended(&command) {
        let id = command["id"].as_str().unwrap_or_default();
        return Err(Failure::NotYet(format!(
            "accepted, but not ended within {} s: adjutant watch {id}",
            arguments.wait
        )));
    }
    Ok(())
}

fn command(arguments: &Arguments) -> Result<Value, Failure> {
    let payload = arguments.payload.as_deref().unwrap_or_default();
    let payload: Value = serde_json::from_str(payload)
        .map_err(|error| Failure::Usage(format!("the payload is not JSON: {error}")))?;
    let mut metadata = Map::new();
    let given = [("actor", &arguments.actor), ("correlation_id", &arguments.correlation_id)];
    for (name, value) in given {
        metadata.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    let fields = [
        ("id", arguments.id.map(|id| json!(id))),
        ("type", arguments.command_type.as_ref().map(|kind| json!(kind))),
        ("stream", arguments.stream.as_ref().map(|stream| json!(stream))),
        ("payload", Some(payload)),
        ("expected_version", arguments.expected_version.map(|version| json!(version))),
        ("not_before", arguments.not_before.as_ref().map(|time| json!(time))),
        ("not_after", arguments.not_after.as_ref().map(|time| json!(time))),
        ("metadata", (!metadata.is_empty()).then_some(Value::Object(metadata))),
    ];
    let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Value::Object(present.collect()))
}
