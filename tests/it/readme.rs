//! The README's service is the example, and it works.

use std::time::Duration;

use adjutant::{
    ingress::IngressSettings,
    service::{Backing, Server, ServerSettings, ServicesSettings},
};
use serde_json::{Value, json};

use crate::support::{database::Database, rabbit};

#[path = "../../examples/minimal.rs"]
#[allow(dead_code, clippy::expect_used)]
mod minimal;

#[test]
fn the_readme_shows_the_example_word_for_word() {
    let readme = include_str!("../../README.md");
    let example = include_str!("../../examples/minimal.rs");
    assert!(readme.contains(&format!("```rust,no_run\n{}\n```", example.trim_end())));
    let lines = example.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 70, "a complete service has {lines} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_serves() {
    let database = Database::empty().await;
    let mut road = rabbit::Road::new();
    let service = minimal::service().expect("a valid service");
    road.groups = adjutant::service::groups_of(&service);
    road.partitions = adjutant::message::PartitionCount::DEFAULT;
    let services =
        ServicesSettings { broker: road.settings(), ..ServicesSettings::new(&database.url, "") };
    let settings = ServerSettings {
        ingress: IngressSettings { listen: ([127, 0, 0, 1], 0).into(), ..Default::default() },
        admin_listen: None,
        ..ServerSettings::on(Backing::Services(Box::new(services)))
    };
    let server = Server::start(service, settings).await.expect("start");
    let api = format!("http://{}", server.api().expect("an API"));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let sent = client
        .post(format!("{api}/v1/commands"))
        .header("prefer", "wait=30")
        .json(&json!({ "type": "counter.add", "stream": "counter/a", "payload": { "amount": 5 } }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(sent.status(), 200);
    let sent: Value = sent.json().await.expect("JSON");
    assert_eq!((&sent["status"], &sent["outcome"]["reply"]), (&json!("succeeded"), &json!(5)));
    let at = sent["outcome"]["positions"][0].as_str().expect("a position");
    let url = format!("{api}/v1/views/totals/a?at={at}&wait=30");
    let view: Value = client.get(url).send().await.expect("a view").json().await.expect("JSON");
    assert_eq!((&view["value"], &view["version"]), (&json!(5), &json!(1)));
    server.stop(Duration::from_secs(10)).await;
}
