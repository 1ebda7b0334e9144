//! A prefix of one's own on the RabbitMQ at `AMQP_URL` (default: guest on this machine).

use std::sync::atomic::{AtomicU32, Ordering};

use adjutant::{
    broker::rabbitmq::{RabbitBroker, RabbitSettings},
    message::{GroupName, PartitionCount},
};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

/// Where RabbitMQ is.
pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

/// Where RabbitMQ listens, as `host:port`, for a proxy.
pub fn amqp_address() -> String {
    let uri: lapin::uri::AMQPUri = amqp_url().parse().unwrap();
    format!("{}:{}", uri.authority.host, uri.authority.port)
}

/// The same URL, but through `address`.
pub fn amqp_url_through(address: std::net::SocketAddr) -> String {
    let mut uri: lapin::uri::AMQPUri = amqp_url().parse().unwrap();
    uri.authority.host = address.ip().to_string();
    uri.authority.port = address.port();
    uri.to_string()
}

/// Queues and exchanges behind a prefix that no other test uses; deleted at the end of the test,
/// also when it fails.
pub struct Road {
    pub prefix: String,
    pub groups: Vec<GroupName>,
    pub partitions: PartitionCount,
    further: Vec<String>,
}

impl Road {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            prefix: format!("it-{}-{number}", std::process::id()),
            groups: vec![GroupName::commands(), GroupName::projection("balances")],
            partitions: PartitionCount::new(2).unwrap(),
            further: Vec::new(),
        }
    }

    pub fn settings(&self) -> RabbitSettings {
        let mut settings = RabbitSettings::new(amqp_url());
        settings.prefix.clone_from(&self.prefix);
        settings
    }

    pub fn broker(&self) -> RabbitBroker {
        self.broker_with(self.settings())
    }

    pub fn broker_with(&self, settings: RabbitSettings) -> RabbitBroker {
        RabbitBroker::new(settings, self.partitions).unwrap()
    }

    /// The name behind the prefix.
    pub fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// A queue that must be deleted too.
    pub fn also_delete(&mut self, queue: &str) {
        self.further.push(queue.to_owned());
    }

    fn all_queues(&self) -> Vec<String> {
        let mut queues = vec![self.name("intake"), self.name("intake.dlq")];
        for group in &self.groups {
            queues
                .extend(self.partitions.all().map(|p| self.name(&format!("{group}.p{:02}", p.0))));
            queues.push(self.name(&format!("{group}.dlq")));
        }
        queues.extend(self.further.iter().cloned());
        queues
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        let queues = self.all_queues();
        let exchanges = [self.name("commands"), self.name("events")];
        // A runtime of its own: the test's may be shutting down, and `drop` cannot await.
        let cleaning = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_connection, channel) = raw().await;
                for queue in queues {
                    let options = QueueDeleteOptions::default();
                    let _ = channel.queue_delete(queue.as_str().into(), options).await;
                }
                for exchange in exchanges {
                    let options = ExchangeDeleteOptions::default();
                    let _ = channel.exchange_delete(exchange.as_str().into(), options).await;
                }
            });
        });
        let _ = cleaning.join();
    }
}

/// A connection and channel beside the broker under test.
pub async fn raw() -> (Connection, Channel) {
    let connection =
        Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}
