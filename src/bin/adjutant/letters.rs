//! `dead-letters`: looking at dead letters, and acting on them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json, value::RawValue};
use uuid::Uuid;

use crate::{
    api::Api,
    export,
    failure::Failure,
    jobs,
    output::{Output, pairs, plain},
};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// List dead letters, newest first.
    #[command(after_help = "Examples:\n  \
        adjutant dead-letters list --type account.deposit --newer-than 2h\n  \
        adjutant dead-letters list --error 22d7782c4c8636e7 --state any")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Count dead letters by cause: type, error code and message, without what varies in it.
    #[command(after_help = "Example:\n  adjutant dead-letters groups --newer-than 1d")]
    Groups {
        #[command(flatten)]
        filter: Filter,
    },
    /// Show one with everything that is known: payload, every attempt, what people did with it.
    Show {
        /// The dead letter.
        id: Uuid,
    },
    /// Execute again: one, or all that match.
    #[command(after_help = RETRY_HELP)]
    Retry(Retry),
    /// Give up: one, or all that match. What waits behind them goes on.
    #[command(after_help = DISCARD_HELP)]
    Discard(Discard),
    /// Write everything about those that match as JSON lines, payloads included.
    #[command(after_help = "Example:\n  \
        adjutant dead-letters export --state any --to letters.ndjson")]
    Export {
        #[command(flatten)]
        filter: Filter,
        /// The file to write; without it, standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

const RETRY_HELP: &str = "Examples:\n  \
    adjutant dead-letters retry 0190c7f2-aaaa-7bbb-8ccc-1234567890ab\n  \
    adjutant dead-letters retry 0190c7f2-aaaa-7bbb-8ccc-1234567890ab --payload corrected.json\n  \
    echo '{\"amount\":5}' | adjutant dead-letters retry 0190c7f2-aaaa-7bbb-8ccc-1234567890ab --payload -\n  \
    adjutant dead-letters retry --all --type account.deposit --error timed_out --rate 500 --yes\n\n\
    With --all a job of the service does it, and goes on if this command is interrupted: \
    `adjutant jobs`.";

const DISCARD_HELP: &str = "Examples:\n  \
    adjutant dead-letters discard 0190c7f2-aaaa-7bbb-8ccc-1234567890ab --reason 'paid by hand'\n  \
    adjutant dead-letters discard --all --older-than 30d --reason 'too old to matter' --yes";

/// Which dead letters.
#[derive(Args)]
pub(crate) struct Filter {
    /// Only `command`, `parked_key` or `callback`.
    #[arg(long)]
    kind: Option<String>,
    /// Only of this group: `commands`, `projection.NAME`, `callbacks`.
    #[arg(long)]
    group: Option<String>,
    /// Only of this command or event type.
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
    /// Only of this stream, parked key, or host of a callback.
    #[arg(long, visible_alias = "key")]
    stream: Option<String>,
    /// Only with this error code, or fingerprint.
    #[arg(long)]
    error: Option<String>,
    /// Only in this state: open (unless told), retrying, resolved, discarded, any.
    #[arg(long)]
    state: Option<String>,
    /// Only those that died longer ago: 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// Only those that died since: 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "AGE")]
    newer_than: Option<String>,
}

impl Filter {
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("kind", &self.kind),
            ("group", &self.group),
            ("type", &self.type_name),
            ("key", &self.stream),
            ("error", &self.error),
            ("state", &self.state),
            ("older_than", &self.older_than),
            ("newer_than", &self.newer_than),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    fn body(&self) -> Map<String, Value> {
        self.pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

#[derive(Args)]
pub(crate) struct Retry {
    /// The dead letter.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<Uuid>,
    /// Execute it with the payload in this file (`-`: standard input); the original is kept.
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    payload: Option<PathBuf>,
    /// All that match.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Why; kept in the audit.
    #[arg(long)]
    reason: Option<String>,
    /// With --all: at most so many a second.
    #[arg(long, requires = "all")]
    rate: Option<i32>,
    /// With --all: so many first, whose outcomes decide about the rest (0: none).
    #[arg(long, requires = "all")]
    canary: Option<i32>,
    /// With --all: the share of the first ones that may die again (0 to 1).
    #[arg(long, requires = "all")]
    max_failed_share: Option<f64>,
    /// With --all: do not ask.
    #[arg(long, requires = "all")]
    yes: bool,
    /// With --all: do not follow the job.
    #[arg(long, requires = "all")]
    no_wait: bool,
}

#[derive(Args)]
pub(crate) struct Discard {
    /// The dead letter.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<Uuid>,
    /// Why; kept in the audit.
    #[arg(long)]
    reason: String,
    /// All that match.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// With --all: at most so many a second.
    #[arg(long, requires = "all")]
    rate: Option<i32>,
    /// With --all: do not ask.
    #[arg(long, requires = "all")]
    yes: bool,
    /// With --all: do not follow the job.
    #[arg(long, requires = "all")]
    no_wait: bool,
}

pub(crate) async fn run(api: &Api, output: &Output, task: Task) -> Result<(), Failure> {
    match task {
        Task::List { filter, limit } => {
            let letters = api.list(&["dead-letters"], &filter.pairs(), limit).await?;
            let header = ["ID", "KIND", "TYPE", "KEY", "STATE", "DIED", "ERROR", "MESSAGE"];
            output.rows(&header, &letters, |letter| {
                let shown = ["id", "kind", "type", "key", "state", "died_at"];
                let mut row: Vec<_> = shown.iter().map(|name| plain(&letter[*name])).collect();
                row.push(plain(&letter["error"]["code"]));
                row.push(plain(&letter["error"]["message"]));
                row
            });
            Ok(())
        }
        Task::Groups { filter } => groups(api, output, &filter).await,
        Task::Show { id } => {
            let letter = api.get(&["dead-letters", &id.to_string()], &[]).await?;
            output.value(&letter, describe);
            Ok(())
        }
        Task::Retry(retry) => self::retry(api, output, retry).await,
        Task::Discard(discard) => self::discard(api, output, discard).await,
        Task::Export { filter, to } => export::run(api, &filter, to.as_deref()).await,
    }
}

async fn groups(api: &Api, output: &Output, filter: &Filter) -> Result<(), Failure> {
    let mut answer = api.get(&["dead-letters", "groups"], &filter.pairs()).await?;
    let Value::Array(groups) = answer["items"].take() else {
        return Err(Failure::Answer { status: 200, problem: answer });
    };
    let header = ["COUNT", "FINGERPRINT", "TYPE", "ERROR", "FIRST", "LAST", "EXAMPLE", "MESSAGE"];
    output.rows(&header, &groups, |group| {
        let example = &group["example"];
        vec![
            plain(&group["count"]),
            plain(&group["fingerprint"]),
            plain(&example["type"]),
            plain(&example["error"]["code"]),
            plain(&group["first_died_at"]),
            plain(&group["last_died_at"]),
            plain(&example["id"]),
            plain(&example["error"]["message"]),
        ]
    });
    Ok(())
}

async fn retry(api: &Api, output: &Output, retry: Retry) -> Result<(), Failure> {
    let Some(id) = retry.id else {
        let mut body = retry.filter.body();
        body.extend(retry.reason.map(|reason| ("reason".to_owned(), reason.into())));
        body.extend(retry.rate.map(|rate| ("rate".to_owned(), rate.into())));
        body.extend(retry.canary.map(|canary| ("canary".to_owned(), canary.into())));
        body.extend(retry.max_failed_share.map(|it| ("max_failed_share".to_owned(), it.into())));
        let (what, meant) = ("dead-letters", "open dead letters");
        let asked =
            jobs::Asked { action: "retry", what, meant, yes: retry.yes, wait: !retry.no_wait };
        return jobs::make(api, output, asked, Value::Object(body)).await;
    };
    refuse_filter(&retry.filter)?;
    // The payload goes as it is: no number of it changes on the way.
    let payload = retry.payload.as_deref().map(read_payload).transpose()?;
    let body = Body { payload: payload.as_deref(), reason: retry.reason.as_deref() };
    let request = api.request(Method::POST, &["dead-letters", &id.to_string(), "retry"])?;
    let letter = api.json(request.json(&body)).await?;
    output.value(&letter, describe);
    Ok(())
}

async fn discard(api: &Api, output: &Output, discard: Discard) -> Result<(), Failure> {
    let Some(id) = discard.id else {
        let mut body = discard.filter.body();
        body.insert("reason".to_owned(), discard.reason.into());
        body.extend(discard.rate.map(|rate| ("rate".to_owned(), rate.into())));
        let (what, meant) = ("dead-letters", "open dead letters");
        let asked = jobs::Asked {
            action: "discard",
            what,
            meant,
            yes: discard.yes,
            wait: !discard.no_wait,
        };
        return jobs::make(api, output, asked, Value::Object(body)).await;
    };
    refuse_filter(&discard.filter)?;
    let request = api.request(Method::POST, &["dead-letters", &id.to_string(), "discard"])?;
    let letter = api.json(request.json(&json!({ "reason": discard.reason }))).await?;
    output.value(&letter, describe);
    Ok(())
}

#[derive(serde::Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// A filter beside an id would be ignored.
fn refuse_filter(filter: &Filter) -> Result<(), Failure> {
    match filter.pairs().as_slice() {
        [] => Ok(()),
        [(name, _), ..] => Err(Failure::Usage(format!("`{name}` goes with --all, not with an id"))),
    }
}

fn read_payload(path: &std::path::Path) -> Result<Box<RawValue>, Failure> {
    let name = path.display().to_string();
    let text = if path == std::path::Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(Failure::io(&name))?;
    RawValue::from_string(text.trim().to_owned())
        .map_err(|error| Failure::Usage(format!("{name} is no JSON: {error}")))
}

/// A dead letter for people.
fn describe(letter: &Value) -> String {
    let error = &letter["error"];
    let mut shown = pairs(vec![
        ("id", plain(&letter["id"])),
        ("kind", plain(&letter["kind"])),
        ("group", plain(&letter["group"])),
        ("type", plain(&letter["type"])),
        ("key", plain(&letter["key"])),
        ("command", plain(&letter["command_id"])),
        ("position", plain(&letter["position"])),
        ("state", format!("{} since {}", plain(&letter["state"]), plain(&letter["state_at"]))),
        ("died", plain(&letter["died_at"])),
        ("attempts", plain(&letter["attempts"])),
        ("error", plain(&error["code"])),
        ("message", plain(&error["message"])),
        ("sources", plain(&error["sources"])),
        ("fingerprint", plain(&letter["fingerprint"])),
        ("trace", plain(&letter["trace_id"])),
        ("payload", json_of(&letter["payload"])),
        ("edited", json_of(&letter["edit"]["payload"])),
        ("event", json_of(&letter["event"])),
    ]);
    let each = |name: &str| letter[name].as_array().into_iter().flatten();
    let attempts = each("attempt_history").map(|it| {
        let (attempt, at) = (plain(&it["attempt"]), plain(&it["failed_at"]));
        let (code, message) = (plain(&it["error"]["code"]), plain(&it["error"]["message"]));
        format!("attempt {attempt}  {at}  {code}: {message}")
    });
    let past = each("past_outcomes").map(|it| {
        format!("died {}, retried {}", plain(&it["completed_at"]), plain(&it["taken_back_at"]))
    });
    let audit = each("audit").map(|it| {
        let (at, action, who) = (plain(&it["at"]), plain(&it["action"]), plain(&it["who"]));
        let reason = it["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{at}  {action} by {who}{reason}")
    });
    for line in attempts.chain(past).chain(audit) {
        shown.push('\n');
        shown.push_str(&line);
    }
    shown
}

fn json_of(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}
