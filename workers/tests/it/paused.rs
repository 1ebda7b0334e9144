//! RabbitMQ stands still under load, its connections open: the worst way to be away.

use serde_json::Value;

use crate::support::{
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
