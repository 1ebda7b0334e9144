//! `recurring`: commands that are sent again and again.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use reqwest::{Method, header::IF_MATCH};
use serde_json::{Map, Value, json};

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, pairs, plain},
};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// All of them, by name.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One of them, with its next due times.
    Show {
        /// Its name.
        name: String,
    },
    /// Make one, or replace what was set of it.
    Set(Box<Set>),
    /// Remove one. Commands that it has sent stay.
    Remove(One),
    /// Stop one until it is resumed. What falls due meanwhile is not made up for.
    Pause(One),
    /// Let a paused one go on, from its next due time on.
    Resume(One),
}

#[derive(Args)]
pub(crate) struct One {
    /// Its name.
    name: String,
    /// Only if it still has this ETag (`recurring show --json` prints it).
    #[arg(long)]
    if_match: Option<String>,
}

#[derive(Args)]
pub(crate) struct Set {
    /// Its name: a-z, 0-9, `_`, `.` and `-`.
    name: String,
    /// When: minute, hour, day of month, month, day of week, as in `30 3 * * MON-FRI`; six fields have
    /// seconds in front.
    #[arg(required_unless_present = "file")]
    cron: Option<String>,
    /// The command's type, for example `account.deposit`.
    #[arg(required_unless_present = "file")]
    command_type: Option<String>,
    /// The stream, for example `account/acc-42`.
    #[arg(required_unless_present = "file")]
    stream: Option<String>,
    /// The payload in JSON.
    #[arg(required_unless_present = "file")]
    payload: Option<String>,
    /// By the clocks of this zone of the IANA database, for example `Europe/Berlin`.
    #[arg(long, default_value = "UTC")]
    time_zone: String,
    /// What becomes of runs that could not be sent in time: none, one for all, or each.
    #[arg(long, value_enum, default_value_t = Missed::Skip)]
    missed: Missed,
    /// Reject the command if the stream is not at this version.
    #[arg(long)]
    expected_version: Option<i64>,
    /// Who asks.
    #[arg(long)]
    actor: Option<String>,
    /// What it belongs to.
    #[arg(long)]
    correlation_id: Option<String>,
    /// Send this file instead: JSON as `PUT /v1/recurring/{name}` takes it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cron", "time_zone", "missed", "expected_version", "actor", "correlation_id"])]
    file: Option<PathBuf>,
    /// Only if it still has this ETag (`recurring show --json` prints it).
    #[arg(long)]
    if_match: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Missed {
    Skip,
    Once,
    All,
}

pub(crate) async fn run(api: &Api, output: &Output, task: Task) -> Result<(), Failure> {
    match task {
        Task::List { limit } => {
            let items = api.list(&["recurring"], &[], limit).await?;
            let header = ["NAME", "CRON", "TIME ZONE", "STATE", "NEXT", "LAST", "RUNS", "MISSED"];
            output.rows(&header, &items, row);
            Ok(())
        }
        Task::Show { name } => tell(api, output, Method::GET, &[&name], None, None).await,
        Task::Set(set) => {
            let body = match &set.file {
                Some(file) => read(file)?,
                None => body(&set)?,
            };
            let if_match = set.if_match.as_deref();
            tell(api, output, Method::PUT, &[&set.name], if_match, Some(&body)).await
        }
        Task::Remove(one) => {
            tell(api, output, Method::DELETE, &[&one.name], one.if_match.as_deref(), None).await
        }
        Task::Pause(one) => {
            let path = [one.name.as_str(), "pause"];
            tell(api, output, Method::POST, &path, one.if_match.as_deref(), None).await
        }
        Task::Resume(one) => {
            let path = [one.name.as_str(), "resume"];
            tell(api, output, Method::POST, &path, one.if_match.as_deref(), None).await
        }
    }
}

/// Asks, and shows the one that is answered.
async fn tell(
    api: &Api,
    output: &Output,
    method: Method,
    path: &[&str],
    if_match: Option<&str>,
    body: Option<&Value>,
) -> Result<(), Failure> {
    let mut request = api.request(method, &[&["recurring"], path].concat())?;
    if let Some(tag) = if_match {
        request = request.header(IF_MATCH, tag);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = api.send(request).await?;
    let mut recurring = answer.json()?;
    let etag = answer.headers.get("etag").and_then(|etag| etag.to_str().ok());
    if let (Some(etag), Value::Object(fields)) = (etag, &mut recurring) {
        fields.insert("etag".to_owned(), json!(etag));
    }
    output.value(&recurring, describe);
    Ok(())
}

fn read(file: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(file).map_err(Failure::io(file.display().to_string()))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{}: not JSON: {error}", file.display())))
}

fn body(set: &Set) -> Result<Value, Failure> {
    let payload: Value = serde_json::from_str(set.payload.as_deref().unwrap_or_default())
        .map_err(|error| Failure::Usage(format!("the payload is not JSON: {error}")))?;
    let mut metadata = Map::new();
    for (name, value) in [("actor", &set.actor), ("correlation_id", &set.correlation_id)] {
        metadata.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    let fields = [
        ("type", set.command_type.as_ref().map(|kind| json!(kind))),
        ("stream", set.stream.as_ref().map(|stream| json!(stream))),
        ("payload", Some(payload)),
        ("expected_version", set.expected_version.map(|version| json!(version))),
        ("metadata", (!metadata.is_empty()).then_some(Value::Object(metadata))),
    ];
    let command = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let missed_runs = match set.missed {
        Missed::Skip => "skip",
        Missed::Once => "once",
        Missed::All => "all",
    };
    Ok(json!({
        "cron": set.cron,
        "time_zone": set.time_zone,
        "missed_runs": missed_runs,
        "command": Value::Object(command.collect()),
    }))
}

fn row(recurring: &Value) -> Vec<String> {
    ["name", "cron", "time_zone", "state", "next_due_at", "last_due_at", "runs", "missed"]
        .map(|field| plain(&recurring[field]))
        .to_vec()
}

/// One of them for people.
fn describe(recurring: &Value) -> String {
    let command = &recurring["command"];
    let expected = &command["expected_version"];
    pairs(vec![
        ("name", plain(&recurring["name"])),
        ("cron", plain(&recurring["cron"])),
        ("time zone", plain(&recurring["time_zone"])),
        ("missed runs", plain(&recurring["missed_runs"])),
        ("type", plain(&command["type"])),
        ("stream", plain(&command["stream"])),
        ("payload", command["payload"].to_string()),
        ("expected version", plain(expected)),
        ("actor", plain(&command["metadata"]["actor"])),
        ("correlation id", plain(&command["metadata"]["correlation_id"])),
        ("state", plain(&recurring["state"])),
        ("upcoming", plain(&recurring["upcoming"])),
        ("runs", plain(&recurring["runs"])),
        ("missed", plain(&recurring["missed"])),
        ("last due", plain(&recurring["last_due_at"])),
        ("last command", plain(&recurring["last_command_id"])),
        ("made", made(recurring, "created")),
        ("changed", made(recurring, "changed")),
        ("etag", plain(&recurring["etag"])),
    ])
}

fn made(recurring: &Value, what: &str) -> String {
    let part = |name: &str| plain(&recurring[format!("{what}_{name}")]);
    format!("{} by {}", part("at"), part("by"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_described_with_what_it_sends_and_when() {
        let recurring = json!({
            "name": "nightly", "cron": "0 3 * * *", "time_zone": "UTC", "missed_runs": "skip",
            "command": { "type": "a.b", "stream": "a/1", "payload": { "x": 1 }, "lane": "queued" },
            "state": "active", "revision": 1, "next_due_at": "2026-01-01T03:00:00Z",
            "upcoming": ["2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"], "runs": 7, "missed": 0,
            "last_due_at": null, "last_command_id": null,
            "created_at": "2026-01-01T00:00:00Z", "created_by": "ann",
            "changed_at": "2026-01-01T00:00:00Z", "changed_by": "ann", "etag": "\"1-a\"",
        });
        let text = describe(&recurring);
        assert!(text.contains("2026-01-01T03:00:00Z, 2026-01-02T03:00:00Z"), "{text}");
        assert!(text.contains(r#"{"x":1}"#) && text.contains("by ann"), "{text}");
        assert!(!text.contains("last command"), "{text}");
        assert_eq!(row(&recurring)[..4], ["nightly", "0 3 * * *", "UTC", "active"]);
    }
}
