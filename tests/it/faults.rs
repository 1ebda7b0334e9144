//! Faults of the services under load, through a proxy that fails like a network.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::Broker,
    dead_letter::DeadLetterState,
    immediate::{Executed, ImmediateSettings},
    message::CommandId,
    service::{Process, ProcessParts, ProcessSettings},
    store::{
        Acted, ActedBy, DeadLetters, Intake, NewCommand, RetryRequest, Role, StoreError,
        postgres::PostgresStore,
    },
};

use crate::support::{
    commands::{add, flaky},
    database::Database,
    domain, eventually,
    lane::{Lane, immediate},
    letters::all_dead,
    process::{ALL, Site},
    proxy::Proxy,
    rabbit,
    sql::Sql,
};

/// A process whose database and broker are both behind proxies.
struct Behind {
    site: Site,
    database: Proxy,
    broker: Proxy,
    store: Arc<PostgresStore>,
    process: Process,
}

impl Behind {
    async fn proxies(roles: &[Role]) -> Self {
        let site = Site::new().await;
        // The request that ends a transaction, as a simple query.
        let database = Proxy::losing_replies(postgres_address(&site.database), b"COMMIT\0").await;
        let broker = Proxy::to(rabbit::amqp_address()).await;
        let url = through(&site.database, database.address());
        let store = site.database.store_through(&url).await;
        let mut settings = site.road.settings();
        settings.url = rabbit::amqp_url_through(broker.address());
        settings.confirm_timeout = Duration::from_secs(2);
        let process = Process::start(ProcessParts {
            service: domain::service(),
            store: store.clone(),
            broker: Arc::new(site.road.broker_with(settings)) as Arc<dyn Broker>,
            roles: roles.to_vec(),
            name: "behind proxies".into(),
            settings: ProcessSettings::default(),
        })
        .await
        .expect("start");
        Self { site, database, broker, store, process }
    }

    /// Accepts as an ingress does: the same batch again until the store says what became of it.
    async fn accept(&self, commands: Vec<NewCommand>) -> Vec<CommandId> {
        while let Err(error) = self.store.accept(commands.clone()).await {
            eprintln!("accepting again after: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.process.signals().outbox_written();
        commands.iter().map(|command| command.id).collect()
    }

    /// Load with a fault in every fourth round.
    async fn load(&self, rounds: usize, mut fault: impl AsyncFnMut(usize)) -> Vec<CommandId> {
        let mut ids = Vec::new();
        for round in 0..rounds {
            ids.extend(
                self.accept((0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await,
            );
            if round % 4 == 1 {
                fault(round).await;
            }
        }
        ids
    }

    async fn check(self, ids: &[CommandId]) {
        self.site.until_ended(ids).await;
        self.site.until_applied().await;
        self.site.assert_lawful().await;
        self.process.stop(Duration::from_secs(10)).await;
    }
}

fn postgres_address(database: &Database) -> String {
    let url: tokio_postgres::Config = database.url.parse().expect("url");
    let host = match &url.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
        #[cfg(unix)]
        tokio_postgres::config::Host::Unix(_) => "127.0.0.1".to_owned(),
    };
    format!("{host}:{}", url.get_ports().first().copied().unwrap_or(5432))
}

fn through(database: &Database, address: std::net::SocketAddr) -> String {
    database.url.replace(&postgres_address(database), &address.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_database_that_break_lose_and_double_nothing() {
    let behind = Behind::proxies(&ALL).await;
    let ids = behind.load(24, async |_| behind.database.drop_connections()).await;
    behind.check(&ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_broker_that_break_lose_and_double_nothing() {
    let behind = Behind::proxies(&ALL).await;
    let ids = behind.load(24, async |_| behind.broker.drop_connections()).await;
    behind.check(&ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_and_comes_back_is_waited_for() {
    let behind = Behind::proxies(&ALL).await;
    let ids = behind.accept((0..50).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await;
    behind.database.down();
    tokio::time::sleep(Duration::from_secs(3)).await;
    behind.database.resume();
    let more = behind.accept((0..50).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await;
    behind.check(&[ids, more].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_broker_holds_up_neither_intake_nor_order() {
    let behind = Behind::proxies(&ALL).await;
    let mut ids = behind.accept((0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await;
    behind.broker.pause();
    let paused = tokio::time::Instant::now();
    for _ in 0..10 {
        ids.extend(behind.accept((0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await);
    }
    assert!(paused.elapsed() < Duration::from_secs(5), "intake went on: {:?}", paused.elapsed());
    behind.site.until_ended(&ids).await; // read from the log while the broker is paused
    behind.broker.resume();
    ids.extend(behind.accept((0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await);
    behind.check(&ids).await;
}

/// Law 5: a process that was stopped (its connections are silent) and wakes up late writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_wakes_up_late_writes_nothing_twice() {
    let behind = Behind::proxies(&[Role::CommandWorker, Role::ProjectionWorker]).await;
    let others = behind.site.start(&ALL).await;
    let accept = async |n: usize| {
        let commands: Vec<_> = (0..n).map(|i| add(&format!("c{}", i % 9), 1)).collect();
        behind.site.store.accept(commands.clone()).await.expect("accept");
        others.signals().outbox_written();
        commands.iter().map(|command| command.id).collect::<Vec<_>>()
    };
    let mut ids = accept(60).await;
    behind.database.pause();
    behind.broker.pause();
    for _ in 0..5 {
        ids.extend(accept(40).await);
    }
    behind.site.until_ended(&ids).await; // the other process takes over
    behind.database.resume();
    behind.broker.resume();
    ids.extend(accept(60).await);
    behind.site.until_ended(&ids).await;
    behind.site.until_applied().await;
    behind.site.assert_lawful().await;
    others.stop(Duration::from_secs(10)).await;
    behind.process.stop(Duration::from_secs(10)).await;
}

/// A COMMIT that took place and whose answer never came: whoever sent it must find out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_whose_commit_was_not_answered_are_accepted_once() {
    let behind = Behind::proxies(&[]).await;
    let worker = behind.site.start(&ALL).await;
    let mut ids = Vec::new();
    for round in 1..=5 {
        behind.database.lose_replies(1);
        ids.extend(behind.accept((0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await);
        assert_eq!(behind.database.replies_lost(), round);
    }
    behind.site.until_ended(&ids).await;
    behind.site.until_applied().await;
    behind.site.assert_lawful().await;
    let pool = behind.site.database.pool().await;
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log")
        .fetch_one(&pool)
        .await
        .expect("count");
    assert_eq!(entries, 100, "each command is in the log once");
    worker.stop(Duration::from_secs(10)).await;
    behind.process.stop(Duration::from_secs(10)).await;
}

/// The same for what workers commit: decisions, and views with their checkpoints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_whose_commits_were_not_answered_do_nothing_twice() {
    for (lossy, sound) in [
        (Role::CommandWorker, vec![Role::Relay, Role::ProjectionWorker]),
        (Role::ProjectionWorker, vec![Role::Relay, Role::CommandWorker]),
    ] {
        let behind = Behind::proxies(&[lossy]).await;
        let others = behind.site.start(&sound).await;
        let mut ids = Vec::new();
        for round in 1..=5 {
            behind.database.lose_replies(1);
            let commands: Vec<_> = (0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect();
            ids.extend(commands.iter().map(|command| command.id));
            behind.site.store.accept(commands).await.expect("accept");
            others.signals().outbox_written();
            eventually("the reply is lost", async || {
                (behind.database.replies_lost() >= round).then_some(())
            })
            .await;
        }
        behind.site.until_ended(&ids).await;
        behind.site.until_applied().await;
        behind.site.assert_lawful().await;
        others.stop(Duration::from_secs(10)).await;
        behind.process.stop(Duration::from_secs(10)).await;
    }
}

/// The same in the immediate lane: whoever waits is told the outcome of the one execution, and what
/// was to be answered at once is executed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn immediate_commands_whose_commit_was_not_answered_are_executed_once() {
    let behind = Behind::proxies(&[Role::Ingress]).await;
    let others = behind.site.start(&[Role::Relay, Role::ProjectionWorker]).await;
    let settings = ImmediateSettings::default();
    let lane = Lane::on(behind.store.clone(), &behind.process, settings);
    let mut ids = Vec::new();
    for round in 1..=5 {
        behind.database.lose_replies(1);
        let command = add("a", 1);
        ids.push(command.id);
        let executed = lane.execute(command).await;
        let Ok(Executed::Ended(acceptance, outcome)) = executed else { panic!("{executed:?}") };
        assert!(!acceptance.replay, "it is this caller's own");
        assert_eq!(outcome.version.0, 2 * round - 1);
        assert_eq!(behind.database.replies_lost(), 2 * round as usize - 1);
        behind.database.lose_replies(1);
        let command = immediate(add("a", 1));
        ids.push(command.id);
        let answers = lane.processor.dispatch_together(vec![command]).await.expect("room");
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(behind.database.replies_lost(), 2 * round as usize);
        behind.site.until_ended(&ids).await;
    }
    behind.site.until_applied().await;
    behind.site.assert_lawful().await;
    let pool = behind.site.database.pool().await;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.events")
        .fetch_one(&pool)
        .await
        .expect("events");
    assert_eq!(events, 10);
    others.stop(Duration::from_secs(10)).await;
    behind.process.stop(Duration::from_secs(10)).await;
}

/// The same for deaths: each command is one dead letter and one failed attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_whose_commit_was_not_answered_are_one_dead_letter_each() {
    let behind = Behind::proxies(&[Role::CommandWorker]).await;
    let others = behind.site.start(&[Role::Relay, Role::ProjectionWorker]).await;
    let mut ids = Vec::new();
    for round in 1..=5 {
        behind.database.lose_replies(1);
        let key = CommandId::generate().to_string();
        let commands: Vec<_> =
            (0..4).map(|i| flaky("flaky", &format!("c{i}"), &key, u32::MAX, "fatal")).collect();
        ids.extend(commands.iter().map(|command| command.id));
        behind.site.store.accept(commands).await.expect("accept");
        others.signals().outbox_written();
        eventually("the reply is lost", async || {
            (behind.database.replies_lost() >= round).then_some(())
        })
        .await;
    }
    behind.site.until_ended(&ids).await;
    let pool = behind.site.database.pool().await;
    let counts: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM adjutant.outcomes WHERE status = 3),
                (SELECT count(*) FROM adjutant.dead_letters),
                (SELECT count(*) FROM adjutant.attempts)",
    )
    .fetch_one(&pool)
    .await
    .expect("counts");
    assert_eq!(counts, (20, 20, 20), "outcomes, dead letters, attempts");
    others.stop(Duration::from_secs(10)).await;
    behind.process.stop(Duration::from_secs(10)).await;
}

/// The same for people: asked again, they are told that somebody was first, and it took place once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_on_dead_letters_whose_commit_was_not_answered_take_place_once() {
    let behind = Behind::proxies(&[]).await;
    let pool = behind.site.database.pool().await;
    let commands = (0..2).map(|i| add(&format!("c{i}"), 1)).collect();
    let letters = all_dead(&behind.site.store, &Sql::postgres(pool.clone()), commands).await;
    let by = ActedBy { who: "ada".into(), reason: Some("a try".into()), job: None };
    let retries = [RetryRequest { id: letters[0].id, payload: None }];

    behind.database.lose_replies(1);
    let lost = behind.store.retry_dead_commands(&retries, &by).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    let again = behind.store.retry_dead_commands(&retries, &by).await.expect("retry");
    assert_eq!(again, [Acted::NotOpen(DeadLetterState::Retrying)]);
    behind.database.lose_replies(1);
    let lost = behind.store.discard_dead_letters(&[letters[1].id], &by).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    let again = behind.store.discard_dead_letters(&[letters[1].id], &by).await.expect("discard");
    assert_eq!(again, [Acted::NotOpen(DeadLetterState::Discarded)]);
    assert_eq!(behind.database.replies_lost(), 2);

    let worker = behind.site.start(&ALL).await;
    behind.site.until_ended(&[letters[0].command_id]).await;
    let counts: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM adjutant.dead_letter_audit),
                (SELECT count(*) FROM adjutant.command_log WHERE command_id = $1),
                (SELECT count(*) FROM adjutant.events WHERE command_id = $1)",
    )
    .bind(letters[0].command_id.0)
    .fetch_one(&pool)
    .await
    .expect("counts");
    assert_eq!(counts, (2, 2, 1), "audit rows, executions owed, events");
    worker.stop(Duration::from_secs(10)).await;
    behind.process.stop(Duration::from_secs(10)).await;
}

/// A broker that keeps its connections and says nothing must not slow the log to its idle pace: a
/// chain of commands, each sent when the one before has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_followed_closely_while_the_broker_is_silent() {
    let behind = Behind::proxies(&ALL).await;
    behind.site.until_ended(&behind.accept(vec![add("c0", 1)]).await).await;
    behind.broker.pause();
    behind.broker.drop_connections(); // consumers must be opened again, and cannot be
    let links = 40;
    let began = tokio::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..links {
        let id = behind.accept(vec![add("c0", 1)]).await;
        behind.site.until_ended(&id).await;
        ids.extend(id);
    }
    behind.site.until_applied().await;
    // At the idle pace, one look a second, it would be more than a second a link.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(links / 2), "{took:?}");
    behind.broker.resume();
    ids.extend(behind.accept((0..20).map(|i| add(&format!("c{}", i % 6), 1)).collect()).await);
    behind.check(&ids).await;
}

/// `severity` is in the server's language; what a fence means must not depend on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_another_language_is_understood() {
    let site = Site::new().await;
    let proxy = Proxy::replacing(postgres_address(&site.database), b"SERROR\0", b"SFEHLR\0").await;
    let store = site.database.store_through(&through(&site.database, proxy.address())).await;
    let group = adjutant::message::GroupName::projection("counters");
    let commit = || adjutant::store::ViewCommit {
        view: "counters".into(),
        documents: vec![],
        checkpoints: vec![adjutant::store::CheckpointMove {
            group: group.clone(),
            partition: adjutant::message::Partition(0),
            from: adjutant::message::Offset(7),
            to: adjutant::message::Offset(8),
        }],
        ..Default::default()
    };
    let error = adjutant::store::Views::commit_view(&*store, commit()).await.unwrap_err();
    let fenced = matches!(error, adjutant::store::StoreError::Fenced(_));
    assert!(fenced, "{error:?}");
}
