//! `streams show`: the events of a stream.

use clap::Subcommand;

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, plain},
};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// A stream's events, in order.
    Show {
        /// The stream: `type/id`.
        stream: String,
        /// Only events after this version.
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// At most this many.
        #[arg(long, default_value_t = 500)]
        limit: usize,
    },
}

pub(crate) async fn run(api: &Api, output: &Output, task: Task) -> Result<(), Failure> {
    let Task::Show { stream, after, limit } = task;
    let (kind, id) = stream
        .split_once('/')
        .ok_or_else(|| Failure::Usage(format!("`{stream}` is no stream: write `type/id`")))?;
    let events = api.list_after(&["streams", kind, id], after, limit).await?;
    output.rows(&["VERSION", "POSITION", "TYPE", "RECORDED", "DATA"], &events, |event| {
        let mut row: Vec<_> = ["version", "position", "type", "recorded_at"]
            .iter()
            .map(|name| plain(&event[*name]))
            .collect();
        row.push(event["data"].to_string());
        row
    });
    Ok(())
}
