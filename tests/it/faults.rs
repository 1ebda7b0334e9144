//! Faults of the services under load, through a proxy that fails like a network.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::Broker,
    message::CommandId,
    service::{Process, ProcessParts, ProcessSettings},
    store::{Intake, NewCommand, Role, postgres::PostgresStore},
};

use crate::support::{
    commands::add,
    database::Database,
    domain,
    process::{ALL, Site},
    proxy::Proxy,
    rabbit,
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
        let database = Proxy::to(postgres_address(&site.database)).await;
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
