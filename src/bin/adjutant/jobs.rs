//! `jobs`, and the jobs that `dead-letters retry --all`, `discard --all` and `cancel` make.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, note, pairs, plain},
};

/// How often a job that is followed is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many answers may fail in a row before following a job is given up.
const MOST_FAILURES: u32 = 60;

#[derive(Subcommand)]
pub(crate) enum Task {
    /// List jobs, newest first.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show a job and how far it is.
    Show {
        /// The job.
        id: Uuid,
    },
    /// Follow a job to its end.
    Watch {
        /// The job.
        id: Uuid,
    },
    /// Call a job off. What it has done stays done.
    Cancel {
        /// The job.
        id: Uuid,
    },
}

pub(crate) async fn run(api: &Api, output: &Output, task: Task) -> Result<(), Failure> {
    match task {
        Task::List { limit } => {
            let jobs = api.list(&["jobs"], &[], limit).await?;
            let header = ["ID", "ACTION", "STATE", "TOTAL", "DONE", "FAILED", "WHO", "CREATED"];
            output.rows(&header, &jobs, |job| {
                let shown =
                    ["id", "action", "state", "total", "done", "failed", "who", "created_at"];
                shown.iter().map(|name| plain(&job[*name])).collect()
            });
            Ok(())
        }
        Task::Show { id } => {
            let job = api.get(&["jobs", &id.to_string()], &[]).await?;
            output.value(&job, describe);
            Ok(())
        }
        Task::Watch { id } => follow(api, output, &id.to_string()).await,
        Task::Cancel { id } => {
            let request = api.request(Method::DELETE, &["jobs", &id.to_string()])?;
            let job = api.json(request).await?;
            output.value(&job, describe);
            Ok(())
        }
    }
}

/// What is asked for of all that match.
pub(crate) struct Asked {
    pub(crate) action: &'static str,
    /// Of what, in the API's paths.
    pub(crate) what: &'static str,
    /// The same, for people.
    pub(crate) meant: &'static str,
    pub(crate) yes: bool,
    pub(crate) wait: bool,
}

/// Makes a job, and follows it to its end.
pub(crate) async fn make(
    api: &Api,
    output: &Output,
    asked: Asked,
    body: Value,
) -> Result<(), Failure> {
    if !asked.yes {
        confirm(&asked, &body)?;
    }
    let request = api.request(Method::POST, &[asked.what, asked.action])?;
    let job = api.json(request.json(&body)).await?;
    let id = plain(&job["id"]);
    if !asked.wait {
        output.value(&job, describe);
        return Ok(());
    }
    if !output.is_json() {
        note(&format!("job {id}: {} {}", plain(&job["total"]), asked.meant));
    }
    follow(api, output, &id).await
}

/// Asks whether it is meant, where somebody can answer.
fn confirm(asked: &Asked, body: &Value) -> Result<(), Failure> {
    let Asked { action, meant, .. } = asked;
    if !std::io::stdin().is_terminal() {
        let text = format!("{action} all that match {body}? Say --yes: nobody can be asked here");
        return Err(Failure::Usage(text));
    }
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "{action} all {meant} that match {body}? [y/N] ");
    asked.and_then(|()| stderr.flush()).map_err(Failure::io("standard error"))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::io("standard input"))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::No("nothing was done".into())),
    }
}

/// Shows a job's progress until it ends; its end is the exit code.
async fn follow(api: &Api, output: &Output, id: &str) -> Result<(), Failure> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}");
    let bar =
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut failures = 0;
    let job = loop {
        match api.get(&["jobs", id], &[]).await {
            Ok(job) if job["state"] == "running" => {
                failures = 0;
                bar.set_length(job["total"].as_u64().unwrap_or_default());
                bar.set_position(dealt_with(&job));
                bar.set_message(stage(&job));
            }
            Ok(job) => break job,
            // The service may be restarted meanwhile; the job goes on without us.
            Err(
                failure @ (Failure::Unreachable { .. } | Failure::Answer { status: 500.., .. }),
            ) => {
                failures += 1;
                if failures > MOST_FAILURES {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    output.value(&job, describe);
    match (job["state"].as_str(), job["failed"].as_u64()) {
        (Some("done"), Some(0)) => Ok(()),
        (Some("done"), Some(ended)) if job["action"] == "cancel" => {
            if !output.is_json() {
                note(&format!("{ended} commands had ended before they could be cancelled"));
            }
            Ok(())
        }
        (Some("done"), failed) => {
            let failed = failed.unwrap_or_default();
            Err(Failure::No(format!("{failed} dead letters could not be acted on")))
        }
        (state, _) => Err(Failure::No(format!("the job was {}", state.unwrap_or("lost")))),
    }
}

fn dealt_with(job: &Value) -> u64 {
    let number = |name: &str| job[name].as_u64().unwrap_or_default();
    number("done") + number("failed")
}

fn stage(job: &Value) -> String {
    let canary = &job["canary"];
    if canary["sent"].is_u64() && canary["died_again"].is_null() {
        return format!("waiting for the outcomes of the first {}", plain(&canary["sent"]));
    }
    match job["failed"].as_u64() {
        Some(failed @ 1..) => format!("failed {failed}"),
        _ => String::new(),
    }
}

/// A job for people.
fn describe(job: &Value) -> String {
    pairs(vec![
        ("job", plain(&job["id"])),
        ("action", plain(&job["action"])),
        ("filter", job["filter"].to_string()),
        ("state", plain(&job["state"])),
        ("note", plain(&job["note"])),
        ("total", plain(&job["total"])),
        ("done", plain(&job["done"])),
        ("failed", plain(&job["failed"])),
        ("died again", plain(&job["canary"]["died_again"])),
        ("who", plain(&job["who"])),
        ("reason", plain(&job["reason"])),
        ("created", plain(&job["created_at"])),
        ("finished", plain(&job["finished_at"])),
    ])
}
