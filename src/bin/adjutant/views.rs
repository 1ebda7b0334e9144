//! `views get` and `views list`.

use clap::Subcommand;
use serde_json::Value;

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, pairs, plain},
};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// One document.
    Get {
        /// The view.
        view: String,
        /// The document's key.
        key: String,
        /// Wait until the view has applied this position (`partition:offset` of an outcome).
        #[arg(long)]
        at: Option<String>,
        /// For how many seconds (at most 60).
        #[arg(long, requires = "at")]
        wait: Option<u64>,
    },
    /// Documents, in key order.
    List {
        /// The view.
        view: String,
        /// Only keys that start with it.
        #[arg(long)]
        prefix: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

pub(crate) async fn run(api: &Api, output: &Output, task: Task) -> Result<(), Failure> {
    match task {
        Task::Get { view, key, at, wait } => {
            let mut query = Vec::new();
            query.extend(at.map(|at| ("at", at)));
            query.extend(wait.map(|wait| ("wait", wait.to_string())));
            let document = api.get(&["views", &view, &key], &query).await?;
            output.value(&document, describe);
        }
        Task::List { view, prefix, limit } => {
            let query: Vec<_> = prefix.map(|prefix| ("prefix", prefix)).into_iter().collect();
            let documents = api.list(&["views", &view], &query, limit).await?;
            output.rows(&["KEY", "VERSION", "VALUE"], &documents, |document| {
                vec![
                    plain(&document["key"]),
                    plain(&document["version"]),
                    document["value"].to_string(),
                ]
            });
        }
    }
    Ok(())
}

fn describe(document: &Value) -> String {
    let value = serde_json::to_string_pretty(&document["value"]).unwrap_or_default();
    pairs(vec![
        ("key", plain(&document["key"])),
        ("version", plain(&document["version"])),
        ("as of", plain(&document["as_of"])),
        ("value", value),
    ])
}
