//! What another release wrote and this one cannot read: it is kept for one that can.

use std::{sync::Arc, time::Duration};

use adjutant::{
    message::{CommandId, OutcomeStatus},
    service::Process,
    store::{Intake, Queries, Role},
};
use serde_json::json;

use crate::support::{
    commands::{add, command},
    eventually,
    lane::Lane,
    process::{ALL, Site},
};

/// A command type that is known, with a payload of tomorrow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_only_a_newer_release_reads_is_set_aside_and_not_lost() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let payload = json!({ "amount": 1, "currency": "EUR" });
    let unreadable = command(CommandId::generate(), "counter.add", "a", payload);
    let batch = vec![add("a", 1), unreadable.clone(), add("a", 1)];
    let ids: Vec<_> = batch.iter().map(|command| command.id).collect();
    site.store.accept(batch).await.expect("accept");
    site.until_ended(&[ids[0], ids[2]]).await;
    let pool = site.database.pool().await;
    let turns = async || -> i64 {
        let log = "SELECT count(*) FROM adjutant.command_log WHERE command_id = $1";
        sqlx::query_scalar(log).bind(unreadable.id.0).fetch_one(&pool).await.expect("count")
    };
    eventually("set aside", async || {
        let reason: Option<String> =
            sqlx::query_scalar("SELECT reason FROM adjutant.schedule WHERE command_id = $1")
                .bind(unreadable.id.0)
                .fetch_optional(&pool)
                .await
                .ok()?;
        reason.filter(|reason| reason == "payload_unreadable_here")
    })
    .await;
    // It gets another turn, here or at a release that can read it, and has no outcome until then.
    let soon = "UPDATE adjutant.schedule SET due_at = clock_timestamp()";
    sqlx::query(soon).execute(&pool).await.expect("hurry");
    let before = turns().await;
    eventually("its next turn", async || (turns().await > before).then_some(())).await;
    let record = site.store.command(unreadable.id).await.expect("command").expect("there");
    assert_eq!(record.status().as_str(), "accepted");
    process.stop(Duration::from_secs(10)).await;
}

/// A snapshot is a shortcut: what cannot be read is made again from the events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_read_is_replaced_by_the_events() {
    let site = Site::new().await;
    let start = async || {
        let mut parts = site.parts(&ALL, Arc::new(site.road.broker())).await;
        parts.settings.executor.snapshot_every = 5;
        Process::start(parts).await.expect("start")
    };
    let process = start().await;
    let batch: Vec<_> = (0..12).map(|_| add("a", 1)).collect();
    let ids: Vec<_> = batch.iter().map(|command| command.id).collect();
    site.store.accept(batch).await.expect("accept");
    site.until_ended(&ids).await;
    let pool = site.database.pool().await;
    eventually("a snapshot", async || {
        let snapshots: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.snapshots")
            .fetch_one(&pool)
            .await
            .ok()?;
        (snapshots == 1).then_some(())
    })
    .await;
    process.stop(Duration::from_secs(10)).await;
    let damage = "UPDATE adjutant.snapshots SET state = '\\xc1'";
    sqlx::query(damage).execute(&pool).await.expect("damage");

    let process = start().await; // with an empty cache
    let last = add("a", 1);
    site.store.accept(vec![last.clone()]).await.expect("accept");
    site.until_ended(&[last.id]).await;
    let outcome = site.store.command(last.id).await.expect("command").expect("there").outcome;
    let outcome = outcome.expect("ended");
    assert_eq!(outcome.status, OutcomeStatus::Succeeded);
    assert_eq!(outcome.reply.expect("reply").as_str(), "13", "all twelve events were folded");

    // The same under the lock: what the process remembers is out of date, and the snapshot that it
    // wrote meanwhile is of no use either.
    let neighbour = site.start(&[Role::Ingress]).await;
    let other = Lane::of(&site, &neighbour).await;
    assert_eq!(other.outcome(add("a", 1)).await.version.0, 14);
    sqlx::query(damage).execute(&pool).await.expect("damage");
    let last = add("a", 1);
    site.store.accept(vec![last.clone()]).await.expect("accept");
    site.until_ended(&[last.id]).await;
    let outcome = site.store.command(last.id).await.expect("command").expect("there").outcome;
    assert_eq!(outcome.expect("ended").reply.expect("reply").as_str(), "15");
    let turns = "SELECT count(*) FROM adjutant.command_log WHERE command_id = $1";
    let turns: i64 =
        sqlx::query_scalar(turns).bind(last.id.0).fetch_one(&pool).await.expect("count");
    assert_eq!(turns, 1, "it was not set aside");
    neighbour.stop(Duration::from_secs(10)).await;
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}
