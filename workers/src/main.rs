//! The binary `bank`: see `bank --help`.

use std::process::ExitCode;

use bank::cli::Cli;
use clap::Parser;

/// Fewer cycles and steadier memory than the system's under many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    bank::commands::run(Cli::parse().command).await
}
