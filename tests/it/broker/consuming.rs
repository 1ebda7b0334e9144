//! What is consumed: order, hand-over, dead letters, foreign messages.

use super::*;

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
