//! Processes that vanish: what makes them vanish is found and given up, and nothing else is.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::support::{
    api::Api,
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
        let lines: Vec<String> = (0..200).map(|line| deposit((line + kill) % 20)).collect();
        assert_eq!(Api(front.api()).batch(&lines).await.len(), 200);
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
