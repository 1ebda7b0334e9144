//! Commands that come by AMQP.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::{
        Broker, BrokerError, Confirmation, Consumer, GroupPartition, IntakeConsumer,
        OutboundMessage, PendingConfirmation, Publisher,
    },
    immediate::AsyncCommandProcessor,
    ingress::{CommitSettings, GroupCommit, OutboxLimit, Validator, amqp},
    message::{CommandId, GroupName, Route},
    service::Process,
    store::{Role, Store},
    webhook::TargetRules,
};
use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{
    domain, eventually,
    lane::Lane,
    process::{ALL, Site},
    proxy::Proxy,
    rabbit,
};

/// An intake beside a process, stopped when dropped.
struct RunningIntake {
    stop: CancellationToken,
}

impl Drop for RunningIntake {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn start_intake(site: &Site, process: &Process, broker: Arc<dyn Broker>) -> RunningIntake {
    let store: Arc<dyn Store> = site.store.clone();
    let (commit, _task) = GroupCommit::start(
        store.clone(),
        process.signals().clone(),
        OutboxLimit::default(),
        &CommitSettings::default(),
    );
    start_intake_with(store, broker, commit, None)
}

fn start_intake_with(
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    commit: GroupCommit,
    immediate: Option<AsyncCommandProcessor>,
) -> RunningIntake {
    let stop = CancellationToken::new();
    tokio::spawn(amqp::run(amqp::AmqpIntakeParts {
        broker,
        store,
        validator: Validator::new(domain::service().registry().clone())
            .with_immediate_lane(immediate.is_some())
            .with_callbacks(Some(TargetRules::default())),
        commit,
        immediate,
        max_body_bytes: 256 * 1024,
        stop: stop.clone(),
    }));
    RunningIntake { stop }
}

async fn send(channel: &Channel, queue: &str, properties: BasicProperties, body: &[u8]) {
    channel
        .basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties)
        .await
        .expect("publish")
        .await
        .expect("confirm");
}

fn properties(id: CommandId, content_type: &str) -> BasicProperties {
    BasicProperties::default()
        .with_message_id(id.to_string().into())
        .with_content_type(content_type.into())
}

fn deposit(amount: i64) -> Value {
    json!({ "type": "counter.add", "stream": "counter/a", "payload": { "amount": amount } })
}

async fn next_from(channel: &Channel, queue: &str) -> Delivery {
    eventually("a message", async || {
        let options = BasicGetOptions { no_ack: true };
        let message = channel.basic_get(queue.into(), options).await.expect("get");
        message.map(|message| message.delivery)
    })
    .await
}

fn header(delivery: &Delivery, name: &str) -> String {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let value =
        headers.inner().get(name).and_then(|value| value.as_long_string().map(ToString::to_string));
    value.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_a_command_and_its_outcome_is_answered() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let _intake = start_intake(&site, &process, Arc::new(site.road.broker()));
    let (_connection, channel) = rabbit::raw().await;
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let replies =
        channel.queue_declare("".into(), options, FieldTable::default()).await.expect("declare");
    let replies = replies.name().to_string();
    let intake = site.road.name("intake");

    let (json_id, msgpack_id) = (CommandId::generate(), CommandId::generate());
    let ask = properties(json_id, "application/json")
        .with_reply_to(replies.as_str().into())
        .with_correlation_id("42".into());
    send(&channel, &intake, ask.clone(), deposit(5).to_string().as_bytes()).await;
    let answer = next_from(&channel, &replies).await;
    assert_eq!(
        answer.properties.correlation_id().as_ref().map(ToString::to_string),
        Some("42".into())
    );
    let body: Value = serde_json::from_slice(&answer.data).expect("JSON");
    assert_eq!(body["id"], json_id.to_string());
    assert_eq!(body["status"], "succeeded");
    assert_eq!(body["outcome"]["version"], 1);
    assert_eq!(body["outcome"]["reply"], 5);
    assert_eq!(body["outcome"]["positions"].as_array().map(Vec::len), Some(1));

    // The same message again (its sender never saw the acknowledgement), and one in MessagePack.
    send(&channel, &intake, ask, deposit(5).to_string().as_bytes()).await;
    let mut calling = deposit(7);
    calling["callback_url"] = "https://Hooks.Example".into();
    let packed = rmp_serde::to_vec_named(&calling).expect("MessagePack");
    send(&channel, &intake, properties(msgpack_id, "application/msgpack"), &packed).await;
    site.until_ended(&[json_id, msgpack_id]).await;
    site.until_applied().await;
    site.assert_lawful().await;
    let pool = site.database.pool().await;
    let sum: i64 =
        sqlx::query_scalar("SELECT sum((data->>'amount')::bigint)::bigint FROM adjutant.events")
            .fetch_one(&pool)
            .await
            .expect("sum");
    assert_eq!(sum, 12);
    let owed: Vec<(uuid::Uuid, String)> =
        sqlx::query_as("SELECT command_id, url FROM adjutant.callbacks")
            .fetch_all(&pool)
            .await
            .expect("look");
    assert_eq!(owed, [(msgpack_id.0, "https://hooks.example/".to_owned())]);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_name_the_immediate_lane_and_is_answered() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress, Role::Relay]).await;
    let lane = Lane::of(&site, &process).await;
    let broker = Arc::new(site.road.broker());
    let processor = Some(lane.processor.clone());
    let _intake = start_intake_with(site.store.clone(), broker, lane.commit.clone(), processor);
    let (_connection, channel) = rabbit::raw().await;
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    let replies =
        channel.queue_declare("".into(), options, FieldTable::default()).await.expect("declare");
    let replies = replies.name().to_string();
    let id = CommandId::generate();
    let ask = properties(id, "application/json").with_reply_to(replies.as_str().into());
    let mut command = deposit(5);
    command["lane"] = json!("immediate");
    send(&channel, &site.road.name("intake"), ask, command.to_string().as_bytes()).await;
    let answer = next_from(&channel, &replies).await;
    let body: Value = serde_json::from_slice(&answer.data).expect("JSON");
    assert_eq!((&body["id"], &body["status"]), (&json!(id.to_string()), &json!("succeeded")));
    let pool = site.database.pool().await;
    let logged: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.command_log")
        .fetch_one(&pool)
        .await
        .expect("count");
    assert_eq!(logged, 0, "there is no command worker, and none is needed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_accepted_goes_to_the_dead_letter_queue_with_its_reason() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let _intake = start_intake(&site, &process, Arc::new(site.road.broker()));
    let (_connection, channel) = rabbit::raw().await;
    let intake = site.road.name("intake");
    let id = CommandId::generate();
    let good = deposit(1).to_string();
    let cases: Vec<(BasicProperties, Vec<u8>, &str)> = vec![
        (properties(CommandId::generate(), "application/json"), b"{".to_vec(), "malformed_json"),
        (properties(CommandId::generate(), "application/json"), vec![0xff, 0xfe], "malformed_json"),
        (
            properties(CommandId::generate(), "text/plain"),
            good.clone().into(),
            "unsupported_media_type",
        ),
        (properties(CommandId::generate(), "application/msgpack"), vec![0xc1], "malformed_json"),
        (BasicProperties::default(), good.clone().into(), "invalid_header"),
        (
            properties(CommandId::generate(), "application/json"),
            deposit(0).to_string().into(),
            "rule_violation",
        ),
        (
            properties(CommandId::generate(), "application/json"),
            json!({ "type": "counter.add", "stream": "counter/a", "payload": { "amount": 1 },
                    "callback_url": "https://127.0.0.1/" })
            .to_string()
            .into(),
            "rule_violation",
        ),
        (
            properties(CommandId::generate(), "application/json"),
            json!({ "type": "counter.no", "stream": "counter/a", "payload": {} })
                .to_string()
                .into(),
            "unknown_command_type",
        ),
        (properties(CommandId::generate(), "application/json"), vec![b' '; 300_000], "too_large"),
    ];
    for (properties, body, reason) in cases {
        send(&channel, &intake, properties, &body).await;
        let dead = next_from(&channel, &site.road.name("intake.dlq")).await;
        assert_eq!(header(&dead, "adjutant-reason"), reason);
        assert_eq!(dead.data, body, "{reason}");
    }
    // An id that is taken by another command.
    send(&channel, &intake, properties(id, "application/json"), deposit(1).to_string().as_bytes())
        .await;
    site.until_ended(&[id]).await;
    send(&channel, &intake, properties(id, "application/json"), deposit(2).to_string().as_bytes())
        .await;
    let dead = next_from(&channel, &site.road.name("intake.dlq")).await;
    assert_eq!(header(&dead, "adjutant-reason"), "id_conflict");
    let pool = site.database.pool().await;
    let commands: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.commands")
        .fetch_one(&pool)
        .await
        .expect("count");
    assert_eq!(commands, 1, "nothing else was accepted");
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_whose_queue_is_gone_is_dropped_and_holds_nothing_up() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let _intake = start_intake(&site, &process, Arc::new(site.road.broker()));
    let (_connection, channel) = rabbit::raw().await;
    let intake = site.road.name("intake");
    let (first, second) = (CommandId::generate(), CommandId::generate());
    let ask = properties(first, "application/json").with_reply_to("nobody-reads-here".into());
    send(&channel, &intake, ask, deposit(1).to_string().as_bytes()).await;
    send(
        &channel,
        &intake,
        properties(second, "application/json"),
        deposit(1).to_string().as_bytes(),
    )
    .await;
    site.until_ended(&[first, second]).await;
    site.until_applied().await;
    let pool = site.database.pool().await;
    eventually("the outbox is empty", async || {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.outbox")
            .fetch_one(&pool)
            .await
            .ok()?;
        (rows == 0).then_some(())
    })
    .await;
    process.stop(Duration::from_secs(10)).await;
}

/// Law 2. What carries no log entry has only the outbox: its row stays until the broker confirmed
/// it. Broken by a relay that deletes rows when it has sent them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_deleted_only_when_the_broker_has_confirmed_it() {
    let site = Site::new().await;
    let proxy = Proxy::to(rabbit::amqp_address()).await;
    let mut settings = site.road.settings();
    settings.url = rabbit::amqp_url_through(proxy.address());
    settings.confirm_timeout = Duration::from_secs(2);
    let broker: Arc<dyn Broker> = Arc::new(site.road.broker_with(settings));
    let relay = site.start_with(&[Role::Relay], broker).await;
    let (_connection, channel) = rabbit::raw().await;
    let queue = site.road.name("intake.dlq");
    let pool = site.database.pool().await;
    let rows = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM adjutant.outbox")
            .fetch_one(&pool)
            .await
            .expect("count")
    };
    let reject = |text: &'static str| adjutant::store::RejectedMessage {
        body: text.into(),
        content_type: "text/plain".into(),
        headers: vec![("adjutant-reason".into(), text.into())],
    };
    use adjutant::store::Intake;
    site.store.reject_messages(vec![reject("before")]).await.expect("reject");
    relay.signals().outbox_written();
    assert_eq!(header(&next_from(&channel, &queue).await, "adjutant-reason"), "before");
    eventually("deleted", async || (rows().await == 0).then_some(())).await;

    proxy.pause(); // sent, and never confirmed
    site.store.reject_messages(vec![reject("during")]).await.expect("reject");
    relay.signals().outbox_written();
    // Longer than the confirm timeout and the deletion's delay together.
    let until = tokio::time::Instant::now() + Duration::from_secs(4);
    while tokio::time::Instant::now() < until {
        assert_eq!(rows().await, 1, "deleted without a confirmation");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    proxy.drop_connections();
    proxy.resume();
    assert_eq!(header(&next_from(&channel, &queue).await, "adjutant-reason"), "during");
    eventually("deleted", async || (rows().await == 0).then_some(())).await;
    relay.stop(Duration::from_secs(10)).await;
}

/// The real broker, but for one kind of message, which it refuses.
struct RefusesDeadLetters(adjutant::broker::rabbitmq::RabbitBroker);

#[async_trait::async_trait]
impl Broker for RefusesDeadLetters {
    async fn declare(&self, groups: &[GroupName]) -> Result<(), BrokerError> {
        self.0.declare(groups).await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        struct Refusing(Box<dyn Publisher>);

        #[async_trait::async_trait]
        impl Publisher for Refusing {
            async fn publish(
                &self,
                message: OutboundMessage,
            ) -> Result<PendingConfirmation, BrokerError> {
                match message.route {
                    Route::IntakeDeadLetter => {
                        Ok(Box::pin(std::future::ready(Ok(Confirmation::Refused))))
                    }
                    _ => self.0.publish(message).await,
                }
            }
        }
        Ok(Box::new(Refusing(self.0.publisher().await?)))
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

/// A full dead-letter queue: its message waits and is not lost, and no other waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_the_broker_refuses_waits_and_holds_nothing_up() {
    let site = Site::new().await;
    let refusing = Arc::new(RefusesDeadLetters(site.road.broker()));
    let process = site.start_with(&ALL, refusing.clone()).await;
    let intake = start_intake(&site, &process, refusing);
    let (_connection, channel) = rabbit::raw().await;
    let queue = site.road.name("intake");
    for round in 0..5 {
        send(&channel, &queue, BasicProperties::default(), b"no command").await;
        let id = CommandId::generate();
        let good = json!({ "type": "counter.add", "stream": "counter/a",
                           "payload": { "amount": 1 } });
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(id.to_string().into());
        send(&channel, &queue, properties, good.to_string().as_bytes()).await;
        site.until_ended(&[id]).await;
        let pool = site.database.pool().await;
        eventually("only dead letters are left, all of them", async || {
            let rows: Vec<(i16, i64)> =
                sqlx::query_as("SELECT route, count(*) FROM adjutant.outbox GROUP BY route")
                    .fetch_all(&pool)
                    .await
                    .ok()?;
            (rows == [(4, round + 1)]).then_some(())
        })
        .await;
    }
    drop(intake);
    process.stop(Duration::from_secs(10)).await;
    // With a broker that takes them, they arrive.
    let process = site.start(&[Role::Relay]).await;
    for _ in 0..5 {
        let letter = next_from(&channel, &site.road.name("intake.dlq")).await;
        assert_eq!(letter.data, b"no command");
    }
    process.stop(Duration::from_secs(10)).await;
}
