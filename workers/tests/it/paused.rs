//! What stands still and goes on: RabbitMQ under load, its connections open, which is the worst way
//! to be away; and a worker in the middle of a handler.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    api::Api,
    drills::{command, send, until_status},
    eventually,
    private::PrivateRabbit,
    process::{program, run},
    site::Site,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_stands_still_commands_are_accepted_and_executed_in_order() {
    let rabbit = PrivateRabbit::start().await;
    let site = Site::new().await;
    let mut bank = site.launch("all").env("ADJUTANT_AMQP_URL", rabbit.url()).start().await;
    let answers = std::env::temp_dir().join(format!("answers-{}.ndjson", uuid::Uuid::now_v7()));
    let mut demo = program();
    demo.args(["demo", "--json", "--api", &format!("http://{}", bank.api())])
        .args(["--database-url", &site.database.url(), "--amqp-url", rabbit.url()])
        .args(["--commands", "4000", "--accounts", "50", "--rate", "200"])
        .arg("--answers-out")
        .arg(&answers);
    let demo = tokio::spawn(run(demo));

    let mut look = site.look().await;
    eventually("the load is on", async || (look.ended().await > 500).then_some(())).await;
    rabbit.pause().await;
    let (accepted, ended) = (accepted(&mut look).await, look.ended().await);
    eventually("intake goes on", async || {
        (self::accepted(&mut look).await > accepted + 1_000).then_some(())
    })
    .await;
    eventually("so does execution", async || (look.ended().await > ended + 1_000).then_some(()))
        .await;
    rabbit.resume().await;

    let output = demo.await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}{words}");
    let report: Value = serde_json::from_str(printed.lines().last().unwrap()).expect("JSON");
    println!("{report}");
    assert!(report["from_log"].as_u64().unwrap() > 500, "{report}");
    assert!(report["from_broker"].as_u64().unwrap() > 500, "{report}");
    let (code, verdict) = site.verify(Some(&answers)).await;
    let _ = std::fs::remove_file(&answers);
    assert_eq!(code, 0, "{verdict}");
    assert_eq!(bank.stop().await.0.code(), Some(0));
}

async fn accepted(look: &mut crate::support::site::Look) -> i64 {
    look.number("SELECT count(*) FROM adjutant.commands").await
}

/// The time of SIGSTOP is not the handler's: no attempt is burnt, and nothing overtakes.
#[tokio::test]
async fn a_worker_that_stood_still_in_the_middle_of_a_handler_goes_on_with_it() {
    let site = Site::with_partitions(1).await;
    let roles = async |roles| site.launch(roles).set("bank.fault_injection", true).start().await;
    let front = roles("ingress,relay").await;
    let worker = roles("command-worker").await;
    let api = Api(front.api());
    let slow = send(api, "run", "x", json!({ "blocks_ms": 500 })).await;
    // Its first decision has a thread made.
    eventually("it decides", async || worker.has_thread("adjutant-decide").then_some(())).await;
    worker.signal("STOP");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    worker.signal("CONT");
    until_status(api, slow, "succeeded").await;
    assert_eq!(command(api, slow).await["attempts"], 1);
}
