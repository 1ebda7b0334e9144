//! A trace id crosses HTTP, outbox, AMQP, worker and projection.

use crate::support::{api::Api, process::Bank, site::Site};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_id_is_in_the_logs_of_every_process_and_in_the_event() {
    let site = Site::new().await;
    let level = "info,lapin=off,adjutant=debug";
    let mut processes = Vec::new();
    for role in ["command-worker", "projection-worker", "relay"] {
        processes.push(site.launch(role).set("log.level", level).start().await);
    }
    let mut ingress = site.launch("ingress").set("log.level", level).start().await;
    let api = Api(ingress.api());

    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("traceparent", traceparent.as_str()), ("Prefer", "wait=30")];
    let answer = api.post(&headers, "open", "acc-1", serde_json::json!({ "owner": "Ada" })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let command = answer.json();

    let [mut worker, mut projection, _relay] = <[Bank; 3]>::try_from(processes).ok().unwrap();
    let traced = async |process: &mut Bank, message: &str| {
        let matches = |event: &serde_json::Value| {
            (event["trace_id"] == TRACE && event["message"] == message).then(|| event.clone())
        };
        process.logs(matches).await
    };
    assert_eq!(traced(&mut ingress, "command accepted").await["command"], command["id"]);
    assert_eq!(traced(&mut worker, "command executed").await["command"], command["id"]);
    let applied = traced(&mut projection, "event applied").await;
    assert_eq!(applied["position"], command["outcome"]["positions"][0]);

    let events = api.get("/v1/streams/account/acc-1").await.json();
    let metadata = &events["items"][0]["metadata"];
    assert_eq!(metadata["traceparent"], traceparent, "{events}");
}
