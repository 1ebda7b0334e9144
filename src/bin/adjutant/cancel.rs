//! `cancel`: calling commands off, by their ids or all that match.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{api::Api, failure::Failure, jobs, output::Output, status::describe};

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Arguments {
    /// The commands.
    #[arg(required_unless_present = "filter")]
    ids: Vec<Uuid>,
    #[command(flatten)]
    filter: Filter,
    /// Why; the commands' outcomes say it.
    #[arg(long)]
    reason: Option<String>,
    /// With a filter: at most so many a second.
    #[arg(long, requires = "filter")]
    rate: Option<i32>,
    /// With a filter: do not ask.
    #[arg(long, requires = "filter")]
    yes: bool,
    /// With a filter: do not follow the job.
    #[arg(long, requires = "filter")]
    no_wait: bool,
}

const HELP: &str = "Examples:\n  \
    adjutant cancel 0190c7f2-aaaa-7bbb-8ccc-1234567890ab --reason 'sent twice'\n  \
    adjutant cancel --type account.deposit --status retrying --reason 'the bank is closed'\n  \
    adjutant cancel --stream account/acc-42 --older-than 2h --yes\n\n\
    A command that has ended cannot be cancelled. With a filter a job of the service does it, and \
    goes on if this command is interrupted: `adjutant jobs`.";

/// Which commands that have not ended.
#[derive(Args)]
#[group(id = "filter", multiple = true, conflicts_with = "ids")]
struct Filter {
    /// Those in this status: scheduled, accepted, waiting, retrying.
    #[arg(long)]
    status: Option<String>,
    /// Those of this type.
    #[arg(long = "type", value_name = "TYPE")]
    command_type: Option<String>,
    /// Those of this stream.
    #[arg(long)]
    stream: Option<String>,
    /// Those that were accepted longer ago: 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// Those that were accepted since: 90s, 15m, 2h, 7d.
    #[arg(long, value_name = "AGE")]
    newer_than: Option<String>,
    /// All that have not ended.
    #[arg(long, conflicts_with_all = ["status", "command_type", "stream", "older_than", "newer_than"])]
    all: bool,
}

impl Filter {
    fn body(&self) -> Map<String, Value> {
        let words = [
            ("status", &self.status),
            ("type", &self.command_type),
            ("stream", &self.stream),
            ("older_than", &self.older_than),
            ("newer_than", &self.newer_than),
        ];
        let words = words.into_iter().filter_map(|(name, word)| Some((name, word.clone()?.into())));
        let all = self.all.then(|| ("all", true.into()));
        words.chain(all).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

pub(crate) async fn run(api: &Api, output: &Output, arguments: Arguments) -> Result<(), Failure> {
    if !arguments.ids.is_empty() {
        return each(api, output, &arguments.ids, arguments.reason.as_deref()).await;
    }
    let mut body = arguments.filter.body();
    body.extend(arguments.reason.map(|reason| ("reason".to_owned(), reason.into())));
    body.extend(arguments.rate.map(|rate| ("rate".to_owned(), rate.into())));
    let asked = jobs::Asked {
        action: "cancel",
        what: "commands",
        meant: "commands that have not ended",
        yes: arguments.yes,
        wait: !arguments.no_wait,
    };
    jobs::make(api, output, asked, Value::Object(body)).await
}

/// One after the other; a refusal of one does not keep the others from being asked for.
async fn each(
    api: &Api,
    output: &Output,
    ids: &[Uuid],
    reason: Option<&str>,
) -> Result<(), Failure> {
    let mut refused = 0;
    for id in ids {
        let mut request = api.request(Method::DELETE, &["commands", &id.to_string()])?;
        if let Some(reason) = reason {
            request = request.query(&[("reason", reason)]);
        }
        match api.json(request).await {
            Ok(command) => output.value(&command, describe),
            Err(failure @ Failure::Answer { status: 400..500, .. }) if ids.len() > 1 => {
                output.failure(&failure);
                refused += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
    match refused {
        0 => Ok(()),
        refused => Err(Failure::No(format!("{refused} of {} were not cancelled", ids.len()))),
    }
}
