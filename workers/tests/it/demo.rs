//! `bank demo` on real services, and `bank verify` after it.

use std::{path::PathBuf, process::Output};

use serde_json::Value;

use crate::support::{
    process::{program, run},
    rabbit::amqp_url,
    site::Site,
};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Demo {
    site: Site,
    answers: PathBuf,
}

impl Demo {
    async fn new() -> Self {
        let file = format!("answers-{}.ndjson", uuid::Uuid::now_v7());
        Self { site: Site::new().await, answers: std::env::temp_dir().join(file) }
    }

    /// Runs the demo with these arguments; answers its last line.
    async fn run(&self, args: &[&str]) -> Value {
        let mut command = program();
        command
            .args(["demo", "--json", "--database-url", &self.site.database.url()])
            .args(["--amqp-url", &amqp_url()])
            .args(["--set", &format!("broker.prefix={}", self.site.road.prefix)])
            .args(["--set", &format!("database.partitions={}", self.site.partitions.get())])
            .arg("--answers-out")
            .arg(&self.answers)
            .args(args);
        let output = run(command).await;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{words}", stdout(&output));
        serde_json::from_str(stdout(&output).lines().last().unwrap()).expect("JSON")
    }

    /// Audits the database with the client's record; answers the exit code and the verdicts.
    async fn verify(&self) -> (i32, Value) {
        let (code, verdict) = self.site.verify(Some(&self.answers)).await;
        (code, verdict["checks"].clone())
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
    let report = demo.run(&["--commands", "2000", "--accounts", "50"]).await;
    println!("{report}");
    assert!(all_true(&report["checks"]), "{report}");
    assert_eq!(report["commands"], 2000);
    let rejected = report["must_be_rejected"].as_u64().unwrap();
    assert_eq!(report["events"], 2000 - rejected, "only those that must be are rejected");
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
    let (road, log) =
        (report["from_broker"].as_u64().unwrap(), report["from_log"].as_u64().unwrap());
    let entries = road + log;
    assert!(road * 100 >= entries * 95, "{road} entries came by the road, {log} from the log");
    assert_eq!(entries, 2000 + 2 * (2000 - rejected), "every entry is counted where it came from");

    let recorded = std::fs::read_to_string(&demo.answers).unwrap();
    assert_eq!(recorded.lines().count(), 2000);
    let (code, checks) = demo.verify().await;
    assert_eq!((code, all_true(&checks)), (0, true), "{checks}");
    demo.site.database.run("DELETE FROM adjutant.views WHERE view = 'balances'").await;
    let (code, checks) = demo.verify().await;
    assert_eq!((code, &checks["views_equal_fold"]), (1, &Value::Bool(false)), "{checks}");
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
