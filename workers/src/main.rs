//! The binary `bank`: see `bank --help`.

use std::process::ExitCode;

use bank::cli::Cli;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    bank::commands::run(Cli::parse().command).await
}
