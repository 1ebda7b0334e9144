//! The main path on PostgreSQL with the in-process broker: the same laws on another road.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::{
        Confirmation,
        local::{LocalBroker, LocalMessage, LocalSettings},
    },
    ingress::{CommitSettings, GroupCommit, OutboxLimit, Validator, amqp},
    message::{CommandId, OutcomeStatus},
    store::{Queries, Role, Store},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    main_path::accept,
    support::{
        commands::add,
        domain, eventually,
        process::{ALL, Site},
        soon,
    },
};

fn road(site: &Site) -> LocalBroker {
    LocalBroker::new(LocalSettings::default(), site.road.partitions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_commands_are_executed_once_in_order_and_become_visible() {
    let site = Site::new().await;
    let road = road(&site);
    let process = site.start_with(&ALL, Arc::new(road.connect())).await;
    let mut ids = Vec::new();
    for round in 0..20 {
        let batch = (0..25).map(|i| add(&format!("c{}", i % 7), round + 1)).collect();
        ids.extend(accept(&site, &process, batch).await);
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    let document = site.store.view("counters", "c0").await.expect("view").expect("there");
    assert_eq!(document.version, 80);
    let outcome = site.store.command(ids[0]).await.expect("command").expect("there").outcome;
    assert_eq!(outcome.expect("ended").status, OutcomeStatus::Succeeded);
    process.stop(Duration::from_secs(10)).await;
    for queue in road.queue_names() {
        let left = (road.depth(&queue), road.unacknowledged(&queue));
        assert_eq!(left, (Some(0), Some(0)), "{queue}: everything was acknowledged");
    }
}

/// Law 1. Broken by a group that trusts the road only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_every_queue_under_load_loses_nothing_and_reorders_nothing() {
    let site = Site::new().await;
    let road = road(&site);
    let process = site.start_with(&ALL, Arc::new(road.connect())).await;
    let mut ids = Vec::new();
    for round in 0..16 {
        let batch = (0..20).map(|i| add(&format!("c{}", i % 5), 1)).collect();
        ids.extend(accept(&site, &process, batch).await);
        match round % 8 {
            1 => {
                for queue in road.queue_names() {
                    road.delete_queue(&queue);
                }
            }
            3 => {
                for queue in road.queue_names() {
                    road.close_consumers(&queue);
                }
            }
            5 => road.lose_everything(),
            _ => {}
        }
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

/// Law 5: processes that share a road and come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_between_processes_without_a_double_effect() {
    let site = Site::new().await;
    let road = road(&site);
    let first = site.start_with(&ALL, Arc::new(road.connect())).await;
    let workers = [Role::CommandWorker, Role::ProjectionWorker];
    let mut ids = Vec::new();
    let mut others = Vec::new();
    for round in 0..6 {
        let batch = (0..30).map(|i| add(&format!("c{}", i % 9), 1)).collect();
        ids.extend(accept(&site, &first, batch).await);
        if round % 2 == 0 {
            others.push(site.start_with(&workers, Arc::new(road.connect())).await);
        } else if let Some(other) = others.pop() {
            other.stop(Duration::from_secs(10)).await;
        }
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    site.assert_lawful().await;
    for process in others {
        process.stop(Duration::from_secs(10)).await;
    }
    first.stop(Duration::from_secs(10)).await;
}

/// A part of the process that sends commands by the intake, as another system would by AMQP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_sent_to_the_intake_is_executed_and_answered() {
    let site = Site::new().await;
    let road = road(&site);
    let process = site.start_with(&ALL, Arc::new(road.connect())).await;
    let store: Arc<dyn Store> = site.store.clone();
    let (commit, _task) = GroupCommit::start(
        store.clone(),
        process.signals().clone(),
        OutboxLimit::default(),
        &CommitSettings::default(),
    );
    let stop = CancellationToken::new();
    let intake = tokio::spawn(amqp::run(amqp::AmqpIntakeParts {
        broker: Arc::new(road.connect()),
        store,
        validator: Validator::new(domain::service().registry().clone()),
        commit,
        immediate: None,
        max_body_bytes: 256 * 1024,
        stop: stop.clone(),
    }));

    let mut answers = road.replies("answers", 10).expect("a reply queue");
    let id = CommandId::generate();
    let body = json!({ "type": "counter.add", "stream": "counter/a", "payload": { "amount": 5 } });
    let sent = LocalMessage {
        message_id: Some(id.to_string()),
        content_type: Some("application/json".to_owned()),
        reply_to: Some(answers.queue().to_owned()),
        correlation_id: Some("call-1".to_owned()),
        body: body.to_string().into(),
        ..LocalMessage::default()
    };
    eventually("the intake's queue", async || {
        let confirmation = road.send("adjutant.intake", sent.clone()).expect("send");
        (confirmation == Confirmation::Published).then_some(())
    })
    .await;
    let answer = soon("the outcome", answers.next()).await.expect("an answer");
    assert_eq!(answer.correlation_id.as_deref(), Some("call-1"));
    let outcome: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(
        (&outcome["status"], &outcome["outcome"]["reply"]),
        (&json!("succeeded"), &json!(5))
    );
    site.until_ended(&[id]).await;
    stop.cancel();
    soon("the intake to end", intake).await.expect("no panic");
    process.stop(Duration::from_secs(10)).await;
}
