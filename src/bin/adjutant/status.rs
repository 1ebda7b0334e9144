//! `status`: what became of commands.

use clap::Args;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, pairs, plain},
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The commands; without any, the newest ones are listed.
    ids: Vec<Uuid>,
    /// List only those with this status.
    #[arg(long, conflicts_with = "ids")]
    status: Option<String>,
    /// List only those of this type.
    #[arg(long = "type", conflicts_with = "ids")]
    command_type: Option<String>,
    /// List only those of this stream.
    #[arg(long, conflicts_with = "ids")]
    stream: Option<String>,
    /// List at most this many.
    #[arg(long, default_value_t = 50, conflicts_with = "ids")]
    limit: usize,
}

pub(crate) async fn run(api: &Api, output: &Output, arguments: Arguments) -> Result<(), Failure> {
    if arguments.ids.is_empty() {
        let filter = [
            ("status", arguments.status),
            ("type", arguments.command_type),
            ("stream", arguments.stream),
        ];
        let query: Vec<_> =
            filter.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let commands = api.list(&["commands"], &query, arguments.limit).await?;
        let header = ["ID", "TYPE", "STREAM", "STATUS", "ACCEPTED", "ERROR"];
        output.rows(&header, &commands, |command| {
            let shown = ["id", "type", "stream", "status", "accepted_at"];
            let mut row: Vec<_> = shown.iter().map(|name| plain(&command[*name])).collect();
            row.push(plain(&command["outcome"]["error"]["code"]));
            row
        });
        return Ok(());
    }
    for id in &arguments.ids {
        let command = api.get(&["commands", &id.to_string()], &[]).await?;
        output.value(&command, describe);
    }
    Ok(())
}

/// Whether a command resource shows an end.
pub(crate) fn ended(command: &Value) -> bool {
    command["outcome"].is_object()
}

/// A command resource for people.
pub(crate) fn describe(command: &Value) -> String {
    let outcome = &command["outcome"];
    let error = &outcome["error"];
    pairs(vec![
        ("id", plain(&command["id"])),
        ("type", plain(&command["type"])),
        ("stream", plain(&command["stream"])),
        ("status", plain(&command["status"])),
        ("accepted", plain(&command["accepted_at"])),
        ("not before", plain(&command["not_before"])),
        ("not after", plain(&command["not_after"])),
        ("completed", plain(&command["completed_at"])),
        ("attempts", plain(&command["attempts"])),
        ("positions", plain(&outcome["positions"])),
        ("version", plain(&outcome["version"])),
        ("reply", plain(&outcome["reply"])),
        ("error", plain(&error["code"])),
        ("message", plain(&error["message"])),
    ])
}
