//! Whoever names a `callback_url` is told how the command ended, whatever fails on the way; and
//! nobody else is reached.

mod failing;
mod guarding;

use std::time::Duration;

use adjutant::{
    callback::{self, CallbackParts, CallbackSettings, HostBreaker},
    execute::RetryPolicy,
    ingress::{IngressSettings, http::command_json},
    service::Process,
    store::{Intake as _, NewCommand, Role},
    webhook::{TargetRules, WebhookLimits},
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::support::{
    commands::{add, flaky},
    domain, eventually,
    http::{Answer as Answered, Api, id_of},
    process::{ALL, Site},
    receiver::{Answer, Receiver, SECRET},
};

const MILLI: Duration = Duration::from_millis(1);

/// Tries within milliseconds, wherever it is told to; two failures are enough.
fn quick() -> CallbackSettings {
    let retry = RetryPolicy {
        initial: 5 * MILLI,
        multiplier: 1.0,
        max_interval: 5 * MILLI,
        jitter: 0.0,
        max_elapsed: None,
    };
    CallbackSettings {
        secrets: vec![SECRET.parse().expect("a secret")],
        rules: TargetRules { allow_http: true, allow_private: true },
        retry,
        attempts: 2,
        limits: WebhookLimits { total: Duration::from_secs(120), ..WebhookLimits::default() },
        breaker: HostBreaker { failures: 1_000, ..CallbackSettings::default().breaker },
        poll: 20 * MILLI,
        ..CallbackSettings::default()
    }
}

/// Delivers, as a process with the role relay does; stops at once when dropped, as in a crash.
struct Delivering {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

async fn deliver(site: &Site, process: &Process, settings: CallbackSettings) -> Delivering {
    let stop = CancellationToken::new();
    let parts = CallbackParts {
        store: site.database.store().await,
        signals: process.signals().clone(),
        partitions: process.relay_partitions(),
        write: command_json,
        settings,
        stop: stop.clone(),
    };
    let task = callback::start(parts).expect("a client").expect("there is a secret");
    Delivering { stop, task }
}

/// A process with all roles, its API, and what delivers.
struct Service {
    site: Site,
    process: Process,
    api: Api,
    _delivering: Delivering,
}

impl Service {
    async fn start(settings: CallbackSettings) -> Self {
        let site = Site::new().await;
        let process = site.start(&ALL).await;
        let api = api(&site, &process, &settings);
        let _delivering = deliver(&site, &process, settings).await;
        Self { site, process, api, _delivering }
    }

    async fn get(&self, command: &Value) -> Answered {
        self.api.get(&format!("/v1/commands/{}", command["id"].as_str().expect("an id"))).await
    }

    async fn letters(&self) -> Vec<Value> {
        let answer = self.api.get("/v1/dead-letters?kind=callback&state=any").await;
        answer.json()["items"].as_array().expect("items").clone()
    }

    /// The one dead letter of a callback that comes to be.
    async fn letter(&self) -> Value {
        eventually("a dead letter", async || self.letters().await.pop()).await
    }

    async fn post(&self, target: &str, body: &Value) -> Answered {
        let headers = [("Content-Type", "application/json")];
        let body = body.to_string();
        self.api.client().await.request("POST", target, &headers, body.as_bytes()).await
    }

    async fn until_nothing_is_owed(&self) {
        eventually("nothing is owed", async || (owed(&self.site).await == 0).then_some(())).await;
    }
}

fn api(site: &Site, process: &Process, settings: &CallbackSettings) -> Api {
    let ingress =
        IngressSettings { callbacks: settings.target_rules(), ..IngressSettings::default() };
    Api::start(domain::service(), site.store.clone(), process.signals(), ingress)
}

/// How many callbacks are not delivered.
async fn owed(site: &Site) -> i64 {
    let pool = site.database.pool().await;
    let count = sqlx::query_scalar("SELECT count(*) FROM adjutant.callbacks");
    count.fetch_one(&pool).await.expect("count")
}

/// As if the time had come: what waits is due, and no lease holds.
async fn hurry(site: &Site) {
    let pool = site.database.pool().await;
    let hurry = "UPDATE adjutant.callbacks SET due_at = clock_timestamp()";
    sqlx::query(hurry).execute(&pool).await.expect("hurry");
}

fn calling(command: NewCommand, url: &str) -> NewCommand {
    NewCommand { callback_url: Some(url.to_owned()), ..command }
}

fn submission(url: &str, payload: Value) -> Value {
    json!({ "type": "counter.add", "stream": "counter/a", "payload": payload, "callback_url": url })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_told_signed_and_as_it_can_be_read_however_it_ended() {
    let service = Service::start(quick()).await;
    let receiver = Receiver::start([]).await;
    let url = receiver.url();
    let mut flaky = json!({
        "type": "counter.flaky", "stream": "counter/b", "callback_url": url,
        "payload": { "key": uuid::Uuid::new_v4(), "fails": 9, "how": "retryable", "amount": 1 },
    });
    let mut commands = vec![
        submission(&url, json!({ "amount": 5 })),
        submission(&url, json!({ "amount": domain::LIMIT })),
        flaky.clone(),
    ];
    flaky["payload"]["how"] = "fatal".into();
    flaky["not_after"] = "2020-01-01T00:00:00Z".into();
    commands.push(flaky);
    let mut statuses = Vec::new();
    for (i, command) in commands.iter().enumerate() {
        let answer = service.api.submit(command).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let told = receiver.until(i + 1).await.remove(i);
        told.assert_signed();
        assert_eq!(told.header("content-type"), "application/json");
        let read = service.get(&answer.json()).await;
        assert_eq!(told.body, read.body.as_bytes(), "{} and {}", told.json(), read.body);
        statuses.push(told.json()["status"].as_str().expect("a status").to_owned());
    }
    assert_eq!(statuses, ["succeeded", "rejected", "dead", "cancelled"]);
    let dead = receiver.received()[2].json();
    assert_eq!(dead["failures"].as_array().expect("failures").len(), 4);
    service.until_nothing_is_owed().await;
    let silent =
        json!({ "type": "counter.add", "stream": "counter/a", "payload": { "amount": 1 } });
    let ids = [id_of(&service.api.submit(&silent).await)];
    service.site.until_ended(&ids).await;
    assert_eq!((receiver.received().len(), owed(&service.site).await), (4, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_of_a_batch_may_have_its_own() {
    let service = Service::start(quick()).await;
    let (one, two) = (Receiver::start([]).await, Receiver::start([]).await);
    let lines = [
        submission(&one.url(), json!({ "amount": 1 })),
        submission("ftp://hooks.example/", json!({ "amount": 1 })),
        submission(&two.url(), json!({ "amount": 2 })),
    ];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    let mut client = service.api.client().await;
    let answer = client.request("POST", "/v1/commands/batch", &headers, body.as_bytes()).await;
    let answers: Vec<Value> =
        answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let codes: Vec<_> = answers.iter().map(|line| line["code"].as_i64().expect("a code")).collect();
    assert_eq!(codes, [202, 422, 202]);
    assert_eq!(answers[1]["problem"]["errors"][0]["rule"], "scheme");
    assert_eq!(one.until(1).await[0].json()["id"], answers[0]["id"]);
    assert_eq!(two.until(1).await[0].json()["id"], answers[2]["id"]);
}

/// The outcome is there and nobody has sent anything: whoever comes next does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_survives_a_crash_before_it_is_sent() {
    let site = Site::new().await;
    let receiver = Receiver::start([]).await;
    let process = site.start(&ALL).await;
    let commands: Vec<_> =
        (0..20).map(|i| calling(add(&format!("c{i}"), 1), &receiver.url())).collect();
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    site.store.accept(commands).await.expect("accept");
    site.until_ended(&ids).await;
    drop(process);
    assert_eq!((owed(&site).await, receiver.received().len()), (20, 0));

    let process = site.start(&[Role::Relay]).await;
    let _delivering = deliver(&site, &process, quick()).await;
    let mut told: Vec<_> =
        receiver.until(20).await.iter().map(|it| it.json()["id"].clone()).collect();
    told.sort_by_key(ToString::to_string);
    let mut expected: Vec<_> = ids.iter().map(|id| json!(id)).collect();
    expected.sort_by_key(ToString::to_string);
    assert_eq!(told, expected);
    eventually("all is delivered", async || (owed(&site).await == 0).then_some(())).await;
    assert_eq!(receiver.received().len(), 20, "once each");
}

/// A crash in the middle of a try: the next one sends the same under the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_the_hand_of_a_process_that_vanished_is_sent_again_under_its_id() {
    let site = Site::new().await;
    let receiver = Receiver::start([Answer::Hang]).await;
    let process = site.start(&ALL).await;
    let dying = deliver(&site, &process, quick()).await;
    let command = calling(add("a", 1), &receiver.url());
    site.store.accept(vec![command]).await.expect("accept");
    receiver.until(1).await;
    drop(dying);
    let _next = deliver(&site, &process, quick()).await;
    hurry(&site).await;
    let received = receiver.until(2).await;
    assert_eq!(received[0].id(), received[1].id());
    assert_eq!(received[0].body, received[1].body);
    eventually("it is delivered", async || (owed(&site).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_relays_send_each_callback_once() {
    let site = Site::new().await;
    let receiver = Receiver::start([]).await;
    let worker = site.start(&ALL).await;
    let mut relays = Vec::new();
    for _ in 0..3 {
        let process = site.start(&[Role::Relay]).await;
        let delivering = deliver(&site, &process, quick()).await;
        relays.push((process, delivering));
    }
    // One that serves what others serve, too.
    let _greedy = deliver(&site, &worker, quick()).await;
    let commands: Vec<_> =
        (0..200).map(|i| calling(add(&format!("c{}", i % 50), 1), &receiver.url())).collect();
    site.store.accept(commands).await.expect("accept");
    eventually("all is delivered", async || {
        (receiver.received().len() >= 200 && owed(&site).await == 0).then_some(())
    })
    .await;
    let mut ids: Vec<_> = receiver.received().iter().map(|it| it.id().to_owned()).collect();
    assert_eq!(ids.len(), 200);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 200, "no id twice");
    for (process, delivering) in relays {
        delivering.stop.cancel();
        delivering.task.await.expect("it ends");
        process.stop(Duration::from_secs(10)).await;
    }
}

/// The end `dead` of a command that was retried since is told as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_end_of_a_command_that_died_and_was_retried_is_told_as_it_was() {
    let patient = RetryPolicy { initial: Duration::from_secs(600), ..quick().retry };
    let service = Service::start(CallbackSettings { retry: patient, ..quick() }).await;
    let receiver = Receiver::start([Answer::Status(500)]).await;
    let key = uuid::Uuid::new_v4().to_string();
    let command = calling(flaky("flaky", "a", &key, 1, "fatal"), &receiver.url());
    let id = command.id;
    service.site.store.accept(vec![command]).await.expect("accept");
    let dead = receiver.until(1).await.remove(0);
    assert_eq!((&dead.json()["status"], &dead.json()["attempts"]), (&json!("dead"), &json!(1)));
    let letters = service.api.get("/v1/dead-letters?kind=command").await.json();
    let letter = letters["items"][0]["id"].as_str().expect("an id").to_owned();
    let retried = service.post(&format!("/v1/dead-letters/{letter}/retry"), &json!({})).await;
    assert_eq!(retried.status, 202, "{}", retried.body);
    let ended = receiver.until(2).await.remove(1);
    assert_eq!(
        (&ended.json()["status"], &ended.json()["attempts"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_ne!(ended.id(), dead.id(), "another end");
    hurry(&service.site).await;
    let again = receiver.until(3).await.remove(2);
    assert_eq!((again.id(), &again.body), (dead.id(), &dead.body), "the same bytes");
    assert_eq!(again.json()["id"], json!(id));
    service.until_nothing_is_owed().await;
    service.process.stop(Duration::from_secs(10)).await;
}
