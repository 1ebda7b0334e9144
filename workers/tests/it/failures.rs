//! When work fails: what waits for it, what goes on, and that a person brings it back once, in
//! order. Operators do it by HTTP or by the command line.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use uuid::Uuid;

use crate::support::{
    api::Api,
    drills::{By, at, command, letter, position, replies, runs, send, until_runs, until_status},
    eventually,
    process::Launch,
    site::Site,
};

fn with_drills(launch: Launch) -> Launch {
    launch.set("bank.fault_injection", true)
}

async fn strict_commands_wait_behind_a_dead_one(by: By) {
    let site = Site::with_partitions(1).await;
    let front = with_drills(site.launch("ingress,relay")).start().await;
    let _worker = with_drills(site.launch("command-worker,projection-worker")).start().await;
    let api = Api(front.api());
    let strict = async |drill, task| send(api, "run_in_order", drill, task).await;
    let first = strict("x", json!({})).await;
    let dead = strict("x", json!({ "fatal": true })).await;
    let rest = [strict("x", json!({})).await, strict("x", json!({})).await];
    until_status(api, dead, "dead").await;
    for id in rest {
        until_status(api, id, "waiting").await;
    }
    let relaxed = send(api, "run", "x", json!({})).await;
    let others = [strict("y", json!({})).await, strict("y", json!({})).await];
    let last = strict("x", json!({})).await;
    assert_eq!(replies(api, &[first, relaxed]).await, [1, 2], "relaxed ones overtake");
    assert_eq!(replies(api, &others).await, [1, 2]);
    until_status(api, last, "waiting").await;
    for id in rest {
        assert_eq!(command(api, id).await["status"], "waiting");
    }

    let open = letter(api, "drill/x", "open").await;
    assert_eq!((&open["kind"], &open["error"]["code"]), (&json!("command"), &json!("drill_fatal")));
    assert_eq!(open["command_id"], json!(dead));
    by.retry(api, &open, Some(json!({}))).await;
    let all = [dead, rest[0], rest[1], last];
    assert_eq!(replies(api, &all).await, [3, 4, 5, 6], "in the order in which they were sent");
    assert_eq!(letter(api, "drill/x", "resolved").await["id"], open["id"]);
    // Nothing holds the stream any more.
    let next = strict("x", json!({})).await;
    assert_eq!(replies(api, &[next]).await, [7]);
    until_runs(api, "x", next, 7).await;
    verified(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_commands_wait_behind_a_dead_one_and_run_in_order_after_a_retry_by_http() {
    strict_commands_wait_behind_a_dead_one(By::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_commands_wait_behind_a_dead_one_and_run_in_order_after_a_retry_by_cli() {
    strict_commands_wait_behind_a_dead_one(By::Cli).await;
}

async fn a_parked_stream_waits(by: By) {
    // One partition: the healthy streams are in the log behind the event that fails.
    let site = Site::with_partitions(1).await;
    let front = with_drills(site.launch("ingress,relay,command-worker")).start().await;
    let worker = with_drills(site.launch("projection-worker")).spawn();
    let api = Api(front.api());
    let run = async |drill, task| send(api, "run", drill, task).await;
    let first = run("x", json!({})).await;
    let poison = run("x", json!({ "poisons": true })).await;
    let later = [run("x", json!({})).await, run("x", json!({})).await];
    let other = run("y", json!({})).await;
    until_runs(api, "x", first, 1).await;
    let open = letter(api, "drill/x", "open").await;
    assert_eq!(
        (&open["kind"], &open["group"]),
        (&json!("parked_key"), &json!("projection.drills"))
    );
    assert_eq!(open["command_id"], json!(poison));
    until_runs(api, "y", other, 1).await;
    for id in [poison, later[0], later[1]] {
        let answer = at(api, "x", &position(api, id).await).await;
        assert_eq!(answer.problem(), (504, "parked".to_owned()));
    }
    assert_eq!(runs(api, "x").await, 1, "no event of the stream overtakes");

    // Without the fix it fails again, at the same event; the key waits for a person again.
    by.retry(api, &open, None).await;
    let again = eventually("it is parked again", async || {
        let page = api.get("/v1/dead-letters?stream=drill/x&state=open").await.json();
        page["items"].as_array()?.first().filter(|letter| letter["id"] != open["id"]).cloned()
    })
    .await;
    assert_eq!(again["position"], open["position"]);
    assert_eq!(runs(api, "x").await, 1);

    let mut worker = worker;
    worker.stop().await;
    let worker = with_drills(site.launch("projection-worker")).set("bank.cured", true).spawn();
    by.retry(api, &again, None).await;
    let last = run("x", json!({})).await;
    until_runs(api, "x", last, 5).await;
    until_runs(api, "x", later[1], 5).await;
    eventually("nothing is parked", async || {
        let mut look = site.look().await;
        let keys = look.number("SELECT count(*) FROM adjutant.parked_keys").await;
        look.close().await;
        (keys == 0).then_some(())
    })
    .await;
    let page = api.get("/v1/dead-letters?stream=drill/x&state=resolved").await.json();
    assert_eq!(page["items"].as_array().map(Vec::len), Some(2), "{page}");
    verified(&site).await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_stream_waits_and_its_view_is_the_fold_after_the_fix_and_a_retry_by_http() {
    a_parked_stream_waits(By::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_stream_waits_and_its_view_is_the_fold_after_the_fix_and_a_retry_by_cli() {
    a_parked_stream_waits(By::Cli).await;
}

/// `bank verify` finds nothing, once everything is done.
async fn verified(site: &Site) {
    let mut look = site.look().await;
    look.until_quiet().await;
    look.close().await;
    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
}

/// What one of many was answered: status and body, or nothing if its process vanished.
type Answered = Option<(u16, Value)>;

/// Writes a request for a retry; the answer is still to be read.
async fn ask(api: Api, letter: &str) -> TcpStream {
    let body = json!({ "payload": {}, "reason": "one of many" }).to_string();
    let request = format!(
        "POST /v1/dead-letters/{letter}/retry HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(api.0).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    stream
}

async fn answer(mut stream: TcpStream) -> Answered {
    let mut text = String::new();
    // An error is what a process that vanished leaves.
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

const PEOPLE: usize = 50;

/// All of them ask at the same time, half of them a process that is killed after so many answers.
async fn one_of_fifty(site: &Site, stays: Api, drill: &str, kill_after: usize) {
    let mut victim = with_drills(site.launch("ingress")).start().await;
    let dead = send(stays, "run_in_order", drill, json!({ "fatal": true })).await;
    let before = until_status(stays, dead, "dead").await;
    let open = letter(stays, &format!("drill/{drill}"), "open").await;
    let id: Arc<str> = open["id"].as_str().expect("an id").into();

    let start = Arc::new(tokio::sync::Barrier::new(PEOPLE));
    let mut people = JoinSet::new();
    for person in 0..PEOPLE {
        let api = if person % 2 == 0 { stays } else { Api(victim.api()) };
        let (start, id) = (start.clone(), id.clone());
        people.spawn(async move {
            start.wait().await;
            answer(ask(api, &id).await).await
        });
    }
    let mut answers: Vec<Answered> = Vec::new();
    while let Some(answered) = people.join_next().await {
        answers.push(answered.expect("no panic"));
        if answers.len() == kill_after {
            victim.kill();
        }
    }
    assert_eq!(answers.len(), PEOPLE);
    let accepted = answers.iter().flatten().filter(|(status, _)| *status == 202).count();
    let unknown = answers.iter().filter(|answered| answered.is_none()).count();
    println!("killed after {kill_after} answers: {accepted} accepted, {unknown} unknown");
    assert!(accepted == 1 || (accepted == 0 && unknown > 0), "{answers:?}");
    for (status, body) in answers.iter().flatten().filter(|(status, _)| *status != 202) {
        assert_eq!((*status, &body["code"]), (409, &json!("already_retried")), "{body}");
    }

    let after = until_status(stays, dead, "succeeded").await;
    let attempts = |command: &Value| command["attempts"].as_i64().expect("a number");
    assert_eq!(attempts(&after), attempts(&before) + 1, "one new execution: {after}");
    assert_eq!(after["outcome"]["reply"], 1);
    let mut look = site.look().await;
    let rows: (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM adjutant.dead_letter_audit WHERE dead_letter_id = $1),
                (SELECT count(*) FROM adjutant.events WHERE command_id = $2),
                (SELECT count(*) FROM adjutant.past_outcomes WHERE command_id = $2),
                (SELECT count(*) FROM adjutant.dead_letters WHERE command_id = $2)",
    )
    .bind(id.parse::<Uuid>().unwrap())
    .bind(dead)
    .fetch_one(look.connection())
    .await
    .unwrap();
    look.close().await;
    assert_eq!(rows, (1, 1, 1, 1), "one audit row, one event, one outcome taken back, one letter");
    let late = answer(ask(stays, &id).await).await.expect("an answer");
    assert_eq!((late.0, &late.1["code"]), (409, &json!("already_retried")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_retries_through_two_processes_takes_place_though_one_is_killed() {
    let site = Site::new().await;
    let stays = with_drills(site.launch("ingress,relay")).start().await;
    let _worker = with_drills(site.launch("command-worker,projection-worker")).start().await;
    for (drill, kill_after) in [("a", 1), ("b", 5), ("c", 20)] {
        one_of_fifty(&site, Api(stays.api()), drill, kill_after).await;
    }
    verified(&site).await;
}
