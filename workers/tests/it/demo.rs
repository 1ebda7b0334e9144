//! `bank demo` on real services, and `bank verify` after it.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    binary::{bank, stderr, stdout},
    broker::{self, Broker},
    support::database::Database,
};

fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().last().expect("some output")).expect("JSON")
}

struct Demo {
    database: Database,
    broker: Broker,
    answers: PathBuf,
}

impl Demo {
    async fn new() -> Self {
        let file = format!("answers-{}.ndjson", uuid::Uuid::now_v7());
        let (database, broker) = (Database::empty().await, Broker::new());
        Self { database, broker, answers: std::env::temp_dir().join(file) }
    }

    /// Runs the demo with these arguments; answers its last line.
    async fn run(&self, args: &[&str]) -> Value {
        let mut command = bank();
        command
            .args(["demo", "--json", "--database-url", &self.database.url()])
            .args(["--amqp-url", &broker::url()])
            .args(["--set", &format!("broker.prefix={}", self.broker.prefix)])
            .arg("--answers-out")
            .arg(&self.answers)
            .args(args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
        last_line(&stdout(&output))
    }

    /// Audits the database with the client's record; answers the exit code and the verdicts.
    async fn verify(&self) -> (Option<i32>, Value) {
        let mut command = bank();
        command
            .args(["verify", "--json", "--database-url", &self.database.url(), "--answers"])
            .arg(&self.answers);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        (output.status.code(), last_line(&stdout(&output))["checks"].clone())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.answers);
    }
}

fn all_true(checks: &Value) -> bool {
    let names =
        ["every_command_one_outcome", "views_equal_fold", "no_holes", "rejected_changed_nothing"];
    names.iter().all(|name| checks[name] == true)
}

#[tokio::test]
async fn a_demo_leaves_a_database_that_passes_every_check() {
    let demo = Demo::new().await;
    let report = demo.run(&["--commands", "500", "--accounts", "50"]).await;
    assert!(all_true(&report["checks"]), "{report}");
    assert_eq!(report["commands"], 500);
    let rejected = report["must_be_rejected"].as_u64().unwrap();
    assert_eq!(report["events"], 500 - rejected, "only those that must be are rejected");
    for figure in [
        "accepted_per_second",
        "completed_per_second",
        "visible_per_second",
        "rss_mb",
        "cpu_seconds",
    ] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    for latency in ["submit_to_outcome_ms", "submit_to_visible_ms"] {
        for percentile in ["p50", "p95", "p99"] {
            assert!(report[latency][percentile].as_f64().unwrap() > 0.0, "{latency}: {report}");
        }
    }
    let entries = report["from_broker"].as_u64().unwrap() + report["from_log"].as_u64().unwrap();
    assert_eq!(entries, 500 + 2 * (500 - rejected), "every entry is counted where it came from");

    let recorded = std::fs::read_to_string(&demo.answers).unwrap();
    assert_eq!(recorded.lines().count(), 500);
    let (code, checks) = demo.verify().await;
    assert_eq!((code, all_true(&checks)), (Some(0), true), "{checks}");
    demo.database.run("DELETE FROM adjutant.views WHERE view = 'balances'").await;
    let (code, checks) = demo.verify().await;
    assert_eq!((code, &checks["views_equal_fold"]), (Some(1), &Value::Bool(false)), "{checks}");
}

#[tokio::test]
async fn batches_and_a_rate_lead_to_the_same_end() {
    let demo = Demo::new().await;
    let batches = demo.run(&["--commands", "600", "--accounts", "20", "--batch", "50"]).await;
    assert!(all_true(&batches["checks"]), "{batches}");
    assert_eq!(batches["commands"], 600);
    let paced = demo.run(&["--commands", "100", "--accounts", "20", "--rate", "50"]).await;
    assert!(all_true(&paced["checks"]), "{paced}");
    let rate = paced["accepted_per_second"].as_f64().unwrap();
    assert!((5.0..52.0).contains(&rate), "100 commands at 50 a second take 2 s: {rate}");
}
