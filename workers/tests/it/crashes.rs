//! Processes that vanish: what makes them vanish is found and given up, and nothing else is.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    api::Api,
    drills::{at, letter, position, runs, send, until_runs},
    eventually,
    process::{Bank, Launch},
    site::{Look, Site},
    traffic::Random,
};

/// A process that is gone is noticed soon.
fn quick(launch: Launch) -> Launch {
    launch
        .set("bank.fault_injection", true)
        .set("membership.heartbeat_ms", 100)
        .set("membership.ttl_ms", 1_000)
}

async fn open(api: Api, accounts: usize) {
    for account in 0..accounts {
        api.open(&format!("acc-{account}")).await;
    }
}

fn deposit(account: usize) -> String {
    json!({ "id": Uuid::now_v7(), "type": "account.deposit",
            "stream": format!("account/acc-{account}"), "payload": { "amount": 1 } })
    .to_string()
}

async fn dead_letters(look: &mut Look) -> i64 {
    look.number("SELECT count(*) FROM adjutant.dead_letters").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_aborting_command_inside_a_batch_of_100_is_the_only_dead_one() {
    let site = Site::with_partitions(1).await;
    let front = quick(site.launch("ingress,relay,projection-worker")).start().await;
    let worker = || quick(site.launch("command-worker")).spawn();
    let mut running = worker();
    open(Api(front.api()), 10).await;
    running.stop().await;
    let mut lines: Vec<String> = (0..99).map(|line| deposit(line % 10)).collect();
    let abort = Uuid::now_v7();
    let line = json!({ "id": abort, "type": "drill.run", "stream": "drill/x", "payload": { "aborts": true } });
    lines.insert(50, line.to_string());
    assert_eq!(Api(front.api()).batch(&lines).await.len(), 100);
    let mut look = site.look().await;
    let mut crashes = 0;
    running = worker();
    eventually("all of them have ended", async || {
        if running.has_ended() {
            crashes += 1;
            running = worker();
        }
        (look.unfinished().await == 0).then_some(())
    })
    .await;
    println!("the worker crashed {crashes} times");
    assert!((4..=6).contains(&crashes), "twice in its batch, three times alone: {crashes}");
    look.until_quiet().await;
    let succeeded = "SELECT count(*) FROM adjutant.outcomes WHERE status = 1";
    assert_eq!(look.number(succeeded).await, 109);
    let dead: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT o.command_id, o.error ->> 'code' FROM adjutant.outcomes o
           JOIN adjutant.dead_letters d ON d.command_id = o.command_id
          WHERE o.status = 3",
    )
    .fetch_all(look.connection())
    .await
    .unwrap();
    assert_eq!(dead, [(abort, "crashed".to_owned())]);
    assert_eq!(look.number("SELECT count(*) FROM adjutant.suspects").await, 0);
    look.close().await;
    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
    running.stop().await;
}

/// Waits for a letter of `drill/x` that is open and not the one before; starts the worker again as
/// often as it vanishes, and counts that.
async fn until_parked(
    api: Api,
    worker: &impl Fn() -> Bank,
    running: &mut Bank,
    before: Option<&Value>,
) -> (Value, usize) {
    let mut crashes = 0;
    let parked = eventually("the stream is parked", async || {
        if running.has_ended() {
            crashes += 1;
            *running = worker();
        }
        let page = api.get("/v1/dead-letters?stream=drill/x&state=open").await.json();
        let first = page["items"].as_array()?.first()?.clone();
        before.is_none_or(|before| before["id"] != first["id"]).then_some(first)
    })
    .await;
    println!("the worker crashed {crashes} times");
    (parked, crashes)
}

async fn ask(api: Api, letter: &Value, action: &str) {
    let id = letter["id"].as_str().expect("an id");
    let target = format!("/v1/dead-letters/{id}/{action}");
    let answer = api.request("POST", &target, &[], &json!({ "reason": "a test" })).await;
    assert!(answer.status == 202 || answer.status == 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_aborts_the_projection_worker_parks_its_stream_and_so_does_its_replay() {
    let site = Site::with_partitions(1).await;
    let front = quick(site.launch("ingress,relay,command-worker")).start().await;
    let api = Api(front.api());
    let mut ids = Vec::new();
    for task in [json!({}), json!({ "aborts_view": true }), json!({})] {
        ids.push(send(api, "run", "x", task).await);
    }
    let other = send(api, "run", "y", json!({})).await;
    position(api, other).await;
    let worker = || quick(site.launch("projection-worker")).spawn();
    let mut running = worker();
    let (open, crashes) = until_parked(api, &worker, &mut running, None).await;
    assert!((3..=6).contains(&crashes), "in its batch, and three times alone: {crashes}");
    assert_eq!((&open["error"]["code"], &open["command_id"]), (&json!("crashed"), &json!(ids[1])));
    until_runs(api, "y", other, 1).await;
    until_runs(api, "x", ids[0], 1).await;

    // Nothing was mended: the replay makes it vanish, too, but not for ever.
    ask(api, &open, "retry").await;
    let (again, crashes) = until_parked(api, &worker, &mut running, Some(&open)).await;
    assert_eq!(crashes, 3);
    assert_eq!(
        (&again["error"]["code"], &again["position"]),
        (&json!("crashed"), &open["position"])
    );
    let later = send(api, "run", "y", json!({})).await;
    until_runs(api, "y", later, 2).await;
    assert!(!running.has_ended(), "it runs on");
    for id in &ids[1..] {
        let answer = at(api, "x", &position(api, *id).await).await;
        assert_eq!(answer.problem(), (504, "parked".to_owned()));
    }

    running.stop().await;
    let mended = quick(site.launch("projection-worker")).set("bank.cured", true).spawn();
    ask(api, &again, "retry").await;
    until_runs(api, "x", ids[2], 3).await;
    let mut look = site.look().await;
    assert_eq!(look.number("SELECT count(*) FROM adjutant.parked_keys").await, 0);
    look.until_quiet().await;
    look.close().await;
    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
    drop(mended);
}

/// What is replayed together with the guilty event is applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_aborts_in_the_middle_of_a_replay_is_the_one_that_is_given_up() {
    let site = Site::with_partitions(1).await;
    let front = quick(site.launch("ingress,relay,command-worker")).start().await;
    let api = Api(front.api());
    let worker = || quick(site.launch("projection-worker")).spawn();
    let mut running = worker();
    let mut ids = Vec::new();
    let tasks = [
        json!({ "poisons": true }),
        json!({}),
        json!({}),
        json!({ "aborts_view": true }),
        json!({}),
    ];
    for task in tasks {
        ids.push(send(api, "run", "x", task).await);
    }
    let last = position(api, ids[4]).await;
    let poisoned = letter(api, "drill/x", "open").await;
    eventually("all of them are passed", async || {
        let answer = at(api, "x", &last).await;
        (answer.status == 504 && answer.problem().1 == "parked").then_some(())
    })
    .await;
    ask(api, &poisoned, "discard").await;
    let (given_up, crashes) = until_parked(api, &worker, &mut running, Some(&poisoned)).await;
    assert_eq!(crashes, 4, "in its batch, and three times alone");
    assert_eq!(given_up["error"]["code"], "crashed");
    assert_eq!(given_up["command_id"], json!(ids[3]));
    assert_eq!(runs(api, "x").await, 2, "what was in front of it is applied");
    assert!(!running.has_ended());
    running.stop().await;
    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
}

/// How many kills; `scripts/kill-workers` asks for more.
fn kills() -> usize {
    std::env::var("ADJUTANT_TEST_KILLS").map_or(8, |kills| kills.parse().expect("a number"))
}

/// Random kills are nobody's fault, however often they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_without_poison_give_no_dead_letter() {
    let site = Site::new().await;
    let front = quick(site.launch("ingress,relay,projection-worker")).start().await;
    // One command a transaction: there is always something under way.
    let worker = || quick(site.launch("command-worker")).set("worker.batch", 4).spawn();
    let mut random = Random(7);
    let mut look = site.look().await;
    let mut running: Bank = worker();
    open(Api(front.api()), 20).await;
    for kill in 0..kills() {
        // As many as it can be at when it is killed; what it leaves behind does not pile up.
        let new = 200 - usize::try_from(look.unfinished().await).unwrap().min(200);
        if new > 0 {
            let lines: Vec<String> = (0..new).map(|line| deposit((line + kill) % 20)).collect();
            assert_eq!(Api(front.api()).batch(&lines).await.len(), new);
        }
        let goal = look.ended().await + random.below(100) as i64;
        eventually("it works", async || (look.ended().await >= goal).then_some(())).await;
        running.kill();
        running = worker();
    }
    look.until_quiet().await;
    assert_eq!(dead_letters(&mut look).await, 0);
    look.close().await;
    let (code, verdict) = site.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
    let (status, _) = tokio::time::timeout(Duration::from_mins(1), running.stop()).await.unwrap();
    assert!(status.success());
}

/// Without the setting the commands that do harm do not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_cannot_be_injected_unless_that_is_switched_on() {
    let site = Site::with_partitions(1).await;
    let front = site.launch("ingress").start().await;
    let body = json!({ "type": "drill.run", "stream": "drill/x", "payload": { "aborts": true } });
    let answer = Api(front.api()).request("POST", "/v1/commands", &[], &body).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(answer.json()["code"], "unknown_command_type");
}
