//! People are told of what is wrong, once, and once when it is over; whatever a webhook does, nobody
//! waits for it.

#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
mod service;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use adjutant::{
    execute::RetryPolicy,
    message::{LogId, PartitionCount},
    observe::{
        install_metrics,
        notify::{
            self, ConditionSource, NotifyParts, NotifySettings, NotifyWebhook, Seen, WebhookKind,
        },
    },
    store::{
        Store,
        sqlite::{ClockSource, SqliteStore},
    },
    webhook::{Endpoint, Reach, WebhookClient, WebhookLimits, WebhookMessage},
};
use async_trait::async_trait;
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::support::{
    eventually,
    receiver::{Answer, Receiver, SECRET},
};

const MILLI: Duration = Duration::from_millis(1);

/// A condition that a test switches on and off.
#[derive(Clone, Default)]
struct Switch(Arc<Mutex<Option<Vec<&'static str>>>>);

impl Switch {
    /// These subjects have it; `None`: nobody can look.
    fn set(&self, subjects: Option<&[&'static str]>) {
        *self.0.lock().unwrap() = subjects.map(<[_]>::to_vec);
    }
}

#[async_trait]
impl ConditionSource for Switch {
    fn condition(&self) -> &'static str {
        "breaker_open"
    }

    async fn look(&self) -> Result<Vec<Seen>, String> {
        let subjects = self.0.lock().unwrap().clone().ok_or("nobody can look")?;
        let seen = |subject: &'static str| Seen {
            subject: subject.to_owned(),
            summary: format!("the breaker of {subject} is open"),
            detail: json!({ "failures": 5 }),
        };
        Ok(subjects.into_iter().map(seen).collect())
    }
}

fn hook(receiver: &Receiver, kind: WebhookKind) -> NotifyWebhook {
    NotifyWebhook { endpoint: Endpoint::new(&receiver.url(), SECRET).unwrap(), kind }
}

/// Everything in quick succession.
fn quick(receivers: &[&Receiver]) -> NotifySettings {
    NotifySettings {
        every: 20 * MILLI,
        resolve_after: 200 * MILLI,
        gather: 100 * MILLI,
        apart: Duration::ZERO,
        per_minute: 1_000,
        retry: RetryPolicy { initial: 20 * MILLI, ..NotifySettings::default().retry },
        attempts: 3,
        service: "bank".into(),
        webhooks: receivers.iter().map(|receiver| hook(receiver, WebhookKind::Json)).collect(),
        limits: WebhookLimits { total: 300 * MILLI, ..WebhookLimits::default() },
        ..NotifySettings::default()
    }
}

struct Notifier {
    switch: Switch,
    store: Arc<dyn Store>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

fn start(settings: NotifySettings) -> Notifier {
    let partitions = PartitionCount::DEFAULT;
    let store = SqliteStore::in_memory(partitions, ClockSource::system(), LogId::generate());
    start_on(Arc::new(store.unwrap()), settings)
}

fn start_on(store: Arc<dyn Store>, settings: NotifySettings) -> Notifier {
    let switch = Switch::default();
    switch.set(Some(&[]));
    let tasks = notify::start(NotifyParts {
        store: store.clone(),
        sources: vec![Arc::new(switch.clone())],
        settings,
        stop: CancellationToken::new(),
    });
    Notifier { switch, store, _tasks: tasks.unwrap() }
}

fn told(subject: &str, state: &str) -> (String, String, String) {
    ("breaker_open".to_owned(), subject.to_owned(), state.to_owned())
}

fn metric(line: &str) -> Option<String> {
    let text = install_metrics().unwrap().render();
    text.lines().find_map(|l| l.strip_prefix(line)).map(|rest| rest.trim().to_owned())
}

async fn until_metric(line: &str, value: &str) {
    eventually(line, async || (metric(line).as_deref() == Some(value)).then_some(())).await;
}

#[tokio::test]
async fn a_condition_is_told_once_signed_and_once_when_it_is_over() {
    install_metrics().unwrap();
    let receiver = Receiver::start([]).await;
    let notifier = start(quick(&[&receiver]));
    notifier.switch.set(Some(&["commands"]));
    let first = receiver.until(1).await.remove(0);
    first.assert_signed();
    assert_eq!(first.alerts(), [told("commands", "firing")]);
    let json = first.json();
    assert_eq!(json["type"], "adjutant.conditions");
    assert_eq!(json["data"]["service"], "bank");
    assert_eq!(json["data"]["alerts"][0]["detail"]["failures"], 5);
    until_metric("adjutant_conditions_firing{condition=\"breaker_open\"}", "1").await;

    // Nobody can look: that is no news.
    notifier.switch.set(None);
    tokio::time::sleep(400 * MILLI).await;
    notifier.switch.set(Some(&[]));
    let second = receiver.until(2).await.remove(1);
    second.assert_signed();
    assert_eq!(second.alerts(), [told("commands", "resolved")]);
    assert_ne!(second.id(), first.id());
    until_metric("adjutant_conditions_firing{condition=\"breaker_open\"}", "0").await;

    // Whatever would have been told twice comes before the next news.
    notifier.switch.set(Some(&["projection.x"]));
    let all = receiver.until(3).await;
    assert_eq!(all[2].alerts(), [told("projection.x", "firing")]);
    let sent = |state| {
        format!(
            "adjutant_notifications_total{{condition=\"breaker_open\",state=\"{state}\",result=\"sent\"}}"
        )
    };
    until_metric(&sent("firing"), "2").await;
    until_metric(&sent("resolved"), "1").await;
}

#[tokio::test]
async fn a_webhook_that_fails_is_tried_again_under_the_same_id() {
    let receiver = Receiver::start([Answer::Status(500), Answer::Endless]).await;
    let notifier = start(quick(&[&receiver]));
    notifier.switch.set(Some(&["commands"]));
    let tries = receiver.until(3).await;
    for one in &tries {
        one.assert_signed();
        assert_eq!((one.id(), &one.body), (tries[0].id(), &tries[0].body));
    }
    notifier.switch.set(Some(&[]));
    assert_eq!(receiver.until(4).await[3].alerts(), [told("commands", "resolved")]);
}

#[tokio::test]
async fn a_webhook_that_hangs_holds_nobody_up_and_is_given_up() {
    install_metrics().unwrap();
    let hanging = Receiver::start((0..100).map(|_| Answer::Hang)).await;
    let well = Receiver::start([]).await;
    let notifier = start(quick(&[&hanging, &well]));
    notifier.switch.set(Some(&["commands"]));
    well.until(1).await;
    notifier.switch.set(Some(&["commands", "other"]));
    well.until(2).await;
    notifier.switch.set(Some(&[]));
    let all = eventually("both are over", async || {
        let alerts: Vec<_> = well.received().iter().flat_map(|one| one.alerts()).collect();
        (alerts.len() == 4).then_some(alerts)
    })
    .await;
    assert!(all.contains(&told("other", "resolved")), "{all:?}");
    let given_up = "adjutant_notifications_total{condition=\"breaker_open\",state=\"firing\",result=\"given_up\"}";
    until_metric(given_up, "2").await;
    let ids: Vec<_> = hanging.received().iter().map(|one| one.id().to_owned()).collect();
    assert!(ids.iter().filter(|id| **id == ids[0]).count() == 3, "three tries a message: {ids:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start([]).await;
    let receiver = Receiver::start([Answer::RedirectTo(elsewhere.url())]).await;
    let notifier = start(quick(&[&receiver]));
    notifier.switch.set(Some(&["commands"]));
    receiver.until(2).await;
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn who_answers_gone_is_not_asked_again() {
    install_metrics().unwrap();
    let receiver = Receiver::start([Answer::Status(410)]).await;
    let notifier = start(quick(&[&receiver]));
    notifier.switch.set(Some(&["commands"]));
    let given_up = "adjutant_notifications_total{condition=\"breaker_open\",state=\"firing\",result=\"given_up\"}";
    until_metric(given_up, "1").await;
    notifier.switch.set(Some(&[]));
    assert_eq!(receiver.until(2).await[1].alerts(), [told("commands", "resolved")]);
}

#[tokio::test]
async fn what_happens_together_is_one_message_and_slack_gets_its_text() {
    let receiver = Receiver::start([]).await;
    let mut settings = quick(&[]);
    settings.webhooks = vec![hook(&receiver, WebhookKind::Slack)];
    let notifier = start(settings);
    notifier.switch.set(Some(&["a", "b", "c"]));
    let message = receiver.until(1).await.remove(0);
    let text = message.json()["text"].as_str().unwrap().to_owned();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("[bank] *FIRING* breaker_open: the breaker of b is open"), "{text}");
    message.assert_signed();
}

#[tokio::test]
async fn only_so_many_messages_a_minute_are_sent_and_the_rest_waits() {
    let receiver = Receiver::start([]).await;
    let notifier = start(NotifySettings { per_minute: 1, ..quick(&[&receiver]) });
    notifier.switch.set(Some(&["a"]));
    receiver.until(1).await;
    notifier.switch.set(Some(&["a", "b"]));
    eventually("it is found", async || {
        let firing = notifier.store.firing_conditions().await.unwrap();
        (firing == [("breaker_open".to_owned(), 2)]).then_some(())
    })
    .await;
    let name = Endpoint::new(&receiver.url(), SECRET).unwrap().name().to_owned();
    let held = eventually("its message is due", async || {
        notifier.store.claim_notification(&name, 9, MILLI).await.unwrap()
    })
    .await;
    assert_eq!(held.attempts, 1, "nobody has tried it");
    assert_eq!(receiver.received().len(), 1);
}

/// A client by itself: an answer that does not end is not read to its end.
#[tokio::test]
async fn an_endless_answer_is_cut() {
    let receiver = Receiver::start([Answer::Endless]).await;
    let limits = WebhookLimits { total: Duration::from_secs(50), ..WebhookLimits::default() };
    let client = WebhookClient::new(limits, Reach::Anywhere).unwrap();
    let message = WebhookMessage {
        id: "msg_1".into(),
        timestamp: time::OffsetDateTime::now_utc(),
        body: "{}".into(),
    };
    let endpoint = Endpoint::new(&receiver.url(), "").unwrap();
    let sent = tokio::time::timeout(Duration::from_secs(20), client.send(&endpoint, &message));
    let error = sent.await.expect("long before the time limit").unwrap_err();
    assert_eq!(error.to_string(), "it answered 500 Internal Server Error");
    let received = receiver.received().remove(0);
    assert_eq!((received.id(), received.header("webhook-signature")), ("msg_1", ""), "unsigned");
}
