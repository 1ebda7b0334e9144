//! A command's whole way: accepted, relayed, executed, relayed, seen in views.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::Broker,
    message::{Batch, CommandId, OutcomeStatus, Timestamp, decode_batch},
    service::Process,
    store::{Entry, Execution, Intake, LogKind, Logs, NewCommand, Queries, Role, Store, Views},
};

use crate::support::{
    commands::{add, command, stream},
    eventually, messages,
    process::{ALL, Site},
};

/// Accepts through the site's own store and tells the process, as its ingress would.
pub async fn accept(site: &Site, process: &Process, commands: Vec<NewCommand>) -> Vec<CommandId> {
    let ids = commands.iter().map(|command| command.id).collect();
    site.store.accept(commands).await.expect("accept");
    process.signals().outbox_written();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_commands_are_executed_once_in_order_and_become_visible() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let mut ids = Vec::new();
    for round in 0..20 {
        let batch = (0..25).map(|i| add(&format!("c{}", i % 7), round + 1)).collect();
        ids.extend(accept(&site, &process, batch).await);
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    let document = site.store.view("counters", "c0").await.expect("view").expect("there");
    assert_eq!(document.version, 80);
    let outcome = site.store.command(ids[0]).await.expect("command").expect("there").outcome;
    let outcome = outcome.expect("ended");
    assert_eq!(outcome.status, OutcomeStatus::Succeeded);
    assert_eq!(outcome.reply.expect("reply").as_str(), "1");
    assert_eq!(outcome.positions.len(), 1);
    process.stop(Duration::from_secs(10)).await;
    assert_eq!(site.store.outbox_depth_now().await, 0, "all confirmed rows are deleted");
}

/// Rows that waited for the relay travel together, and say what each of them said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_follow_each_other_are_one_message() {
    let site = Site::new().await;
    let pool = site.database.pool().await;
    for _ in 0..30 {
        site.store.accept(vec![add("a", 1)]).await.expect("accept");
    }
    let rows: Vec<(uuid::Uuid, Timestamp)> = sqlx::query_as(
        "SELECT l.command_id, o.recorded_at FROM adjutant.outbox o
           JOIN adjutant.command_log l USING (partition)
          WHERE l.\"offset\" = o.first_offset ORDER BY o.first_offset",
    )
    .fetch_all(&pool)
    .await
    .expect("the outbox");
    let relay = site.start(&[Role::Relay]).await;
    eventually("all of them are published", async || {
        (site.store.outbox_depth_now().await == 0).then_some(())
    })
    .await;
    let partition = site.store.identity().partitions.of(&stream("a"));
    let broker = site.road.broker();
    let mut consumer = broker.consume(&messages::commands(partition), 100).await.expect("consume");
    let mut found = Vec::new();
    while found.len() < 30 {
        let delivery = messages::next(&mut consumer).await;
        let log = delivery.log.expect("log headers");
        assert_eq!(log.first_offset.0, found.len() as i64 + 1, "in order, without a hole");
        assert!(log.recorded.len() > 1, "{} entries are alone", log.entries());
        let batch = decode_batch(&delivery.body, true).expect("a batch");
        let Batch::Commands(commands) = batch else { panic!("commands") };
        found.extend(commands.into_iter().map(|command| command.id.0).zip(log.recorded_at()));
    }
    assert_eq!(found, rows);
    broker.close().await;
    drop(relay);
}

/// Law 1. Broken by a group that trusts the road only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_every_queue_under_load_loses_nothing_and_reorders_nothing() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let (_connection, channel) = crate::support::rabbit::raw().await;
    let mut ids = Vec::new();
    for round in 0..12 {
        let batch = (0..20).map(|i| add(&format!("c{}", i % 5), 1)).collect();
        ids.extend(accept(&site, &process, batch).await);
        if round % 4 == 1 {
            for group in ["commands", "projection.counters", "projection.totals"] {
                for partition in 0..4 {
                    let queue = site.road.name(&format!("{group}.p{partition:02}"));
                    let options = lapin::options::QueueDeleteOptions::default();
                    channel.queue_delete(queue.into(), options).await.expect("delete");
                }
            }
        }
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

/// Law 1, the other half: what the road never brought is found within seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_messages_are_found_in_the_log_within_five_seconds() {
    let site = Site::new().await;
    let process = site.start(&[Role::CommandWorker, Role::ProjectionWorker]).await;
    // No relay runs, and the rows are gone: nothing will ever come by the road.
    site.store.accept((0..10).map(|i| add(&format!("c{i}"), 1)).collect()).await.expect("accept");
    let pool = site.database.pool().await;
    sqlx::query("DELETE FROM adjutant.outbox").execute(&pool).await.expect("delete");
    let lost_at = tokio::time::Instant::now();
    eventually("found", async || {
        let n: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.outcomes")
            .fetch_one(&pool)
            .await
            .ok()?;
        (n == 10).then_some(())
    })
    .await;
    let took = lost_at.elapsed();
    println!("found after {took:?}");
    assert!(took < Duration::from_secs(8), "5 s are promised; this machine is shared: {took:?}");
    process.stop(Duration::from_secs(10)).await;
}

/// Law 1: messages that are of no use must not keep a group from looking at its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_foreign_messages_hides_no_lost_one() {
    let site = Site::new().await;
    let process = site.start(&[Role::CommandWorker]).await;
    let (_connection, channel) = crate::support::rabbit::raw().await;
    let lost = add("a", 1);
    let partition = site.store.identity().partitions.of(&lost.stream);
    let queue = site.road.name(&format!("commands.p{:02}", partition.0));
    let flood = async {
        let mut sent = 0;
        while sent < 100_000 {
            let (options, properties) = Default::default();
            let publish =
                channel.basic_publish("".into(), queue.as_str().into(), options, b"?", properties);
            publish.await.expect("publish");
            sent += 1;
            if sent % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let found = async {
        let pool = site.database.pool().await;
        eventually("the flood has begun", async || {
            let n: Option<i64> =
                sqlx::query_scalar("SELECT sum(count)::bigint FROM adjutant.foreign_messages")
                    .fetch_one(&pool)
                    .await
                    .ok()?;
            n.filter(|n| *n > 0)
        })
        .await;
        site.store.accept(vec![lost.clone()]).await.expect("accept"); // no relay runs
        site.until_ended(&[lost.id]).await;
    };
    tokio::select! {
        () = found => {}
        () = flood => panic!("the command was not found during the flood"),
    }
    process.stop(Duration::from_secs(10)).await;
}

/// Law 1: a queue that holds messages of another database with the same prefix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_another_log_are_never_applied() {
    let site = Site::new().await;
    let relay = site.start(&[Role::Relay]).await;
    let ids: Vec<_> = (0..8).map(|i| add(&format!("c{i}"), 1)).collect();
    let ids = accept(&site, &relay, ids).await;
    let pool = site.database.pool().await;
    eventually("published", async || {
        let n: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.outbox")
            .fetch_one(&pool)
            .await
            .ok()?;
        (n == 0).then_some(())
    })
    .await;
    relay.stop(Duration::from_secs(10)).await;
    // Restored: the log has another name, and the messages on the road another past.
    adjutant::store::postgres::new_log_id(&site.database.url).await.expect("new log id");
    let worker = site.start(&[Role::CommandWorker]).await;
    site.until_ended(&ids).await; // from the log
    let recorded: i64 = eventually("recorded", async || {
        let n: Option<i64> =
            sqlx::query_scalar("SELECT sum(count)::bigint FROM adjutant.foreign_messages")
                .fetch_one(&pool)
                .await
                .ok()?;
        n.filter(|n| *n > 0)
    })
    .await;
    assert!(recorded > 0);
    let reasons: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT reason FROM adjutant.foreign_messages")
            .fetch_all(&pool)
            .await
            .expect("reasons");
    assert_eq!(reasons, ["it belongs to another log"]);
    worker.stop(Duration::from_secs(10)).await;
}

/// Law 2 and law 3: a worker that dies between commit and ack executes nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redelivered_messages_change_nothing() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let ids =
        accept(&site, &process, (0..40).map(|i| add(&format!("c{}", i % 3), 1)).collect()).await;
    site.until_ended(&ids).await;
    site.until_applied().await;
    // The same messages again, as a relay does that died before it deleted its rows.
    let pool = site.database.pool().await;
    let version = site.store.view("counters", "c0").await.expect("view").expect("there").version;
    for partition in site.store.identity().partitions.all() {
        let from = adjutant::message::Offset(1);
        let entries =
            site.store.read_log(LogKind::Commands, partition, from, 100).await.expect("log");
        let commands: Vec<_> = entries
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Command(entry) => Some(entry.command),
                Entry::Event(_) => None,
            })
            .collect();
        if commands.is_empty() {
            continue;
        }
        sqlx::query(
            "INSERT INTO adjutant.outbox (partition, route, first_offset, entries, content_type, body, recorded_at)
             VALUES ($1, 1, 1, $2, 'application/msgpack', $3, clock_timestamp())",
        )
        .bind(partition.0)
        .bind(commands.len() as i32)
        .bind(adjutant::message::encode_commands(&commands).expect("encode"))
        .execute(&pool)
        .await
        .expect("insert");
    }
    process.signals().outbox_written();
    let more =
        accept(&site, &process, (0..9).map(|i| add(&format!("c{}", i % 3), 1)).collect()).await;
    site.until_ended(&more).await;
    site.until_applied().await;
    site.assert_lawful().await;
    let after = site.store.view("counters", "c0").await.expect("view").expect("there").version;
    assert_eq!(after, version + 3);
    process.stop(Duration::from_secs(10)).await;
}

/// Law 5: two processes that both consume everything, since neither knows of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_between_processes_without_a_double_effect() {
    let site = Site::new().await;
    let first = site.start(&ALL).await;
    let mut ids = Vec::new();
    let mut others = Vec::new();
    for round in 0..6 {
        let batch = (0..30).map(|i| add(&format!("c{}", i % 9), 1)).collect();
        ids.extend(accept(&site, &first, batch).await);
        if round % 2 == 0 {
            others.push(site.start(&[Role::CommandWorker, Role::ProjectionWorker]).await);
        } else if let Some(other) = others.pop() {
            other.stop(Duration::from_secs(10)).await;
        }
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    for process in others {
        process.stop(Duration::from_secs(10)).await;
    }
    first.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_executed_harms_no_neighbour() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let bad = |how: &str| {
        command(CommandId::generate(), "counter.misbehave", "a", serde_json::json!({ "how": how }))
    };
    let mut batch: Vec<_> = (0..30).map(|_| add("a", 1)).collect();
    let (panics, unstorable, evolve) = (bad("panic"), bad("unstorable"), bad("evolve_panic"));
    let over = add("a", 2_000_000);
    batch.insert(10, panics.clone());
    batch.insert(15, unstorable.clone());
    batch.insert(20, evolve.clone());
    batch.insert(25, over.clone());
    let ids = accept(&site, &process, batch).await;
    site.until_ended(&ids).await;
    let outcome = async |id| {
        let record = site.store.command(id).await.expect("command").expect("there");
        let outcome = record.outcome.expect("ended");
        (outcome.status, outcome.error.map(|error| error.code).unwrap_or_default())
    };
    assert_eq!(outcome(panics.id).await, (OutcomeStatus::Dead, "handler_panicked".into()));
    assert_eq!(outcome(evolve.id).await, (OutcomeStatus::Dead, "handler_panicked".into()));
    assert_eq!(outcome(unstorable.id).await, (OutcomeStatus::Dead, "unstorable".into()));
    assert_eq!(outcome(over.id).await, (OutcomeStatus::Rejected, "over_limit".into()));
    site.until_applied().await;
    site.assert_lawful().await;
    let view = site.store.view("counters", "a").await.expect("view").expect("there");
    assert_eq!(view.value.expect("value").to_value()["amount"], 30);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_type_is_unknown_here_is_left_and_not_lost() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let unknown = command(CommandId::generate(), "counter.of_tomorrow", "a", serde_json::json!({}));
    let ids = accept(&site, &process, vec![add("a", 1), unknown.clone(), add("a", 1)]).await;
    site.until_ended(&[ids[0], ids[2]]).await;
    let record = site.store.command(unknown.id).await.expect("command").expect("there");
    assert_eq!(record.status().as_str(), "accepted");
    let pool = site.database.pool().await;
    let waits: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM adjutant.schedule WHERE command_id = $1 AND reason = 'type_unknown_here'",
    )
    .bind(unknown.id.0)
    .fetch_one(&pool)
    .await
    .expect("schedule");
    let logged: i64 =
        sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log WHERE command_id = $1")
            .bind(unknown.id.0)
            .fetch_one(&pool)
            .await
            .expect("log");
    assert!(waits == 1 || logged >= 2, "it is scheduled, or back in the log already");
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_version_that_is_wrong_rejects_the_command() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let mut right = add("a", 1);
    right.expected_version = Some(adjutant::message::Version(1));
    let mut wrong = add("a", 1);
    wrong.expected_version = Some(adjutant::message::Version(7));
    let ids = accept(&site, &process, vec![add("a", 1), right.clone(), wrong.clone()]).await;
    site.until_ended(&ids).await;
    let partition = site.store.identity().partitions.of(&stream("a"));
    let outcomes = site
        .store
        .outcomes(&[(partition, right.id), (partition, wrong.id)])
        .await
        .expect("outcomes");
    for (id, outcome) in outcomes {
        if id == right.id {
            assert_eq!(outcome.status, OutcomeStatus::Succeeded);
        } else {
            assert_eq!(outcome.error.expect("error").code, "version_conflict");
        }
    }
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intake_goes_on_while_the_broker_is_away() {
    let site = Site::new().await;
    let mut settings = site.road.settings();
    settings.url = "amqp://guest:guest@127.0.0.1:1".into();
    let broker: Arc<dyn Broker> = Arc::new(site.road.broker_with(settings));
    let process = site.start_with(&ALL, broker).await;
    let ids = accept(&site, &process, (0..20).map(|i| add(&format!("c{i}"), 1)).collect()).await;
    site.until_ended(&ids).await; // read from the log
    site.until_applied().await;
    site.assert_lawful().await;
    let totals = site.store.load_documents("totals", &["all".into()]).await.expect("load");
    assert_eq!(totals[0].version, 20);
    process.stop(Duration::from_secs(10)).await;
}

/// For assertions about the outbox.
trait Depth {
    async fn outbox_depth_now(&self) -> i64;
}

impl Depth for adjutant::store::postgres::PostgresStore {
    async fn outbox_depth_now(&self) -> i64 {
        use adjutant::store::Outbox;
        self.outbox_depth(1_000).await.expect("depth").0
    }
}
