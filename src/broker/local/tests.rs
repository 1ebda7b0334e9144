//! What only this broker has; what every broker must do stands in `tests/it/conformance/broker`.

use futures_util::FutureExt as _;

use super::*;
use crate::{
    broker::OutboundMessage,
    message::{Partition, Route},
};

fn broker() -> LocalBroker {
    with(LocalSettings::default())
}

fn with(settings: LocalSettings) -> LocalBroker {
    LocalBroker::new(settings, PartitionCount::new(2).expect("valid"))
}

fn commands() -> GroupPartition {
    GroupPartition { group: GroupName::commands(), partition: Partition(0) }
}

fn message(id: i64, route: Route) -> OutboundMessage {
    OutboundMessage {
        id,
        route,
        log: None,
        correlation_id: None,
        content_type: "text/plain".to_owned(),
        headers: Vec::new(),
        body: format!("body {id}").into(),
    }
}

fn foreign(body: &'static str) -> LocalMessage {
    LocalMessage { body: body.into(), ..LocalMessage::default() }
}

async fn publish(publisher: &dyn Publisher, id: i64) -> Result<Confirmation, BrokerError> {
    publisher.publish(message(id, Route::Commands(Partition(0)))).await?.await
}

#[tokio::test]
async fn a_crash_takes_all_queues_and_whoever_used_them() {
    let broker = broker();
    broker.declare(&[GroupName::commands()]).await.expect("open");
    assert_eq!(
        broker.queue_names(),
        [
            "adjutant.commands.dlq",
            "adjutant.commands.p00",
            "adjutant.commands.p01",
            "adjutant.intake",
            "adjutant.intake.dlq",
        ]
    );
    let publisher = broker.publisher().await.expect("open");
    let mut consumer = broker.consume(&commands(), 1).await.expect("open");
    publish(&*publisher, 1).await.expect("published");
    broker.lose_everything();
    assert!(consumer.next().await.is_err());
    assert!(consumer.ack_through(1).await.is_err());
    assert!(publish(&*publisher, 2).await.is_err());
    assert!(broker.queue_names().is_empty());
    broker.check().await.expect("it can be used again");
    let publisher = broker.publisher().await.expect("open");
    assert_eq!(publish(&*publisher, 3).await.expect("answered"), Confirmation::Unroutable);
    let mut consumer = broker.consume(&commands(), 1).await.expect("declared again");
    assert_eq!(publish(&*publisher, 4).await.expect("answered"), Confirmation::Published);
    assert_eq!(consumer.next().await.expect("there").body, "body 4");
}

#[tokio::test]
async fn whoever_waits_is_woken_by_the_end_of_its_queue() {
    let broker = broker();
    type Harm = fn(&LocalBroker);
    let harms: [Harm; 5] = [
        |broker| assert!(broker.delete_queue("adjutant.commands.p00")),
        |broker| assert_eq!(broker.close_consumers("adjutant.commands.p00"), 1),
        LocalBroker::lose_everything,
        |broker| {
            broker.go_away();
            broker.come_back();
        },
        |broker| broker.close().now_or_never().expect("it does not wait"),
    ];
    for harm in harms {
        let mut consumer = broker.consume(&commands(), 1).await.expect("open");
        let waiting = tokio::spawn(async move { consumer.next().await });
        tokio::task::yield_now().await;
        harm(&broker);
        assert!(waiting.await.expect("no panic").is_err());
    }
}

#[tokio::test]
async fn a_queue_is_bounded_in_bytes_too() {
    let settings = LocalSettings { queue_max_bytes: 25, ..LocalSettings::default() };
    let broker = with(settings);
    broker.declare(&[GroupName::commands()]).await.expect("open");
    let publisher = broker.publisher().await.expect("open");
    for id in 1..=9 {
        publish(&*publisher, id).await.expect("published");
    }
    assert_eq!(broker.depth("adjutant.commands.p00"), Some(4), "24 of 25 bytes");
    assert_eq!(broker.take("adjutant.commands.p00").expect("there").body, "body 6");
    assert_eq!(broker.purge("adjutant.commands.p00"), Some(3));
    assert_eq!(broker.purge("adjutant.commands.p09"), None);
    publish(&*publisher, 10).await.expect("published");
    assert_eq!(broker.depth("adjutant.commands.p00"), Some(1));
}

/// It may be the only copy of a command.
#[tokio::test]
async fn dead_letters_of_the_intake_wait_for_their_queue() {
    let settings = LocalSettings { delivery_limit: 0, ..LocalSettings::default() };
    let broker = with(settings);
    let mut intake = broker.consume_intake(10).await.expect("open");
    assert!(broker.delete_queue("adjutant.intake.dlq"));
    for body in ["one", "two"] {
        broker.send("adjutant.intake", foreign(body)).expect("open");
        intake.next().await.expect("there");
    }
    drop(intake);
    assert_eq!(broker.depth("adjutant.intake"), Some(0));
    broker.declare(&[]).await.expect("open");
    let bodies = [(); 3].map(|()| broker.take("adjutant.intake.dlq").map(|dead| dead.body));
    assert_eq!(bodies, [Some("one".into()), Some("two".into()), None]);
}

/// What several consumers held lies in between of what others hold or have acknowledged.
#[tokio::test]
async fn what_consumers_of_the_intake_return_stands_where_it_stood() {
    let broker = broker();
    let mut first = broker.consume_intake(2).await.expect("open");
    let mut second = broker.consume_intake(2).await.expect("open");
    for body in ["1", "2", "3", "4", "5", "6"] {
        broker.send("adjutant.intake", foreign(body)).expect("open");
    }
    for expected in ["1", "3"] {
        assert_eq!(first.next().await.expect("there").body, expected);
    }
    let two = second.next().await.expect("there");
    assert_eq!(two.body, "2");
    second.ack(two.tag).await.expect("known");
    drop(first);
    drop(second);
    let mut third = broker.consume_intake(10).await.expect("open");
    for (expected, redeliveries) in [("1", 1), ("3", 1), ("4", 1), ("5", 1), ("6", 0)] {
        let delivery = third.next().await.expect("there");
        assert_eq!(delivery.body, expected);
        assert!(delivery.redeliveries >= redeliveries, "{delivery:?}");
    }
}

#[tokio::test]
async fn a_reply_queue_lives_as_long_as_its_reader() {
    let broker = broker();
    let publisher = broker.publisher().await.expect("open");
    let reply = |id| publisher.publish(message(id, Route::Reply { queue: "answers".to_owned() }));
    let mut replies = broker.replies("answers", 1).expect("free");
    assert!(matches!(broker.replies("answers", 1), Err(BrokerError::Incompatible(_))));
    assert!(matches!(broker.replies(&"x".repeat(256), 1), Err(BrokerError::Incompatible(_))));
    let answer = async |id| reply(id).await.expect("open").await.expect("answered");
    assert_eq!(answer(1).await, Confirmation::Published);
    assert_eq!(answer(2).await, Confirmation::Refused);
    assert_eq!(replies.next().await.expect("there").message_id.as_deref(), Some("1"));
    assert_eq!(answer(3).await, Confirmation::Published);
    drop(replies);
    assert_eq!(answer(4).await, Confirmation::Unroutable);
    let _again = broker.replies("answers", 1).expect("free again");
}

#[tokio::test]
async fn an_acknowledgement_of_nothing_ends_the_consumer() {
    let broker = broker();
    let mut consumer = broker.consume(&commands(), 10).await.expect("open");
    let publisher = broker.publisher().await.expect("open");
    for id in 1..=3 {
        publish(&*publisher, id).await.expect("published");
    }
    let first = consumer.next().await.expect("there");
    consumer.ack_through(first.tag).await.expect("known");
    consumer.ack_through(first.tag).await.expect("known, though acknowledged");
    assert!(consumer.ack_through(first.tag + 1).await.is_err(), "not taken yet");
    assert!(consumer.next().await.is_err());
    assert_eq!(broker.depth("adjutant.commands.p00"), Some(2));
}

/// Several tasks that publish, consume, sleep and do harm; whatever happens is written down.
async fn a_run() -> Vec<String> {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };
    let broker = with(LocalSettings { queue_max_messages: 5, ..LocalSettings::default() });
    let groups = ["a", "b", "c"].map(GroupName::projection);
    broker.declare(&groups).await.expect("open");
    let trace = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for group in groups.iter().chain(&groups) {
        let (broker, trace, group) = (broker.connect(), Arc::clone(&trace), group.clone());
        tasks.spawn(async move {
            for life in 0..4 {
                let source = GroupPartition { group: group.clone(), partition: Partition(0) };
                let mut consumer = broker.consume(&source, 3).await.expect("open");
                let lifetime = tokio::time::sleep(Duration::from_millis(30 + life));
                tokio::pin!(lifetime);
                loop {
                    let line = tokio::select! {
                        biased;
                        () = &mut lifetime => break,
                        delivery = consumer.next() => match delivery {
                            Ok(delivery) => {
                                let acked = consumer.ack_through(delivery.tag).await.is_ok();
                                format!("{source} {delivery:?} {acked}")
                            }
                            Err(error) => {
                                trace.lock().expect("whole").push(format!("{source} {error}"));
                                break;
                            }
                        },
                    };
                    trace.lock().expect("whole").push(line);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        });
    }
    let publishing = Arc::clone(&trace);
    tasks.spawn(async move {
        let publisher = broker.publisher().await.expect("open");
        for id in 1..=100 {
            let sent = publisher.publish(message(id, Route::Events(Partition(0)))).await;
            let answer = sent.expect("open").await.expect("answered");
            publishing.lock().expect("whole").push(format!("{id} {answer:?}"));
            tokio::time::sleep(Duration::from_millis(1)).await;
            match id {
                40 => assert_eq!(broker.close_consumers("adjutant.projection.b.p00"), 2),
                60 => assert!(broker.delete_queue("adjutant.projection.a.p00")),
                _ => {}
            }
        }
        for queue in broker.queue_names() {
            let left = (broker.depth(&queue), broker.unacknowledged(&queue));
            publishing.lock().expect("whole").push(format!("{queue} {left:?}"));
        }
    });
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    Arc::into_inner(trace).expect("all tasks ended").into_inner().expect("whole")
}

#[test]
fn two_runs_under_a_paused_clock_are_the_same() {
    let run = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(a_run())
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 200, "{} lines", first.len());
    assert_eq!(first, second);
}

#[test]
fn what_happens_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let run = async {
        let settings = LocalSettings { queue_max_messages: 2, ..LocalSettings::default() };
        let broker = with(LocalSettings { delivery_limit: 0, ..settings });
        let publisher = broker.publisher().await.expect("open");
        publish(&*publisher, 1).await.expect("answered"); // nobody takes it
        broker.declare(&[GroupName::commands()]).await.expect("open");
        for id in 2..=7 {
            publish(&*publisher, id).await.expect("answered"); // 2 to 5 die, of which 2 and 3 drop
        }
        let mut consumer = broker.consume(&commands(), 1).await.expect("open");
        consumer.next().await.expect("there");
        drop(consumer); // 6 dies, 4 drops
        broker
    };
    let _broker = metrics::with_local_recorder(&recorder, || run.now_or_never());
    let shown = shown.render();
    for line in [
        r#"adjutant_broker_published_total{route="commands",result="published"} 6"#,
        r#"adjutant_broker_published_total{route="commands",result="unroutable"} 1"#,
        r#"adjutant_broker_deliveries_total{group="commands"} 1"#,
        r#"adjutant_broker_dead_lettered_total{queue="adjutant.commands.p00",reason="maxlen"} 4"#,
        r#"adjutant_broker_dead_lettered_total{queue="adjutant.commands.p00",reason="delivery_limit"} 1"#,
        r#"adjutant_broker_dropped_total{queue="adjutant.commands.dlq"} 3"#,
        r#"adjutant_queue_messages{queue="adjutant.commands.p00"} 1"#,
        r#"adjutant_queue_messages{queue="adjutant.commands.dlq"} 2"#,
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} in\n{shown}");
    }
}
