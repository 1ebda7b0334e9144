//! Commands of other systems.

use adjutant::{
    broker::{Confirmation, local::LocalMessage},
    message::Route,
};

use super::bed::{Testbed, Wants};
use crate::support::{
    messages::{message, publish},
    soon,
};

fn command(id: &str, body: &'static str) -> LocalMessage {
    LocalMessage {
        message_id: Some(id.to_owned()),
        content_type: Some("application/json".to_owned()),
        reply_to: Some("answers".to_owned()),
        correlation_id: Some("call-1".to_owned()),
        headers: vec![("traceparent".to_owned(), "00-abc-def-01".to_owned())],
        log: None,
        body: body.into(),
    }
}

pub async fn the_intake_is_shared_and_each_message_acknowledged_alone<T: Testbed>() {
    let bed = T::new().await;
    let queue = bed.name("intake");
    let mut intake = bed.broker().consume_intake(2).await.unwrap();
    let mut other = bed.another().consume_intake(2).await.unwrap();
    for body in ["one", "two", "three", "four"] {
        bed.send(&queue, command("c-1", body)).await;
    }
    let first = soon("a message", intake.next()).await.unwrap();
    assert_eq!(first.message_id.as_deref(), Some("c-1"));
    assert_eq!(first.content_type.as_deref(), Some("application/json"));
    assert_eq!(first.reply_to.as_deref(), Some("answers"));
    assert_eq!(first.correlation_id.as_deref(), Some("call-1"));
    assert_eq!(first.headers_traceparent.as_deref(), Some("00-abc-def-01"));
    let second = soon("another message", intake.next()).await.unwrap();
    let mut theirs = Vec::new();
    for _ in 0..2 {
        theirs.push(soon("a message", other.next()).await.unwrap());
    }
    let mut bodies = vec![&first.body, &second.body, &theirs[0].body, &theirs[1].body];
    bodies.sort();
    assert_eq!(bodies, ["four", "one", "three", "two"], "each goes to one consumer");

    // The second of them alone is acknowledged; the first comes again, to the other consumer.
    intake.ack(second.tag).await.unwrap();
    drop(intake);
    for delivery in &theirs {
        other.ack(delivery.tag).await.unwrap();
    }
    let again = soon("the first message again", other.next()).await.unwrap();
    assert_eq!((again.redeliveries, &again.body), (1, &first.body));
    other.ack(again.tag).await.unwrap();
    drop(other);
    bed.send(&queue, command("c-2", "five")).await;
    let mut last = bed.broker().consume_intake(10).await.unwrap();
    let delivery = soon("the last message", last.next()).await.unwrap();
    assert_eq!(delivery.body, "five", "nothing else was left");
}

pub async fn the_intake_can_acknowledge_through_a_message<T: Testbed>() {
    let bed = T::new().await;
    for body in ["one", "two", "three"] {
        bed.send(&bed.name("intake"), command("c-1", body)).await;
    }
    let mut intake = bed.broker().consume_intake(10).await.unwrap();
    let mut tags = Vec::new();
    for body in ["one", "two", "three"] {
        let delivery = soon("a message", intake.next()).await.unwrap();
        assert_eq!(delivery.body, body);
        tags.push(delivery.tag);
    }
    intake.ack_through(tags[1]).await.unwrap();
    drop(intake);
    let mut intake = bed.broker().consume_intake(10).await.unwrap();
    assert_eq!(soon("the third", intake.next()).await.unwrap().body, "three");
}

pub async fn an_intake_message_that_keeps_killing_its_consumer_is_dead_lettered<T: Testbed>() {
    let bed = T::with(Wants { delivery_limit: 1, ..Wants::default() }).await;
    bed.send(&bed.name("intake"), command("c-1", "bad")).await;
    for redeliveries in 0..=1 {
        let mut intake = bed.broker().consume_intake(10).await.unwrap();
        let delivery = soon("the message", intake.next()).await.unwrap();
        assert_eq!(delivery.redeliveries, redeliveries);
    }
    let dead = bed.until_taken(&bed.name("intake.dlq")).await;
    assert_eq!((dead.message_id.as_deref(), &dead.body[..]), (Some("c-1"), &b"bad"[..]));
    assert_eq!(dead.header("x-first-death-reason"), Some("delivery_limit"));
    assert_eq!(dead.header("traceparent"), Some("00-abc-def-01"));
}

/// What the intake itself refuses leaves by the outbox; if it has nowhere to go, the relay keeps it.
pub async fn an_intake_dead_letter_goes_to_its_queue_or_is_unroutable<T: Testbed>() {
    let bed = T::new().await;
    let publisher = bed.broker().publisher().await.unwrap();
    let queue = bed.name("intake.dlq");
    let mut refused = message(3, Route::IntakeDeadLetter);
    refused.log = None;
    refused.headers = vec![("reason".to_owned(), "unknown type".to_owned())];
    assert_eq!(publish(&*publisher, refused.clone()).await, Confirmation::Published);
    let dead = bed.take(&queue).await.expect("it was confirmed");
    assert_eq!(dead.header("reason"), Some("unknown type"));
    bed.delete(&queue).await;
    assert_eq!(publish(&*publisher, refused).await, Confirmation::Unroutable);
}
