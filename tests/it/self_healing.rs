//! What a service puts right by itself, and the metric that shows it.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::{
        Broker, BrokerError, Consumer, GroupPartition, IntakeConsumer, Publisher,
        rabbitmq::RabbitBroker,
    },
    message::{CommandId, GroupName, Offset, ReplyAddress},
    observe::install_metrics,
    store::{Housekeeping, Intake, Leftover, LogKind, Logs, NewCommand, Outbox, Role},
};

use crate::{
    main_path::accept,
    support::{
        commands::add,
        database::Database,
        eventually,
        process::{ALL, Site},
    },
};

/// The sum of a metric over its labels, those given among them.
fn metric(name: &str, label: &str) -> f64 {
    let text = install_metrics().expect("metrics").render();
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(label)
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    text.lines().filter(is_it).filter_map(value).sum()
}

/// The real broker, which says of one queue each time that it cannot declare it.
struct CannotDeclare(RabbitBroker);

#[async_trait::async_trait]
impl Broker for CannotDeclare {
    async fn declare(&self, groups: &[GroupName]) -> Result<(), BrokerError> {
        self.0.declare(groups).await?;
        Err(BrokerError::Undeclared("on purpose".to_owned()))
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.0.publisher().await
    }

    async fn consume(
        &self,
        source: &GroupPartition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(source, prefetch).await
    }

    async fn consume_intake(&self, prefetch: u16) -> Result<Box<dyn IntakeConsumer>, BrokerError> {
        self.0.consume_intake(prefetch).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.0.check().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// Broken by a relay that begins anew whenever something cannot be declared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_cannot_be_declared_does_not_hold_the_relay_back() {
    let site = Site::new().await;
    let broker = Arc::new(CannotDeclare(site.road.broker()));
    let process = site.start_with(&ALL, broker).await;
    // Events that nobody publishes leave the outbox when they are old; a reply does not.
    let reply_to = Some(ReplyAddress { queue: site.road.name("nobody"), correlation_id: None });
    let command = NewCommand { reply_to, ..add("a", 1) };
    let ids = accept(&site, &process, vec![command]).await;
    site.until_ended(&ids).await;
    site.until_applied().await;
    let pool = site.database.pool().await;
    eventually("the reply is sent, and nobody takes it", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.outbox")
            .fetch_one(&pool)
            .await
            .ok()?;
        (left == 0).then_some(())
    })
    .await;
    process.stop(Duration::from_secs(10)).await;
}

/// Law 1, with its metric: what was purged is read from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_from_the_queues_is_read_from_the_log_and_counted() {
    install_metrics().expect("metrics");
    let site = Site::new().await;
    // Relay first: its messages wait in the queues.
    let relay = site.start(&[Role::Ingress, Role::Relay]).await;
    let ids = accept(&site, &relay, (0..20).map(|i| add(&format!("c{i}"), 1)).collect()).await;
    eventually("everything is published", async || {
        let published = metric("adjutant_relay_messages_total", "published");
        (published > 0.0 && site.store.outbox_depth(1).await.ok()?.0 == 0).then_some(())
    })
    .await;
    let (_connection, channel) = crate::support::rabbit::raw().await;
    let mut purged = 0;
    for partition in 0..4 {
        let queue = site.road.name(&format!("commands.p{partition:02}"));
        let options = lapin::options::QueuePurgeOptions::default();
        purged += channel.queue_purge(queue.into(), options).await.expect("purge");
    }
    assert!(purged > 0, "the queues held something");
    let workers = site.start(&[Role::CommandWorker, Role::ProjectionWorker]).await;
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    let from_log = metric("adjutant_group_entries_total", "source=\"log\"");
    assert!(from_log >= 20.0, "{from_log} entries came from a log");
    workers.stop(Duration::from_secs(10)).await;
    relay.stop(Duration::from_secs(10)).await;
}

/// Rows without a command must not keep others from being found behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_in_front_of_the_schedule_hold_nobody_up_and_are_counted() {
    install_metrics().expect("metrics");
    let database = Database::with_partitions(1).await;
    let store = database.store().await;
    let pool = database.pool().await;
    let orphans = "INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason)
                   SELECT 0, clock_timestamp() - interval '1 hour', gen_random_uuid(), 0, 'not_before'
                     FROM generate_series(1, 25)";
    sqlx::query(orphans).execute(&pool).await.expect("orphans");
    let mut waiting = add("a", 1);
    waiting.not_before = Some(time::OffsetDateTime::now_utc() + Duration::from_millis(200));
    store.accept(vec![waiting]).await.expect("accept");
    let all: Vec<_> = adjutant::store::Store::identity(&*store).partitions.all().collect();
    eventually("it gets its turn", async || {
        store.promote_due(&all, Duration::ZERO, 10).await.expect("promote");
        (store.heads().await.expect("heads").commands == [Offset(1)]).then_some(())
    })
    .await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.schedule")
        .fetch_one(&pool)
        .await
        .expect("count");
    assert_eq!(left, 0);
    let log = store.read_log(LogKind::Commands, all[0], Offset(1), 10).await.expect("read");
    assert_eq!(log.len(), 1);
    assert!((metric("adjutant_schedule_orphans_total", "") - 25.0).abs() < 0.5);
}

/// A member that died: its partitions go to another one, and the gauge shows one member less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_a_member_that_died_are_taken_over() {
    install_metrics().expect("metrics");
    let site = Site::new().await;
    let survivor = site.start(&ALL).await;
    let dying = site.start(&ALL).await;
    eventually("both are members", async || {
        ((metric("adjutant_members", "") - 2.0).abs() < 0.5).then_some(())
    })
    .await;
    drop(dying);
    let ids = accept(&site, &survivor, (0..40).map(|i| add(&format!("c{i}"), 1)).collect()).await;
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    eventually("one is gone", async || {
        ((metric("adjutant_members", "") - 1.0).abs() < 0.5).then_some(())
    })
    .await;
    survivor.stop(Duration::from_secs(10)).await;
}

/// The relay of partition 0 keeps house by itself; what it removes is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_keeps_house_and_counts_what_it_removed() {
    install_metrics().expect("metrics");
    let site = Site::new().await;
    let mut parts = site.parts(&ALL, std::sync::Arc::new(site.road.broker())).await;
    parts.settings.retention.every = Duration::from_millis(50);
    parts.settings.retention.pause = Duration::from_millis(1);
    parts.settings.retention.batch = 7;
    let process = adjutant::service::Process::start(parts).await.expect("start");
    let batch: Vec<_> = (0..40).map(|i| add(&format!("c{}", i % 4), 1)).collect();
    let ids = accept(&site, &process, batch).await;
    site.until_ended(&ids).await;
    site.until_applied().await;
    let pool = site.database.pool().await;
    for aged in [
        "UPDATE adjutant.commands SET accepted_at = accepted_at - interval '31 days'",
        "UPDATE adjutant.command_log SET recorded_at = recorded_at - interval '31 days'",
        "UPDATE adjutant.outcomes SET completed_at = completed_at - interval '31 days'",
    ] {
        sqlx::query(aged).execute(&pool).await.expect("age");
    }
    let count = async |table: &str| -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM adjutant.{table}"));
        sqlx::query_scalar(sql).fetch_one(&pool).await.expect("count")
    };
    let used: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT partition) FROM adjutant.command_log")
            .fetch_one(&pool)
            .await
            .expect("count");
    eventually("the newest of each log is left", async || {
        (count("command_log").await == used && count("commands").await == used).then_some(())
    })
    .await;
    assert_eq!((count("outcomes").await, count("events").await), (used, 40));
    let expected = 40.0 - used as f64;
    eventually("it is counted", async || {
        let removed = |what: &str| metric("adjutant_housekeeping_removed_total", what);
        let counted = [removed("what=\"commands\""), removed("what=\"command_log\"")];
        counted.iter().all(|count| (count - expected).abs() < 0.5).then_some(())
    })
    .await;
    // It goes on working: offsets are counted from the entry that is left.
    let more = accept(&site, &process, (0..8).map(|i| add(&format!("c{i}"), 1)).collect()).await;
    site.until_ended(&more).await;
    site.until_applied().await;
    process.stop(Duration::from_secs(10)).await;
}

/// Dead letters that nobody has dealt with stay, and with them their commands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_dead_letters_that_were_dealt_with_are_removed() {
    let database = Database::with_partitions(1).await;
    let store = database.store().await;
    let pool = database.pool().await;
    for (n, state) in [1_i16, 2, 3, 4].into_iter().enumerate() {
        let id = CommandId::generate().0;
        let command =
            "INSERT INTO adjutant.commands (bucket, id, partition, stream, type, lane, payload,
                           content_hash, accepted_at)
                       VALUES (0, $1, 0, 'counter/a', 'counter.add', 1, '{}', '', $2)";
        let long_ago = time::OffsetDateTime::now_utc() - Duration::from_hours(24 * 100);
        sqlx::query(command).bind(id).bind(long_ago).execute(&pool).await.expect("a command");
        let outcome =
            "INSERT INTO adjutant.outcomes (partition, command_id, status, events, version,
                           attempts, completed_at) VALUES (0, $1, 3, 0, 0, 5, $2)";
        sqlx::query(outcome).bind(id).bind(long_ago).execute(&pool).await.expect("an outcome");
        let letter = "INSERT INTO adjutant.dead_letters (partition, id, kind, group_name, generation,
                          key, type, command_id, error, fingerprint, attempts, died_at, state, state_at)
                      VALUES (0, gen_random_uuid(), 1, 'commands', 1, $3, 'counter.add', $1, '{}', 'f',
                          5, $2, $4, $2)";
        let letter = sqlx::query(letter).bind(id).bind(long_ago).bind(n.to_string()).bind(state);
        letter.execute(&pool).await.expect("a dead letter");
    }
    let day = Duration::from_hours(24);
    let ended = store.remove_ended_commands(30 * day, None, 10).await.expect("remove");
    assert_eq!(ended.removed, 2, "those that were dealt with");
    let letters = async |age| store.remove_leftovers(Leftover::DeadLetters, age, 10).await;
    assert_eq!(letters(200 * day).await.expect("remove"), 0);
    assert_eq!(letters(90 * day).await.expect("remove"), 2);
    let left: Vec<i16> =
        sqlx::query_scalar("SELECT state FROM adjutant.dead_letters ORDER BY state")
            .fetch_all(&pool)
            .await
            .expect("look");
    assert_eq!(left, [1, 2]);
    sqlx::query(
        "INSERT INTO adjutant.dead_letter_audit (at, dead_letter_id, action, who)
         SELECT at, gen_random_uuid(), 'retry', 'ada'
           FROM unnest(ARRAY[now() - interval '2 years', now()]) AS t(at)",
    )
    .execute(&pool)
    .await
    .expect("audit");
    let audit = store.remove_leftovers(Leftover::DeadLetterAudit, 365 * day, 10).await;
    assert_eq!(audit.expect("remove"), 1);
}
