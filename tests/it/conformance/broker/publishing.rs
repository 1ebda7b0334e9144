//! What is published: where it arrives, and what the broker says about it.

use std::collections::BTreeSet;

use adjutant::{
    broker::{BrokerError, Confirmation},
    message::{Partition, Route},
};
use futures_util::future::join_all;

use super::bed::{Testbed, Wants, balances, events, statements, until_ended};
use crate::support::{
    messages::{P0, P1, commands, log, message, next, publish},
    soon,
};

pub async fn messages_arrive_in_the_order_in_which_they_were_published<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
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
    drop(consumer);
    bed.until_depth(&bed.name("commands.p01"), 0).await;
    assert_eq!(bed.depth(&bed.name("commands.p00")).await, Some(0));
}

pub async fn every_projection_group_gets_each_event<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=3 {
        publish(&*publisher, message(id, Route::Events(P0))).await;
    }
    for group in [balances(), statements()] {
        let mut consumer = broker.consume(&events(group, P0), 10).await.unwrap();
        for id in 1..=3 {
            assert_eq!(next(&mut consumer).await.log, Some(log(id)));
        }
    }
    for elsewhere in ["commands.p00", "projection.balances.p01", "projection.statements.p01"] {
        assert_eq!(bed.depth(&bed.name(elsewhere)).await, Some(0), "{elsewhere}");
    }
}

/// Looked at in queues that RabbitMQ lets anybody look into at once, which those with a single
/// active consumer are not.
pub async fn a_confirmed_message_is_in_its_queue<T: Testbed>() {
    let bed = T::new().await;
    let (answers, dead_letters) = (bed.name("answers"), bed.name("intake.dlq"));
    bed.reply_queue(&answers, 10).await;
    let publisher = bed.broker().publisher().await.unwrap();
    for id in 1..=10 {
        let reply = Route::Reply { queue: answers.clone() };
        for (route, queue) in [(reply, &answers), (Route::IntakeDeadLetter, &dead_letters)] {
            assert_eq!(publish(&*publisher, message(id, route)).await, Confirmation::Published);
            let there = bed.take(queue).await.expect("without waiting");
            assert_eq!(there.body, format!("body {id}"));
        }
    }
}

pub async fn an_unroutable_message_is_reported_and_confuses_no_neighbour<T: Testbed>() {
    let bed = T::new().await;
    let publisher = bed.broker().publisher().await.unwrap();
    let mut pending = Vec::new();
    for id in 1..=300_i64 {
        // A pattern that repeats in no short period, so that runs of both kinds occur.
        let unroutable = (id * id + id / 7) % 5 < 2;
        let route = match (unroutable, id % 3) {
            (true, 0) => Route::Reply { queue: "it-nobody-listens".to_owned() },
            (true, 1) => Route::Reply { queue: "x".repeat(300) },
            (true, _) => Route::Commands(Partition(77)),
            (false, 0) => Route::Events(P0),
            (false, _) => Route::Commands(P0),
        };
        let answer = publisher.publish(message(id, route)).await.unwrap();
        pending.push((id, unroutable, answer));
    }
    for (id, unroutable, answer) in pending {
        let expected = if unroutable { Confirmation::Unroutable } else { Confirmation::Published };
        assert_eq!(soon("a confirmation", answer).await.unwrap(), expected, "message {id}");
    }
}

pub async fn a_reply_survives_the_road_with_all_its_headers<T: Testbed>() {
    let bed = T::new().await;
    let queue = bed.name("answers");
    bed.reply_queue(&queue, 10).await;
    let publisher = bed.broker().publisher().await.unwrap();
    let mut reply = message(5, Route::Reply { queue: queue.clone() });
    reply.log = None;
    reply.correlation_id = Some("call-9".to_owned());
    reply.headers = vec![
        ("reason".to_owned(), "ünreadable".to_owned()),
        ("traceparent".to_owned(), "00-abc".to_owned()),
    ];
    assert_eq!(publish(&*publisher, reply.clone()).await, Confirmation::Published);
    let mut seen = bed.take(&queue).await.expect("it was confirmed");
    seen.headers.sort();
    assert_eq!(seen.message_id.as_deref(), Some("5"));
    assert_eq!(seen.content_type, Some(reply.content_type));
    assert_eq!(seen.correlation_id, reply.correlation_id);
    assert_eq!(seen.headers, reply.headers);
    assert_eq!((seen.reply_to, seen.body), (None, reply.body));
}

pub async fn a_full_reply_queue_refuses<T: Testbed>() {
    let bed = T::new().await;
    let queue = bed.name("answers");
    bed.reply_queue(&queue, 1).await;
    let publisher = bed.broker().publisher().await.unwrap();
    let reply = |id| message(id, Route::Reply { queue: queue.clone() });
    assert_eq!(publish(&*publisher, reply(1)).await, Confirmation::Published);
    assert_eq!(publish(&*publisher, reply(2)).await, Confirmation::Refused);
    assert_eq!(publish(&*publisher, message(3, Route::Events(P0))).await, Confirmation::Published);
    assert_eq!(bed.until_taken(&queue).await.body, "body 1");
    assert_eq!(publish(&*publisher, reply(4)).await, Confirmation::Published);
}

/// Law 1 makes this harmless: the group reads in its log what was dropped.
pub async fn a_full_queue_drops_its_oldest_message<T: Testbed>() {
    let bed = T::with(Wants { queue_max_messages: 10, ..Wants::default() }).await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    for id in 1..=25 {
        let confirmation = publish(&*publisher, message(id, Route::Commands(P0))).await;
        assert_eq!(confirmation, Confirmation::Published, "message {id}");
    }
    let mut consumer = broker.consume(&commands(P0), 50).await.unwrap();
    for id in 16..=25 {
        assert_eq!(next(&mut consumer).await.log, Some(log(id)));
    }
    // What it dropped is in its dead-letter queue, which is as long and drops, too.
    let dead_letters = bed.name("commands.dlq");
    bed.until_depth(&dead_letters, 10).await;
    for id in 6..=15 {
        let dead = bed.take(&dead_letters).await.unwrap();
        assert_eq!(dead.body, format!("body {id}"));
        assert_eq!(dead.header("x-first-death-reason"), Some("maxlen"));
        assert_eq!(dead.header("x-first-death-queue"), Some(&*bed.name("commands.p00")));
    }
}

pub async fn nothing_is_published_on_a_closed_broker<T: Testbed>() {
    let bed = T::new().await;
    let broker = bed.broker();
    let publisher = broker.publisher().await.unwrap();
    let mut consumer = broker.consume(&commands(P0), 10).await.unwrap();
    publish(&*publisher, message(1, Route::Commands(P1))).await;
    broker.close().await;
    let answer = match publisher.publish(message(2, Route::Commands(P1))).await {
        Ok(pending) => soon("an answer", pending).await,
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(BrokerError::Unavailable(_))), "{answer:?}");
    until_ended(&mut consumer).await;
    assert!(matches!(broker.publisher().await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(broker.consume(&commands(P0), 1).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(broker.consume_intake(1).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(broker.declare(&[]).await, Err(BrokerError::Unavailable(_))));
    assert!(matches!(broker.check().await, Err(BrokerError::Unavailable(_))));
    bed.until_depth(&bed.name("commands.p01"), 1).await;
}

pub async fn many_publishers_and_consumers_lose_nothing<T: Testbed>() {
    const PUBLISHERS: i64 = 4;
    const EACH: i64 = 250;
    let bed = T::new().await;
    let mut publishing = Vec::new();
    for which in 0..PUBLISHERS {
        let publisher = bed.broker().publisher().await.unwrap();
        publishing.push(tokio::spawn(async move {
            let mut pending = Vec::new();
            for id in which * EACH + 1..=(which + 1) * EACH {
                let route = Route::Commands(if id % 2 == 0 { P0 } else { P1 });
                pending.push(publisher.publish(message(id, route)).await.unwrap());
            }
            for confirmation in join_all(pending).await {
                assert_eq!(confirmation.unwrap(), Confirmation::Published);
            }
        }));
    }
    let mut consuming = Vec::new();
    for partition in [P0, P1] {
        let broker = bed.broker();
        consuming.push(tokio::spawn(async move {
            let (mut seen, mut newest) = (BTreeSet::new(), vec![0; PUBLISHERS as usize]);
            while seen.len() < (PUBLISHERS * EACH / 2) as usize {
                // A consumer works for a while and then gives way to the next.
                let mut consumer = broker.consume(&commands(partition), 16).await.unwrap();
                let mut since_ack = 0;
                for _ in 0..100 {
                    if seen.len() == (PUBLISHERS * EACH / 2) as usize {
                        break;
                    }
                    let delivery = next(&mut consumer).await;
                    let id = delivery.log.unwrap().first_offset.0;
                    let newest = &mut newest[((id - 1) / EACH) as usize];
                    // Of one publisher nothing new comes out of order; what was not acknowledged
                    // comes again.
                    assert_eq!(seen.insert(id), id > *newest, "message {id} after {newest}");
                    *newest = id.max(*newest);
                    since_ack += 1;
                    if since_ack == 7 {
                        consumer.ack_through(delivery.tag).await.unwrap();
                        since_ack = 0;
                    }
                }
            }
            seen
        }));
    }
    join_all(publishing).await.into_iter().for_each(|ended| ended.unwrap());
    let mut all = BTreeSet::new();
    for ended in soon("all messages", join_all(consuming)).await {
        all.extend(ended.unwrap());
    }
    assert_eq!(all, (1..=PUBLISHERS * EACH).collect());
}
