//! The binary `bank`: see `bank --help`.

use std::process::ExitCode;

use bank::cli::Cli;
use clap::Parser;

/// Fewer cycles and steadier memory than the system's under many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    use_small_pages();
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    bank::commands::run(Cli::parse().command).await
}

/// The allocator asks for transparent huge pages, and a page of 2 MiB stays while anything on it is
/// used: a service whose load comes and goes would keep half as much again as it needs. Where the
/// kernel refuses, it does.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}
