//! A prefix of one's own on the RabbitMQ at `AMQP_URL`, its queues gone after the test.

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

pub(crate) struct Broker {
    pub(crate) prefix: String,
}

pub(crate) fn url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

impl Broker {
    pub(crate) fn new() -> Self {
        Self { prefix: format!("bank-{}", &uuid::Uuid::now_v7().simple().to_string()[..16]) }
    }

    async fn clean(prefix: &str) {
        let connection =
            Connection::connect(&url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut queues = vec![format!("{prefix}.intake"), format!("{prefix}.intake.dlq")];
        for group in ["commands", "projection.balances", "projection.statements"] {
            queues.extend((0..8).map(|partition| format!("{prefix}.{group}.p{partition:02}")));
            queues.push(format!("{prefix}.{group}.dlq"));
        }
        for queue in queues {
            let _ =
                channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
        }
        for exchange in ["commands", "events"] {
            let exchange = format!("{prefix}.{exchange}");
            let options = ExchangeDeleteOptions::default();
            let _ = channel.exchange_delete(exchange.as_str().into(), options).await;
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let prefix = self.prefix.clone();
        // A runtime of its own: `drop` cannot await.
        let cleaning = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Self::clean(&prefix));
        });
        let _ = cleaning.join();
    }
}
