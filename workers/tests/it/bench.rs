//! `bank bench` measures what it says and leaves a sound database.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    process::{program, run_within},
    rabbit::amqp_url,
    site::Site,
};

/// Every scenario for a second. Figures are printed, never judged: only that they were taken.
#[tokio::test]
async fn every_scenario_gives_its_figures_and_leaves_a_sound_database() {
    let site = Site::new().await;
    let mut command = program();
    command
        .args([
            "bench",
            "--json",
            "--seconds",
            "1",
            "--clients",
            "50",
            "--database-url",
            &site.database.url(),
        ])
        .args(["--amqp-url", &amqp_url()])
        .args(["--set", &format!("broker.prefix={}", site.road.prefix)])
        .args(["--set", &format!("database.partitions={}", site.partitions.get())]);
    // All scenarios in turn, each with a database to fill and to audit, beside other tests.
    let output = run_within(command, Duration::from_secs(270)).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}{words}");
    let figures: Value = serde_json::from_str(printed.lines().last().unwrap()).expect("JSON");
    for (scenario, figure) in [
        ("intake", "accepted_per_second"),
        ("intake-batch", "accepted_per_second"),
        ("sustained", "visible_per_second"),
        ("sustained", "cpu_seconds_per_1000_postgresql"),
        ("sustained", "mean_batch_projected"),
        ("latency", "submit_to_visible_ms_p99"),
        ("hot-stream", "visible_per_second"),
        ("two-workers", "completed_per_second_with_two"),
        ("pinned-snapshot", "visible_per_second_pinned"),
        ("dead-letters", "groups_ms_max"),
        ("dead-letters", "retried_per_second"),
        ("retrying", "healthy_per_second_normal"),
        ("retrying", "healthy_per_second_while_retrying"),
        ("retrying", "healthy_percent"),
        ("retrying", "drills_percent"),
        ("retrying", "failed_attempts_per_second"),
        ("watchers", "events_end_to_heard_ms_p50"),
        ("watchers", "long_poll_end_to_heard_ms_p50"),
    ] {
        let measured = figures["scenarios"][scenario][figure].as_f64();
        assert!(measured.is_some_and(|value| value > 0.0), "{scenario} {figure}: {figures}");
    }
    for check in
        ["every_command_one_outcome", "views_equal_fold", "no_holes", "rejected_changed_nothing"]
    {
        assert_eq!(figures["checks"][check], true, "{check}: {figures}");
    }
    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
}
