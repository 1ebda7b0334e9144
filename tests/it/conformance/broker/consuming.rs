//! What is consumed: order, hand-over, acknowledgements, dead letters.

use adjutant::{broker::local::LocalMessage, message::Route};
use futures_util::FutureExt;

use super::bed::{Testbed, Wants};
use crate::support::{
    messages::{P0, commands, log, message, next, publish},
    soon,
};

pub async fn one_consumer_is_active_and_its_successor_gets_the_rest_in_order<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=20 {
        publish(&*publisher, message(id, Route::Commands(P0))).await;
    }
    let mut first = broker.consume(&commands(P0), 10).await.unwrap();
    let mut second = bed.another().consume(&commands(P0), 10).await.unwrap();
    for id in 1..=8 {
        let delivery = next(&mut first).await;
        assert_eq!(delivery.log, Some(log(id)));
        if id == 3 {
            first.ack_through(delivery.tag).await.unwrap();
        }
    }
    // With room for more, the first alone takes more: 20 less 3 acknowledged, less 10 in its hands.
    bed.until_depth(&bed.name("commands.p00"), 7).await;
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

pub async fn what_is_redelivered_comes_before_newer_messages_and_is_counted<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    let queue = bed.name("commands.p00");
    let mut sent = 0;
    for round in 0..4 {
        for _ in 0..3 {
            sent += 1;
            publish(&*publisher, message(sent, Route::Commands(P0))).await;
        }
        let mut consumer = broker.consume(&commands(P0), 100).await.unwrap();
        for id in 1..=sent {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.log, Some(log(id)), "round {round}");
            let came_in = u32::try_from((id - 1) / 3).unwrap();
            assert_eq!(delivery.redeliveries, round - came_in, "message {id}, round {round}");
        }
        drop(consumer);
        // What is published before the broker knows would still be given to it.
        bed.until_depth(&queue, usize::try_from(sent).unwrap()).await;
    }
}

pub async fn no_more_than_the_prefetch_is_unacknowledged<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=10 {
        publish(&*publisher, message(id, Route::Commands(P0))).await;
    }
    let queue = bed.name("commands.p00");
    let mut consumer = broker.consume(&commands(P0), 3).await.unwrap();
    let mut last_tag = 0;
    for id in 1..=3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.log, Some(log(id)));
        last_tag = delivery.tag;
    }
    bed.until_depth(&queue, 7).await;
    assert!(consumer.next().now_or_never().is_none());
    consumer.ack_through(last_tag - 1).await.unwrap();
    for id in 4..=5 {
        assert_eq!(next(&mut consumer).await.log, Some(log(id)));
    }
    bed.until_depth(&queue, 5).await;
    assert!(consumer.next().now_or_never().is_none());
}

pub async fn an_acknowledgement_through_a_message_covers_exactly_those_before<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=10 {
        publish(&*publisher, message(id, Route::Commands(P0))).await;
    }
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    let mut tags = Vec::new();
    for _ in 1..=6 {
        tags.push(next(&mut consumer).await.tag);
    }
    consumer.ack_through(tags[1]).await.unwrap();
    consumer.ack_through(tags[3]).await.unwrap();
    drop(consumer);
    bed.until_depth(&bed.name("commands.p00"), 6).await;
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    for id in 5..=10 {
        assert_eq!(next(&mut consumer).await.log, Some(log(id)));
    }
}

pub async fn a_message_that_keeps_killing_its_consumer_is_dead_lettered<T: Testbed>() {
    let bed = T::with(Wants { delivery_limit: 2, ..Wants::default() }).await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=2 {
        publish(&*publisher, message(id, Route::Commands(P0))).await;
    }
    for redeliveries in 0..=2 {
        let mut consumer = broker.consume(&commands(P0), 1).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.log, delivery.redeliveries), (Some(log(1)), redeliveries));
    }
    let dead = bed.until_taken(&bed.name("commands.dlq")).await;
    assert_eq!(dead.body, "body 1");
    assert_eq!(dead.message_id.as_deref(), Some("1"));
    assert_eq!(dead.header("x-first-death-reason"), Some("delivery_limit"));
    assert_eq!(dead.header("x-first-death-queue"), Some(&*bed.name("commands.p00")));
    let mut consumer = broker.consume(&commands(P0), 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.log, delivery.redeliveries), (Some(log(2)), 0), "its neighbour is unhurt");
}

pub async fn a_foreign_message_arrives_without_a_log<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let queue = bed.name("commands.p00");
    let nothing = LocalMessage { body: "?".into(), ..LocalMessage::default() };
    let odd = LocalMessage {
        headers: vec![("adjutant-format".to_owned(), "1".to_owned())],
        ..nothing.clone()
    };
    bed.send(&queue, nothing).await;
    bed.send(&queue, odd).await;
    publish(&*broker.publisher().await.unwrap(), message(3, Route::Commands(P0))).await;
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    for expected in [None, None, Some(log(3))] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.log, expected);
        consumer.ack_through(delivery.tag).await.unwrap();
    }
}

pub async fn cancelling_a_wait_loses_no_message<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    for id in 1..=20 {
        let mut confirmed = publisher.publish(message(id, Route::Commands(P0))).await.unwrap();
        let mut arrived = None;
        // The wait is given up whenever something else happens, as in any loop that selects.
        loop {
            tokio::select! {
                biased;
                confirmation = &mut confirmed => {
                    confirmation.unwrap();
                    break;
                }
                delivery = consumer.next() => arrived = Some(delivery.unwrap()),
                () = tokio::task::yield_now() => {}
            }
        }
        let delivery = match arrived {
            Some(delivery) => delivery,
            None => soon("a delivery", consumer.next()).await.unwrap(),
        };
        assert_eq!((delivery.log, delivery.redeliveries), (Some(log(id)), 0));
        consumer.ack_through(delivery.tag).await.unwrap();
    }
}
