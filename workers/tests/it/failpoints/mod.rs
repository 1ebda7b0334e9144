//! A process aborts between any two steps of accepting, executing, answering and taking over, at
//! every place that the binary itself lists. Afterwards whatever was answered has ended once, and
//! whatever was not answered happened as a whole or not at all.

mod case;
mod found;
mod ways;

use comfy_table::{Table, presets};
use futures_util::{StreamExt as _, stream};

use crate::support::process::{program, run};
use case::Case;
use ways::Way;

/// How many cases run at a time, each with up to three processes.
const AT_A_TIME: usize = 3;

/// The names that `bank failpoints` prints.
async fn listed() -> Vec<String> {
    let mut command = program();
    command.arg("failpoints");
    let output = run(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    printed.lines().map(name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_step_a_process_dies_at_what_was_answered_ends_exactly_once() {
    let points = listed().await;
    assert!(points.len() >= 10, "{points:?}");
    let mut cases = Vec::new();
    for point in &points {
        let ways = Way::all_past(point);
        assert!(!ways.is_empty(), "nobody comes past {point}: say how commands do");
        cases.extend(ways.into_iter().map(|way| Case { point: point.clone(), way }));
    }
    let count = cases.len();
    let rows: Vec<_> =
        stream::iter(cases).map(Case::run).buffered(AT_A_TIME).collect::<Vec<_>>().await;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["failpoint", "commands", "answered", "not answered", "found afterwards"]);
    for row in rows {
        table.add_row(row);
    }
    println!("{table}\n{} failpoints, passed in {count} ways", points.len());
}
