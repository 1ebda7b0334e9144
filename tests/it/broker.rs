//! The road on RabbitMQ, on a real one (`AMQP_URL`).

use std::time::Duration;

use adjutant::{
    broker::{
        Broker, BrokerError, Confirmation, Consumer, Delivery, GroupPartition, LogHeaders,
        OutboundMessage, Publisher,
        rabbitmq::{InvalidRabbitSettings, RabbitBroker, RabbitSettings},
    },
    message::{GroupName, LogId, Offset, Partition, PartitionCount, Route, Timestamp},
};
use futures_util::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use lapin::{
    BasicProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
        BasicRejectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    eventually,
    proxy::Proxy,
    rabbit::{Road, amqp_address, amqp_url_through, raw},
    soon,
};

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

fn commands(partition: Partition) -> GroupPartition {
    GroupPartition { group: GroupName::commands(), partition }
}

fn log(first_offset: i64) -> LogHeaders {
    LogHeaders {
        log_id: LogId("0190b3c4-0000-7000-8000-000000000001".parse().unwrap()),
        first_offset: Offset(first_offset),
        entries: 3,
        recorded_at: Timestamp::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap(),
    }
}

fn message(id: i64, route: Route) -> OutboundMessage {
    OutboundMessage {
        id,
        route,
        log: Some(log(id)),
        correlation_id: None,
        content_type: "application/msgpack".to_owned(),
        headers: Vec::new(),
        body: format!("body {id}").into_bytes().into(),
    }
}

async fn publish(publisher: &dyn Publisher, message: OutboundMessage) -> Confirmation {
    let pending = publisher.publish(message).await.unwrap();
    soon("a confirmation", pending).await.unwrap()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    soon("a delivery", consumer.next()).await.unwrap()
}

async fn delete(queue: &str) {
    let (_connection, channel) = raw().await;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn messages_arrive_in_order_with_their_headers() {
    let road = Road::new();
    let broker = road.broker();
    broker.declare(&road.groups).await.unwrap();
    broker.declare(&road.groups).await.unwrap();
    broker.check().await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    let mut pending = Vec::new();
    for id in 1..=200 {
        pending.push(publisher.publish(message(id, Route::Commands(P1))).await.unwrap());
    }
    for confirmation in join_all(pending).await {
        assert_eq!(confirmation.unwrap(), Confirmation::Published);
    }
    let mut consumer = broker.consume(&commands(P1), 50).await.unwrap();
    for id in 1..=200 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.log, Some(log(id)));
        assert_eq!(delivery.body, format!("body {id}"));
        assert_eq!(delivery.redeliveries, 0);
        if id % 25 == 0 {
            consumer.ack_through(delivery.tag).await.unwrap();
        }
    }
    let queue = road.name("commands.p01");
    eventually("everything acknowledged", async || {
        let depths = broker.queue_depths(&road.groups).await.unwrap();
        depths.contains(&(queue.clone(), 0, 1)).then_some(())
    })
    .await;
    broker.close().await;
    assert!(matches!(broker.publisher().await, Err(BrokerError::Unavailable(_))));
}

#[tokio::test]
async fn an_event_reaches_every_projection_of_its_partition() {
    let mut road = Road::new();
    road.groups = vec![GroupName::projection("balances"), GroupName::projection("statements")];
    let broker = road.broker();
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    assert_eq!(publish(&*publisher, message(1, Route::Events(P0))).await, Confirmation::Published);
    for group in &road.groups {
        let source = GroupPartition { group: group.clone(), partition: P0 };
        let mut consumer = broker.consume(&source, 10).await.unwrap();
        assert_eq!(next(&mut consumer).await.body, "body 1");
    }
}

/// lapin attaches a returned message to whichever confirm resolves next; see `verdicts.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_unroutable_messages_are_reported_with_many_in_flight() {
    let road = Road::new();
    let broker = road.broker();
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    for round in 0..4 {
        let mut pending = FuturesUnordered::new();
        for number in 1..=500_i64 {
            // A pattern that repeats in no short period, so that runs of both kinds occur.
            let unroutable = (number * number + number / 7 + round) % 5 < 2;
            let route = match (unroutable, number % 3) {
                (true, 0) => Route::Reply { queue: "it-nobody-listens".to_owned() },
                (true, _) => Route::Commands(Partition(77)),
                (false, 0) => Route::Events(P0),
                (false, _) => Route::Commands(P0),
            };
            let answer = publisher.publish(message(round * 500 + number, route)).await.unwrap();
            pending.push(answer.map(move |answer| (number, unroutable, answer)));
        }
        while let Some((number, unroutable, answer)) = soon("confirmations", pending.next()).await {
            let expected =
                if unroutable { Confirmation::Unroutable } else { Confirmation::Published };
            assert_eq!(answer.unwrap(), expected, "message {number} of round {round}");
        }
    }
}

#[tokio::test]
async fn a_reply_goes_to_the_queue_that_the_sender_named() {
    let mut road = Road::new();
    let replies = road.name("replies");
    road.also_delete(&replies);
    let (_connection, channel) = raw().await;
    let declare = QueueDeclareOptions::durable();
    channel.queue_declare(replies.as_str().into(), declare, FieldTable::default()).await.unwrap();
    let publisher = road.broker().publisher().await.unwrap();
    let mut reply = message(5, Route::Reply { queue: replies.clone() });
    reply.log = None;
    reply.correlation_id = Some("call-9".to_owned());
    reply.headers = vec![("traceparent".to_owned(), "00-abc".to_owned())];
    assert_eq!(publish(&*publisher, reply).await, Confirmation::Published);
    let got = channel.basic_get(replies.as_str().into(), BasicGetOptions::default()).await.unwrap();
    let properties = got.unwrap().delivery.properties;
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "call-9");
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "5");
    assert_eq!(*properties.delivery_mode(), Some(2));
    let headers = properties.headers().clone().unwrap();
    assert_eq!(headers.inner().len(), 1, "{headers:?}");
    // No queue can have such a name, so nobody can receive it.
    let nowhere = message(6, Route::Reply { queue: "x".repeat(300) });
    assert_eq!(publish(&*publisher, nowhere).await, Confirmation::Unroutable);
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest_messages_and_goes_on() {
    let road = Road::new();
    let mut settings = road.settings();
    settings.queue_max_messages = 10;
    let broker = road.broker_with(settings);
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=25 {
        let confirmation = publish(&*publisher, message(id, Route::Commands(P0))).await;
        assert_eq!(confirmation, Confirmation::Published, "message {id}");
    }
    let mut consumer = broker.consume(&commands(P0), 50).await.unwrap();
    for id in 16..=25 {
        assert_eq!(next(&mut consumer).await.log, Some(log(id)));
    }
}

#[tokio::test]
async fn a_successor_gets_what_was_not_acknowledged_in_order() {
    let road = Road::new();
    let broker = road.broker();
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=20 {
        publish(&*publisher, message(id, Route::Commands(P0))).await;
    }
    let mut first = broker.consume(&commands(P0), 10).await.unwrap();
    let mut second = broker.consume(&commands(P0), 10).await.unwrap();
    for id in 1..=8 {
        let delivery = next(&mut first).await;
        assert_eq!(delivery.log, Some(log(id)));
        if id == 3 {
            first.ack_through(delivery.tag).await.unwrap();
        }
    }
    assert!(second.next().now_or_never().is_none(), "only one consumer is active");
    drop(first);
    for id in 4..=20 {
        let delivery = next(&mut second).await;
        assert_eq!(delivery.log, Some(log(id)));
        // What lay in the first consumer's prefetch, delivered or not, comes a second time.
        assert_eq!(delivery.redeliveries, u32::from(id <= 13), "message {id}");
        second.ack_through(delivery.tag).await.unwrap();
    }
}

#[tokio::test]
async fn a_consumer_whose_queue_is_deleted_fails_and_the_next_one_declares_it() {
    let road = Road::new();
    let broker = road.broker();
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    delete(&road.name("commands.p00")).await;
    let error = soon("the consumer to fail", consumer.next()).await.unwrap_err();
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
    assert!(consumer.next().await.is_err(), "it stays finished");
    let mut consumer =
        eventually("a new queue", async || broker.consume(&commands(P0), 10).await.ok()).await;
    let publisher = broker.publisher().await.unwrap();
    publish(&*publisher, message(1, Route::Commands(P0))).await;
    assert_eq!(next(&mut consumer).await.log, Some(log(1)));
}

#[tokio::test]
async fn a_queue_with_other_properties_is_reported_with_what_to_do() {
    let road = Road::new();
    let (_connection, channel) = raw().await;
    let queue = road.name("commands.p01");
    let declare = QueueDeclareOptions::durable();
    channel.queue_declare(queue.as_str().into(), declare, FieldTable::default()).await.unwrap();
    let broker = road.broker();
    for error in [
        broker.declare(&road.groups).await.unwrap_err(),
        broker.consume(&commands(P1), 10).await.err().unwrap(),
    ] {
        let BrokerError::Incompatible(text) = error else { panic!("{error:?}") };
        for part in [&queue, "Delete it", "nothing is lost", "prefix"] {
            assert!(text.contains(part), "{text}");
        }
    }
    // The refusal closed a channel, not the connection, and nothing else is hurt.
    broker.consume(&commands(P0), 10).await.unwrap();
}

#[tokio::test]
async fn a_message_that_keeps_killing_its_consumer_ends_in_the_dead_letter_queue() {
    let road = Road::new();
    let mut settings = road.settings();
    settings.delivery_limit = 2;
    let broker = road.broker_with(settings);
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    publish(&*publisher, message(1, Route::Commands(P0))).await;
    for redeliveries in 0..=2 {
        let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
        assert_eq!(next(&mut consumer).await.redeliveries, redeliveries);
    }
    let (_connection, channel) = raw().await;
    let queue = road.name("commands.dlq");
    let dead = eventually("a dead letter", async || {
        channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap()
    })
    .await;
    assert_eq!(dead.delivery.data, b"body 1");
}

#[tokio::test]
async fn the_intake_shares_out_foreign_messages_and_dead_letters_at_least_once() {
    let road = Road::new();
    let mut settings = road.settings();
    settings.delivery_limit = 1;
    let broker = road.broker_with(settings);
    let mut intake = broker.consume_intake(1).await.unwrap();
    let mut other = broker.consume_intake(1).await.unwrap();
    let (_connection, channel) = raw().await;
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString("00-abc-def-01".into()));
    let properties = BasicProperties::default()
        .with_message_id("c-1".into())
        .with_content_type("application/json".into())
        .with_reply_to("answers".into())
        .with_correlation_id("call-1".into())
        .with_headers(headers);
    for body in ["one", "two"] {
        let queue = road.name("intake");
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            options,
            body.as_bytes(),
            properties.clone(),
        );
        publish.await.unwrap();
    }
    let first = soon("a foreign message", intake.next()).await.unwrap();
    assert_eq!(first.message_id.as_deref(), Some("c-1"));
    assert_eq!(first.content_type.as_deref(), Some("application/json"));
    assert_eq!(first.reply_to.as_deref(), Some("answers"));
    assert_eq!(first.correlation_id.as_deref(), Some("call-1"));
    assert_eq!(first.headers_traceparent.as_deref(), Some("00-abc-def-01"));
    let second = soon("the other message", other.next()).await.unwrap();
    assert_ne!(first.body, second.body);
    intake.ack(first.tag).await.unwrap();
    drop(other);
    let again = soon("the other message again", intake.next()).await.unwrap();
    assert_eq!((again.redeliveries, &again.body), (1, &second.body));
    drop(intake);
    let queue = road.name("intake.dlq");
    let dead = eventually("a dead letter", async || {
        channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap()
    })
    .await;
    assert_eq!(dead.delivery.data, second.body);
    dead.delivery.ack(BasicAckOptions::default()).await.unwrap();
    // And what the intake itself refuses goes there through the outbox.
    let publisher = broker.publisher().await.unwrap();
    assert_eq!(
        publish(&*publisher, message(3, Route::IntakeDeadLetter)).await,
        Confirmation::Published
    );
}

#[tokio::test]
async fn malformed_headers_make_a_message_without_a_log() {
    let road = Road::new();
    let broker = road.broker();
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    let (_connection, channel) = raw().await;
    let mut wrong_type = FieldTable::default();
    wrong_type.insert("adjutant-format".into(), AMQPValue::LongInt(1));
    wrong_type.insert("adjutant-log-id".into(), AMQPValue::LongInt(4));
    let all = [
        BasicProperties::default(),
        BasicProperties::default().with_headers(FieldTable::default()),
        BasicProperties::default().with_headers(wrong_type),
    ];
    let count = all.len();
    for properties in all {
        let exchange = road.name("commands");
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish(
            exchange.as_str().into(),
            "p00".into(),
            options,
            b"?",
            properties,
        );
        publish.await.unwrap();
    }
    for _ in 0..count {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.log, &delivery.body[..]), (None, &b"?"[..]));
        consumer.ack_through(delivery.tag).await.unwrap();
    }
}

/// A broker of this road behind a proxy, with one publisher and one consumer.
async fn behind_proxy(
    road: &Road,
    confirm_timeout: Duration,
) -> (Proxy, RabbitBroker, Box<dyn Publisher>, Box<dyn Consumer>) {
    let proxy = Proxy::to(amqp_address()).await;
    let mut settings = road.settings();
    settings.url = amqp_url_through(proxy.address());
    settings.confirm_timeout = confirm_timeout;
    let broker = road.broker_with(settings);
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    let consumer = broker.consume(&commands(P0), 10).await.unwrap();
    (proxy, broker, publisher, consumer)
}

#[tokio::test]
async fn after_a_lost_connection_everything_is_opened_again() {
    let road = Road::new();
    let (proxy, broker, publisher, mut consumer) =
        behind_proxy(&road, Duration::from_secs(10)).await;
    publish(&*publisher, message(1, Route::Commands(P0))).await;
    assert_eq!(next(&mut consumer).await.log, Some(log(1)));

    proxy.down();
    let error = soon("the consumer to fail", consumer.next()).await.unwrap_err();
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
    assert!(consumer.ack_through(1).await.is_err(), "an ack on a lost channel is an error");
    eventually("the publisher to fail", async || {
        match publisher.publish(message(2, Route::Commands(P0))).await {
            Ok(pending) => soon("an answer", pending).await.err(),
            Err(error) => Some(error),
        }
    })
    .await;
    assert!(broker.check().await.is_err());

    proxy.resume();
    let publisher = broker.publisher().await.unwrap();
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!(again.log, Some(log(1)), "it was not acknowledged");
    assert!(again.redeliveries >= 1);
    publish(&*publisher, message(3, Route::Commands(P0))).await;
    eventually("the new message", async || {
        (next(&mut consumer).await.log == Some(log(3))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_broker_lets_nobody_wait_for_ever() {
    let road = Road::new();
    let timeout = Duration::from_secs(1);
    let (proxy, broker, publisher, mut consumer) = behind_proxy(&road, timeout).await;
    proxy.pause();
    let pending = publisher.publish(message(1, Route::Commands(P0))).await.unwrap();
    let error = soon("an answer", pending).await.unwrap_err();
    assert!(matches!(error, BrokerError::ConfirmTimeout(waited) if waited == timeout), "{error:?}");
    // Two missed heartbeats of 4 s.
    let error = soon("the consumer to notice", consumer.next()).await.unwrap_err();
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
    // Many callers share one bounded attempt to connect.
    let asked = tokio::time::Instant::now();
    let source = commands(P0);
    let answers = join_all((0..8).map(|_| broker.consume(&source, 10))).await;
    assert!(answers.into_iter().all(|answer| answer.is_err()));
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());

    proxy.resume();
    let publisher = eventually("a publisher", async || broker.publisher().await.ok()).await;
    publish(&*publisher, message(2, Route::Commands(P0))).await;
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    eventually("the message", async || {
        (next(&mut consumer).await.log == Some(log(2))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_message_is_reported_as_refused() {
    let mut road = Road::new();
    let queue = road.name("full");
    road.also_delete(&queue);
    let (_connection, channel) = raw().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let declare = QueueDeclareOptions::durable();
    channel.queue_declare(queue.as_str().into(), declare, arguments).await.unwrap();
    let publisher = road.broker().publisher().await.unwrap();
    let route = Route::Reply { queue };
    assert_eq!(publish(&*publisher, message(1, route.clone())).await, Confirmation::Published);
    assert_eq!(publish(&*publisher, message(2, route)).await, Confirmation::Refused);
}

#[tokio::test]
async fn an_unreachable_broker_is_reported_without_credentials() {
    let url = "amqp://someone:s3cret-word@127.0.0.1:1/nowhere";
    let broker = RabbitBroker::new(RabbitSettings::new(url), PartitionCount::DEFAULT).unwrap();
    let text = broker.check().await.unwrap_err().to_string();
    assert!(!text.contains("s3cret-word") && !text.contains("someone"), "{text}");
    let invalid = RabbitBroker::new(RabbitSettings::new("s3cret-word"), PartitionCount::DEFAULT);
    assert_eq!(invalid.err(), Some(InvalidRabbitSettings::Url));
}

#[tokio::test]
async fn a_rejected_message_ends_in_the_dead_letter_queue_of_its_group() {
    let road = Road::new();
    let broker = road.broker();
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    publish(&*publisher, message(1, Route::Events(P1))).await;
    let (_connection, channel) = raw().await;
    let queue = road.name("projection.balances.p01");
    let consume = BasicConsumeOptions::default();
    let mut foreign = channel
        .basic_consume(queue.as_str().into(), "".into(), consume, FieldTable::default())
        .await
        .unwrap();
    let delivery = soon("a delivery", foreign.next()).await.unwrap().unwrap();
    delivery.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    let dead_letters = road.name("projection.balances.dlq");
    eventually("a dead letter", async || {
        let depths = broker.queue_depths(&road.groups).await.unwrap();
        depths.contains(&(dead_letters.clone(), 1, 0)).then_some(())
    })
    .await;
}

/// Raises a memory alarm, which stops every publisher of the broker, so it needs one of its own:
/// `ADJUTANT_RABBITMQCTL="scripts/rabbitmq4 ctl"` beside `AMQP_URL`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a broker of its own, see above"]
async fn a_blocked_publisher_waits_no_longer_than_the_confirm_timeout_and_recovers() {
    async fn watermark(value: &str) {
        let command = std::env::var("ADJUTANT_RABBITMQCTL").unwrap();
        let line = format!("{command} set_vm_memory_high_watermark {value}");
        let status = tokio::process::Command::new("sh").args(["-c", &line]).status().await.unwrap();
        assert!(status.success());
    }
    let road = Road::new();
    let mut settings = road.settings();
    settings.confirm_timeout = Duration::from_secs(1);
    let broker = road.broker_with(settings);
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    publish(&*publisher, message(1, Route::Commands(P0))).await;

    watermark("0").await;
    let asked = tokio::time::Instant::now();
    let mut errors = Vec::new();
    for id in 2..=20 {
        match publisher.publish(message(id, Route::Commands(P0))).await {
            Ok(pending) => errors.push(pending),
            Err(error) => errors.push(async { Err(error) }.boxed()),
        }
    }
    for answer in join_all(errors).await {
        assert!(answer.is_err(), "{answer:?}");
    }
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    drop(publisher);
    let error = broker.publisher().await.err().unwrap().to_string();
    assert!(error.contains("blocks publishers"), "{error}");
    broker.check().await.unwrap();

    watermark("0.6").await;
    let publisher = eventually("a publisher", async || broker.publisher().await.ok()).await;
    publish(&*publisher, message(21, Route::Commands(P0))).await;
    let mut consumer = broker.consume(&commands(P0), 100).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&21) {
        seen.push(next(&mut consumer).await.log.unwrap().first_offset.0);
    }
    assert!(seen.is_sorted(), "what was under way arrives late, but in order: {seen:?}");
}
