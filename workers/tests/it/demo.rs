//! `bank demo` against real services.

use serde_json::{Value, json};

use crate::support::{
    process::{program, run},
    rabbit::amqp_url,
    site::Site,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_ends_with_one_line_of_json_in_which_every_check_is_true() {
    let site = Site::new().await;
    let mut command = program();
    command
        .args(["demo", "--json", "--commands", "2000", "--accounts", "100", "--seed", "7"])
        .args(["--database-url", &site.database.url(), "--amqp-url", &amqp_url()])
        .args(["--set", &format!("broker.prefix={}", site.road.prefix)])
        .args(["--set", &format!("database.partitions={}", site.partitions.get())]);
    let output = run(command).await;
    let printed = String::from_utf8(output.stdout).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}{words}");
    let last = printed.lines().last().unwrap();
    let report: Value = serde_json::from_str(last).expect(last);
    println!("{last}");

    let checks =
        ["every_command_one_outcome", "views_equal_fold", "no_holes", "rejected_changed_nothing"];
    for check in checks {
        assert_eq!(report["checks"][check], true, "{check}");
    }
    assert_eq!(report["commands"], 2000);
    for figure in ["accepted_per_second", "completed_per_second", "visible_per_second"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}");
    }
    for latency in ["submit_to_outcome_ms", "submit_to_visible_ms"] {
        let of = |percentile: &str| report[latency][percentile].as_f64().unwrap();
        assert!(0.0 < of("p50") && of("p50") <= of("p95") && of("p95") <= of("p99"), "{latency}");
    }
    assert!(report["rss_mb"].as_f64().unwrap() > 0.0);
    assert!(report["cpu_seconds"].as_f64().unwrap() > 0.0);
    let (road, log) =
        (report["from_broker"].as_f64().unwrap(), report["from_log"].as_f64().unwrap());
    assert!(road / (road + log) >= 0.95, "{road} by the road, {log} from the log");

    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
    assert_eq!(verdict["counts"]["commands"], json!(2000 + 200));
}
