//! What happens when the broker is away, silent, blocked, or holds something else.

use super::*;

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
    // Everything else is declared all the same, what comes after it, too.
    let depths = broker.queue_depths(&road.groups).await.unwrap();
    let each = usize::try_from(road.partitions.get()).unwrap() + 1;
    assert_eq!(depths.len(), 2 + road.groups.len() * each, "{depths:?}");
    // The refusal closed a channel, not the connection, and nothing else is hurt.
    broker.consume(&commands(P0), 10).await.unwrap();
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
    // As any caller must: after an error (1 s is short for a busy broker) open another.
    eventually("a message published again", async || {
        let publisher = broker.publisher().await.ok()?;
        publisher.publish(message(2, Route::Commands(P0))).await.ok()?.await.ok()
    })
    .await;
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    eventually("the message", async || {
        (next(&mut consumer).await.log == Some(log(2))).then_some(())
    })
    .await;
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

/// Raises a memory alarm, which stops every publisher of the broker, so it needs one of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_publisher_waits_no_longer_than_the_confirm_timeout_and_recovers() {
    let rabbit = PrivateRabbit::start().await;
    let watermark = async |value: &str| {
        rabbit.ctl(&["set_vm_memory_high_watermark", value]).await;
    };
    let road = Road::new();
    let mut settings = road.settings();
    settings.url = rabbit.url().to_owned();
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
