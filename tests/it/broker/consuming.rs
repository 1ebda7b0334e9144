//! What is consumed: foreign messages, dead letters, depths.

use super::*;

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

#[tokio::test]
async fn a_depth_tells_what_waits_and_who_consumes() {
    let road = Road::new();
    let broker = road.broker();
    broker.declare(&road.groups).await.unwrap();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=3 {
        publish(&*publisher, message(id, Route::Commands(P1))).await;
    }
    let mut consumer = broker.consume(&commands(P1), 1).await.unwrap();
    let first = next(&mut consumer).await;
    let queue = road.name("commands.p01");
    for (waiting, acknowledged) in [(2, first.tag), (1, first.tag + 1)] {
        eventually("what waits", async || {
            let depths = broker.queue_depths(&road.groups).await.unwrap();
            depths.contains(&(queue.clone(), waiting, 1)).then_some(())
        })
        .await;
        consumer.ack_through(acknowledged).await.unwrap();
        next(&mut consumer).await;
    }
}
