//! The HTTP API on real services: the contract end to end, and what careless, slow and hostile
//! clients do to it. Every row of the contract's table on its own is tested beside the code
//! (`src/ingress/http/tests`).

use std::{
    collections::{HashMap, HashSet},
    io::BufRead as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use adjutant::{
    ingress::{CommitSettings, IngressSettings},
    message::CommandId,
    prelude::*,
    signals::Signals,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    database::Database,
    domain, eventually,
    http::{Api, Client, id_of, submit},
    process::{ALL, Site},
    proxy::Proxy,
};

fn add(counter: &str, amount: i64) -> Value {
    json!({ "type": "counter.add", "stream": format!("counter/{counter}"), "payload": { "amount": amount } })
}

fn with(mut command: Value, field: &str, value: impl Into<Value>) -> Value {
    command[field] = value.into();
    command
}

async fn api_on(database: &Database, settings: IngressSettings) -> Api {
    Api::start(domain::service(), database.store().await, &Signals::default(), settings)
}

async fn stored(database: &Database) -> HashSet<CommandId> {
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM adjutant.commands")
        .fetch_all(&database.pool().await)
        .await
        .expect("look");
    ids.into_iter().map(CommandId).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_goes_from_http_to_a_view_and_back() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let store = site.database.store().await;
    let api = Api::start(domain::service(), store, process.signals(), IngressSettings::default());
    let wait = [("Prefer", "wait=30")];

    let id = CommandId::generate();
    let command = with(add("a", 5), "id", id.to_string());
    let done = api.submit_with(&wait, &command).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let resource = done.json();
    assert_eq!(
        (&resource["status"], &resource["outcome"]["reply"]),
        (&json!("succeeded"), &json!(5))
    );
    assert_eq!(resource["outcome"]["version"], 1);
    let at = resource["outcome"]["positions"][0].as_str().expect("a position").to_owned();

    let document = api.get(&format!("/v1/views/counters/a?at={at}&wait=30")).await;
    assert_eq!(document.status, 200, "{}", document.body);
    assert_eq!(document.json()["value"], json!({ "amount": 5, "count": 1 }));
    assert_eq!(document.json()["as_of"], json!([at]));
    assert_eq!(document.header("etag"), Some("\"1\""));
    let total = api.get(&format!("/v1/views/totals/all?at={at}&wait=30")).await;
    assert_eq!(total.json()["value"], json!({ "amount": 5, "count": 1 }));

    let events = api.get("/v1/streams/counter/a").await.json();
    assert_eq!(events["items"][0]["data"], json!({ "amount": 5, "total": 5 }));
    assert_eq!(events["items"][0]["position"], at);
    assert_eq!(events["items"][0]["command_id"], id.to_string());
    assert!(events["items"][0]["metadata"]["traceparent"].is_string());

    let again = api.submit(&command).await;
    assert_eq!((again.status, again.header("idempotent-replay")), (200, Some("true")));
    let mut first = resource.clone();
    first["accepted_at"] = again.json()["accepted_at"].clone();
    assert_eq!(again.json(), first);

    let over = api.submit_with(&wait, &add("a", domain::LIMIT)).await;
    assert_eq!((over.status, &over.json()["status"]), (200, &json!("rejected")));
    assert_eq!(over.json()["outcome"]["error"]["code"], "over_limit");
    let wrong = api.submit_with(&wait, &with(add("a", 1), "expected_version", 7)).await;
    assert_eq!(wrong.json()["outcome"]["error"]["code"], "version_conflict");
    let right = api.submit_with(&wait, &with(add("a", 1), "expected_version", 1)).await;
    assert_eq!(right.json()["status"], "succeeded");

    let rejected = api.get("/v1/commands?status=rejected&stream=counter/a").await.json();
    let rejected: Vec<_> =
        rejected["items"].as_array().expect("items").iter().map(|c| &c["id"]).cloned().collect();
    assert_eq!(rejected, [wrong.json()["id"].clone(), over.json()["id"].clone()], "newest first");
    let page = api.get("/v1/commands?limit=2").await.json();
    let cursor = page["next"].as_str().expect("a cursor");
    let next = api.get(&format!("/v1/commands?limit=500&after={cursor}")).await.json();
    assert_eq!(next["items"].as_array().expect("items").len(), 2);
    let odd = api.get("/v1/commands?after=no-cursor").await;
    assert_eq!(odd.problem(), (400, "invalid_parameter".into()));

    let members = api.get("/v1/members").await.json();
    assert_eq!(members["items"].as_array().expect("items").len(), 1);
    let projections = api.get("/v1/projections").await.json();
    assert_eq!(projections["items"][0]["partitions"].as_array().expect("partitions").len(), 4);
    process.stop(Duration::from_secs(10)).await;
    site.assert_lawful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_written_by_another_process_ends_a_long_poll() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    // An ingress with signals of its own: no hint reaches it.
    let api = api_on(&site.database, IngressSettings::default()).await;
    let answer = api.submit_with(&[("Prefer", "wait=30")], &add("a", 1)).await;
    assert_eq!(answer.json()["status"], "succeeded");
    let id = id_of(&api.submit(&add("a", 1)).await);
    let answer = api.get(&format!("/v1/commands/{id}?wait=30")).await;
    assert_eq!(answer.json()["status"], "succeeded");
    let at = answer.json()["outcome"]["positions"][0].as_str().expect("a position").to_owned();
    assert_eq!(api.get(&format!("/v1/views/counters/a?at={at}&wait=30")).await.status, 200);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_at_two_processes_at_once_is_accepted_once() {
    let database = Database::migrated().await;
    let apis = [
        api_on(&database, IngressSettings::default()).await,
        api_on(&database, IngressSettings::default()).await,
    ];
    for round in 0..10 {
        let command = with(add("a", 1), "id", CommandId::generate().to_string());
        let other = with(command.clone(), "payload", json!({ "amount": 2 }));
        let both = (0..40).map(|n| {
            let command = if n % 4 < 2 { &command } else { &other };
            apis[n % 2].submit(command)
        });
        let answers = join_all(both).await;
        let new = answers
            .iter()
            .filter(|a| a.status == 202 && a.header("idempotent-replay").is_none())
            .count();
        assert_eq!(new, 1, "round {round}");
        assert_eq!(answers.iter().filter(|a| a.status == 202).count(), 20);
        assert_eq!(answers.iter().filter(|a| a.status == 409).count(), 20);
    }
    assert_eq!(stored(&database).await.len(), 10);
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log")
        .fetch_one(&database.pool().await)
        .await
        .expect("look");
    assert_eq!(entries, 10);
}

/// A domain that stores whatever it is sent.
mod anything {
    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
    pub struct Put {
        #[garde(skip)]
        pub value: Value,
    }

    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    pub struct WasPut {
        pub value: Value,
    }

    adjutant::commands! { pub enum Command { Put(Put) = "put" v1 } }
    adjutant::events! { pub enum Event { WasPut(WasPut) = "was_put" v1 } }

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub struct Thing;

    impl Aggregate for Thing {
        const TYPE: &'static str = "thing";
        type Command = Command;
        type Event = Event;
        type Error = NoError;
        type Reply = ();
        fn decide(&self, command: &Command, _: &Context) -> Result<Decision<Event, ()>, NoError> {
            let Command::Put(put) = command;
            Ok(Decision::event(WasPut { value: put.value.clone() }))
        }
        fn evolve(&mut self, _: &Event) {}
    }

    pub fn service() -> Service {
        Service::builder().aggregate::<Thing>().build().expect("a valid service")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_payload_holds_it_is_stored_or_refused_and_fails_no_neighbour() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let settings = IngressSettings::default();
    let api = Api::start(anything::service(), store, &Signals::default(), settings);
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let digits = format!("0.{}1", "0".repeat(20_000));
    let values = [
        // Strange, but JSON that PostgreSQL stores.
        ("1e308", 202),
        ("-0.0", 202),
        ("5e-324", 202),
        ("18446744073709551615", 202),
        ("123456789012345678901234567890", 202),
        (r#""\uffff \ud83d\ude00 \u0001 \\u0000""#, 202),
        (r#"{"":{"":""}}"#, 202),
        (r#"{"a":1,"a":2}"#, 202),
        (&deep(100), 202),
        // Refused at the door.
        (r#""\u0000""#, 422),
        (r#"{"\u0000":1}"#, 422),
        (r#""\ud800""#, 400),
        ("1e309", 400),
        ("01", 400),
        ("NaN", 400),
        (&deep(200), 400),
        (&deep(60_000), 400),
        // JSON, but more digits than PostgreSQL keeps: only the store knows.
        ("1e-20000", 422),
        (&digits, 422),
    ];
    let line = |value: &str| {
        format!(r#"{{"type":"thing.put","stream":"thing/a","payload":{{"value":{value}}}}}"#)
    };
    for (value, expected) in values {
        let short: String = value.chars().take(40).collect();
        let json = [("Content-Type", "application/json")];
        let mut client = api.client().await;
        let answer = client.request("POST", "/v1/commands", &json, line(value).as_bytes()).await;
        assert_eq!(answer.status, expected, "{short}: {}", answer.body);

        let body = [line("1"), line(value), line("2")].join("\n");
        let ndjson = [("Content-Type", "application/x-ndjson")];
        let answer = client.request("POST", "/v1/commands/batch", &ndjson, body.as_bytes()).await;
        let codes: Vec<_> =
            answer.lines().iter().map(|l| l["code"].as_u64().expect("a code")).collect();
        assert_eq!(codes, [202, u64::from(expected), 202], "{short}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_in_the_middle_lose_and_corrupt_nothing() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let store = site.database.store().await;
    let api = Api::start(domain::service(), store, process.signals(), IngressSettings::default());
    // Each stops at another place: within the head, within the body, before the answer.
    let careless = (0..300).map(async |n: usize| {
        let body = add(&format!("c{}", n % 7), 1).to_string();
        let request = format!(
            "POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = api.client().await;
        client.send(&request.as_bytes()[..request.len() * (n % 10 + 1) / 10]).await;
        if n.is_multiple_of(3) {
            tokio::time::sleep(Duration::from_millis((n % 5) as u64)).await;
        }
        drop(client);
    });
    let careful =
        (0..100).map(async |n: i64| id_of(&api.submit(&add(&format!("c{}", n % 7), 1)).await));
    let (_, ids) = tokio::join!(join_all(careless), join_all(careful));
    site.until_ended(&ids).await;
    // Those that were accepted without anybody hearing of it end, too.
    let all: Vec<_> = stored(&site.database).await.into_iter().collect();
    assert!(all.len() >= 100 && all.len() <= 130, "{}", all.len());
    site.until_ended(&all).await;
    site.until_applied().await;
    process.stop(Duration::from_secs(10)).await;
    site.assert_lawful().await;
}

/// What was answered must be true: a 202 is in the database, a 503 is not.
async fn assert_answers_are_true(database: &Database, answers: &HashMap<CommandId, u16>) {
    let stored = stored(database).await;
    for (id, status) in answers {
        match status {
            200 | 202 => assert!(stored.contains(id), "{id} was answered {status} and is lost"),
            503 => assert!(!stored.contains(id), "{id} was answered 503 and is stored"),
            500 => {}
            other => panic!("{id} was answered {other}"),
        }
    }
}

/// Clients that send until told to stop, each command under its own id; the answer to each.
async fn load(api: &Api, until: Instant) -> HashMap<CommandId, u16> {
    let clients = (0..32).map(async |n: usize| {
        let mut answers = Vec::new();
        let mut client = api.client().await;
        while Instant::now() < until {
            let id = CommandId::generate();
            let command = with(add(&format!("c{n}"), 1), "id", id.to_string());
            answers.push((id, submit(&mut client, &[], &command).await.status));
        }
        answers
    });
    join_all(clients).await.into_iter().flatten().collect()
}

fn through(database: &Database, proxy: &Proxy) -> String {
    let (head, name) = database.url.rsplit_once('/').expect("a database");
    let user = head.rsplit_once('@').map_or("", |(user, _)| user);
    format!("{user}@{}/{name}", proxy.address())
}

fn address_of(database: &Database) -> String {
    let (head, _) = database.url.rsplit_once('/').expect("a database");
    head.rsplit_once('@').map_or(head, |(_, address)| address).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_stay_true_while_connections_to_the_database_break() {
    let database = Database::migrated().await;
    let proxy = Proxy::to(address_of(&database)).await;
    let store = database.store_through(&through(&database, &proxy)).await;
    let commit = CommitSettings { give_up_after_ms: 1_000, ..CommitSettings::default() };
    let settings = IngressSettings { commit, ..IngressSettings::default() };
    let api = Api::start(domain::service(), store, &Signals::default(), settings);
    let until = Instant::now() + Duration::from_secs(8);
    let (answers, ()) = tokio::join!(load(&api, until), async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.drop_connections();
        }
        proxy.down();
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.resume();
    });
    let count = |status| answers.values().filter(|answer| **answer == status).count();
    println!("202: {}, 503: {}, 500: {}", count(202), count(503), count(500));
    assert!(count(202) > 100 && count(503) > 0);
    assert_answers_are_true(&database, &answers).await;

    // Whoever was told that it is not known learns it by sending the same again.
    let unknown: Vec<_> = answers.iter().filter(|(_, status)| **status == 500).collect();
    for (id, _) in unknown {
        let command = with(add("again", 1), "id", id.to_string());
        let answer = api.submit(&command).await;
        assert!(matches!(answer.status, 202 | 409), "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_database_holds_requests_up_and_loses_none() {
    let database = Database::migrated().await;
    let proxy = Proxy::to(address_of(&database)).await;
    let store = database.store_through(&through(&database, &proxy)).await;
    let api = Api::start(domain::service(), store, &Signals::default(), IngressSettings::default());
    let until = Instant::now() + Duration::from_secs(12);
    let (answers, ()) = tokio::join!(load(&api, until), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.pause();
        tokio::time::sleep(Duration::from_secs(8)).await;
        proxy.resume();
    });
    let count = |status| answers.values().filter(|answer| **answer == status).count();
    println!("202: {}, 503: {}, 500: {}", count(202), count(503), count(500));
    assert!(count(202) > 100);
    assert_answers_are_true(&database, &answers).await;
    eventually("commands are accepted again", async || {
        (api.submit(&add("a", 1)).await.status == 202).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_refused_while_the_outbox_is_full_and_accepted_when_it_has_room() {
    let site = Site::new().await;
    let settings = IngressSettings { outbox_limit: 20, ..IngressSettings::default() };
    let api = api_on(&site.database, settings).await;
    let refused = eventually("the outbox fills up", async || {
        let answer = api.submit(&add("a", 1)).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!(refused.problem(), (503, "outbox_full".into()));
    let process = site.start(&ALL).await;
    eventually("there is room again", async || {
        (api.submit(&add("a", 1)).await.status == 202).then_some(())
    })
    .await;
    process.stop(Duration::from_secs(10)).await;
}

const SLOW_TARGET: &str = "ADJUTANT_TEST_SLOW_TARGET";
const SLOW_CLIENTS: usize = 10_000;

/// Not a test of its own: the process of the slow clients, because one process may not have enough
/// file descriptors for both ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_clients_process() {
    let Ok(target) = std::env::var(SLOW_TARGET) else { return };
    let target = target.parse().expect("an address");
    let mut clients = Vec::new();
    for n in 0..SLOW_CLIENTS {
        let mut client = Client::connect(target).await;
        // Half of them stop within the head, half within the body.
        client
            .send(b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            .await;
        if n % 2 == 0 {
            client.send(b"Content-Length: 200000\r\n\r\n{").await;
        }
        clients.push(client);
    }
    println!("\nall are connected");
    // Then a byte now and then, until the parent kills this process.
    loop {
        for client in &mut clients {
            client.send(b"x").await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("kB") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_slow_clients_take_little_memory_and_stop_nobody() {
    let database = Database::migrated().await;
    let settings = IngressSettings {
        header_timeout_ms: 20_000,
        body_timeout_ms: 20_000,
        ..IngressSettings::default()
    };
    let api = api_on(&database, settings).await;
    let before = resident_bytes();
    let mut slow = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "http::slow_clients_process", "--nocapture"])
        .env(SLOW_TARGET, api.address.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let output = std::io::BufReader::new(slow.stdout.take().expect("a pipe"));
    let connected = tokio::task::spawn_blocking(move || {
        output.lines().map_while(Result::ok).any(|line| line == "all are connected")
    });
    assert!(connected.await.expect("joined"), "the slow clients did not connect");

    let started = Instant::now();
    let answers = join_all((0..200).map(|n| async move { n }).map(async |n| {
        let n = n.await;
        api.submit(&add(&format!("c{n}"), 1)).await.status
    }))
    .await;
    let took = started.elapsed();
    let grown = resident_bytes().saturating_sub(before);
    println!("{SLOW_CLIENTS} slow clients: {} MB more; 200 commands in {took:?}", grown >> 20);
    assert!(answers.iter().all(|status| *status == 202));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(grown < 400 << 20, "{} MB", grown >> 20);
    slow.kill().expect("kill");
    slow.wait().expect("wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_few_commits() {
    let database = Database::migrated().await;
    let api = Arc::new(api_on(&database, IngressSettings::default()).await);
    let until = Instant::now() + Duration::from_secs(3);
    let answers = load(&api, until).await;
    assert!(answers.values().all(|status| *status == 202));
    let commits: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM adjutant.commands")
            .fetch_one(&database.pool().await)
            .await
            .expect("look");
    println!("{} commands in {commits} commits", answers.len());
    assert!((commits as usize) * 2 < answers.len(), "{commits} commits for {}", answers.len());
}
