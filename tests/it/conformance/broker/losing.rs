//! What happens when queues, channels and connections are lost.

use adjutant::{
    broker::{Broker, BrokerError, Consumer},
    message::Route,
};

use super::bed::{Testbed, Wants, balances, events, reopened, statements, until_ended};
use crate::support::{
    eventually,
    messages::{P0, commands, log, message, next, publish},
    soon,
};

/// Publishes 1 to 20, takes 1 to 8 and acknowledges 1 to 3.
async fn half_way(broker: &dyn Broker) -> Box<dyn Consumer> {
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=20 {
        publish(&*publisher, message(id, Route::Commands(P0))).await;
    }
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    for id in 1..=8 {
        let delivery = next(&mut consumer).await;
        if id == 3 {
            consumer.ack_through(delivery.tag).await.unwrap();
        }
    }
    consumer
}

/// What was not acknowledged comes first, in order, then what is newer.
async fn the_rest_comes_in_order(broker: &dyn Broker, consumer: &mut Box<dyn Consumer>) {
    let publisher = eventually("a publisher", async || broker.publisher().await.ok()).await;
    publish(&*publisher, message(21, Route::Commands(P0))).await;
    for id in 4..=21 {
        let delivery = next(consumer).await;
        assert_eq!(delivery.log, Some(log(id)));
        assert_eq!(delivery.redeliveries, u32::from(id <= 13), "message {id}");
        consumer.ack_through(delivery.tag).await.unwrap();
    }
}

pub async fn order_survives_a_channel_that_the_broker_closed<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let mut consumer = half_way(&*broker).await;
    let mut waiting = broker.consume(&commands(P0), 10).await.unwrap();
    bed.until_depth(&bed.name("commands.p00"), 7).await;
    // AMQP demands that whoever acknowledges what it never got loses its channel.
    let _ = consumer.ack_through(1_000).await;
    until_ended(&mut consumer).await;
    assert!(consumer.ack_through(8).await.is_err(), "an ack on a lost channel is an error");
    the_rest_comes_in_order(&*broker, &mut waiting).await;
}

pub async fn order_survives_a_lost_connection<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let mut consumer = half_way(&*broker).await;
    bed.until_depth(&bed.name("commands.p00"), 7).await;
    bed.cut().await;
    until_ended(&mut consumer).await;
    assert!(consumer.ack_through(8).await.is_err(), "an ack on a lost connection is an error");
    drop(consumer);
    let mut consumer = reopened(&*broker, &commands(P0)).await;
    the_rest_comes_in_order(&*broker, &mut consumer).await;
}

pub async fn an_outage_is_reported_and_what_was_confirmed_is_there_afterwards<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    let mut consumer = half_way(&*broker).await;
    bed.until_depth(&bed.name("commands.p00"), 7).await;
    bed.down().await;
    until_ended(&mut consumer).await;
    eventually("the publisher to fail", async || {
        match publisher.publish(message(99, Route::Reply { queue: "nowhere".to_owned() })).await {
            Ok(pending) => soon("an answer", pending).await.err(),
            Err(error) => Some(error),
        }
    })
    .await;
    for opened in [
        broker.check().await,
        broker.declare(&[]).await,
        broker.publisher().await.map(drop),
        broker.consume(&commands(P0), 1).await.map(drop),
        broker.consume_intake(1).await.map(drop),
    ] {
        assert!(matches!(opened, Err(BrokerError::Unavailable(_))), "{opened:?}");
    }
    bed.up().await;
    let mut consumer = reopened(&*broker, &commands(P0)).await;
    the_rest_comes_in_order(&*broker, &mut consumer).await;
}

pub async fn a_deleted_queue_ends_its_consumer_and_the_next_one_declares_it<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    let queue = bed.name("projection.balances.p00");
    let mut consumer = broker.consume(&events(balances(), P0), 10).await.unwrap();
    let mut other = broker.consume(&events(statements(), P0), 10).await.unwrap();
    bed.delete(&queue).await;
    until_ended(&mut consumer).await;
    drop(consumer);
    publish(&*publisher, message(1, Route::Events(P0))).await;
    assert_eq!(next(&mut other).await.log, Some(log(1)), "other groups go on");
    assert_eq!(bed.depth(&queue).await, None);

    let mut consumer = reopened(&*broker, &events(balances(), P0)).await;
    publish(&*publisher, message(2, Route::Events(P0))).await;
    assert_eq!(next(&mut consumer).await.log, Some(log(2)));
    assert_eq!(next(&mut other).await.log, Some(log(2)));
}

pub async fn declaring_twice_changes_nothing<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    let source = events(balances(), P0);
    let mut consumer = broker.consume(&source, 2).await.unwrap();
    for id in 1..=5 {
        publish(&*publisher, message(id, Route::Events(P0))).await;
    }
    let first = next(&mut consumer).await;
    for broker in [bed.broker(), bed.another()] {
        broker.declare(&Wants::default().groups).await.unwrap();
        broker.declare(&Wants::default().groups).await.unwrap();
    }
    publish(&*publisher, message(6, Route::Events(P0))).await;
    bed.until_depth(&bed.name("projection.balances.p00"), 4).await;
    bed.until_depth(&bed.name("projection.statements.p00"), 6).await;
    consumer.ack_through(first.tag).await.unwrap();
    for id in 2..=6 {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.log, delivery.redeliveries), (Some(log(id)), 0));
        consumer.ack_through(delivery.tag).await.unwrap();
    }
}

pub async fn closing_one_connection_leaves_others_alone<T: Testbed>() {
    let bed = T::new().await;
    let (broker, other) = (bed.broker(), bed.another());
    let mut first = half_way(&*broker).await;
    let mut second = other.consume(&commands(P0), 10).await.unwrap();
    bed.until_depth(&bed.name("commands.p00"), 7).await;
    broker.close().await;
    let ended = soon("the first to end", async {
        loop {
            if let Err(error) = first.next().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(ended, BrokerError::Unavailable(_)), "{ended:?}");
    other.check().await.unwrap();
    the_rest_comes_in_order(&*other, &mut second).await;
}
