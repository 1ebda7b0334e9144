//! `adjutant`: the operator's command line, on the HTTP API. Tables for people, `--json` for programs.
//!
//! Exit codes: 0 done; 1 the answer is no (refused, rejected, not there); 2 wrong usage or input;
//! 3 the service cannot be reached or failed; 4 not finished in time.

mod api;
mod cancel;
mod events;
mod export;
mod failure;
mod jobs;
mod letters;
mod lines;
mod members;
mod output;
mod projections;
mod recurring;
mod send;
mod send_file;
mod status;
mod streams;
mod tally;
mod views;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::{api::Api, failure::Failure, output::Output};

/// Sends commands to an Adjutant service and shows what became of them.
#[derive(Parser)]
#[command(name = "adjutant", version, after_help = EXIT_CODES)]
struct Arguments {
    /// Where the service's API is.
    #[arg(long, global = true, env = "ADJUTANT_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The bearer token, if the service asks for one.
    #[arg(long, global = true, env = "ADJUTANT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    task: Task,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the answer is no (refused, rejected, not there); \
2 wrong usage or input; 3 the service cannot be reached or failed; 4 not finished in time.";

#[derive(Subcommand)]
enum Task {
    /// Send one command, or a file of them (NDJSON).
    Send(send::Arguments),
    /// Show commands: those with these ids, or the newest ones.
    Status(status::Arguments),
    /// Show each change of a command as it comes, until it has ended.
    Watch(watch::Arguments),
    /// Cancel commands that have not ended: those with these ids, or all that match.
    Cancel(cancel::Arguments),
    /// Show the live processes, their roles and partitions.
    Members,
    /// Show how far each projection is, and the keys that are parked in it.
    Projections(projections::Arguments),
    /// Read views.
    #[command(subcommand)]
    Views(views::Task),
    /// Read streams.
    #[command(subcommand)]
    Streams(streams::Task),
    /// Look at dead letters, retry or discard them.
    #[command(subcommand)]
    DeadLetters(letters::Task),
    /// Commands that are sent again and again: set, look, pause, remove.
    #[command(subcommand)]
    Recurring(recurring::Task),
    /// Jobs that retry or discard all dead letters, or cancel all commands, that match.
    #[command(subcommand)]
    Jobs(jobs::Task),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    let done = run(arguments, &output).await;
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let api = Api::new(&arguments.url, arguments.token.as_deref())?;
    match arguments.task {
        Task::Send(send) => send::run(&api, output, send).await,
        Task::Status(status) => status::run(&api, output, status).await,
        Task::Watch(watch) => watch::run(&api, output, watch).await,
        Task::Cancel(cancel) => cancel::run(&api, output, cancel).await,
        Task::Members => members::run(&api, output).await,
        Task::Projections(arguments) => projections::run(&api, output, arguments).await,
        Task::Views(task) => views::run(&api, output, task).await,
        Task::Streams(task) => streams::run(&api, output, task).await,
        Task::DeadLetters(task) => letters::run(&api, output, task).await,
        Task::Recurring(task) => recurring::run(&api, output, task).await,
        Task::Jobs(task) => jobs::run(&api, output, task).await,
    }
}
