//! Notification: each change is found once, and told at least once under one id.

use std::{sync::Arc, time::Duration};

use adjutant::{
    message::{CommandId, GroupName, Offset, RawJson},
    store::{
        CheckpointMove, ConditionReport, ConditionState, GroupLag, Leftover, LogKind,
        NotificationEnd, SeenCondition, Store,
    },
};
use serde_json::Value;

use super::{Open, look::appended, membership};
use crate::support::{commands::add, eventually};

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3_600);

fn lag_of(subjects: &[&str]) -> ConditionReport {
    let seen = subjects.iter().map(|subject| SeenCondition {
        condition: "group_lag".into(),
        subject: (*subject).to_owned(),
        summary: format!("{subject} lags"),
        detail: RawJson::from_trusted("{\"entries\": 7}".into()),
    });
    ConditionReport {
        seen: seen.collect(),
        looked_at: vec!["group_lag".into()],
        resolve_after: HOUR,
        webhooks: vec!["hook".into()],
        most_alerts: 50,
        ..ConditionReport::default()
    }
}

async fn report(store: &Arc<dyn Store>, report: &ConditionReport) -> Vec<(String, ConditionState)> {
    let changes = store.report_conditions(report).await.expect("report");
    changes.into_iter().map(|change| (change.subject, change.state)).collect()
}

fn alerts(alerts: &RawJson) -> Vec<(String, String)> {
    let alerts: Vec<Value> = alerts.decode().expect("an array");
    let word = |alert: &Value, key: &str| alert[key].as_str().expect(key).to_owned();
    alerts.iter().map(|alert| (word(alert, "subject"), word(alert, "state"))).collect()
}

pub async fn a_change_is_found_by_one_report_however_many_there_are(open: Open) {
    let truth = open(1).await;
    let reports: Vec<_> = (0..16)
        .map(|i| {
            let store = if i % 2 == 0 { truth.store.clone() } else { truth.other.clone() };
            tokio::spawn(async move { report(&store, &lag_of(&["a", "b"])).await })
        })
        .collect();
    let mut found = Vec::new();
    for report in reports {
        found.extend(report.await.expect("task"));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let firing = ConditionState::Firing;
    assert_eq!(found, [("a".to_owned(), firing), ("b".to_owned(), firing)]);
    let firing = truth.store.firing_conditions().await.expect("firing");
    assert_eq!(firing, [("group_lag".to_owned(), 2)]);
    let message = truth.store.claim_notification("hook", 9, HOUR).await.expect("claim");
    let mut told = alerts(&message.expect("one message").alerts);
    told.sort();
    let word = "firing".to_owned();
    assert_eq!(told, [("a".to_owned(), word.clone()), ("b".to_owned(), word)]);
    assert_eq!(truth.store.claim_notification("hook", 9, HOUR).await.expect("claim"), None);
}

pub async fn a_condition_is_over_once_when_nobody_sees_it_any_more(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    report(store, &lag_of(&["a", "b"])).await;
    let gone = |resolve_after| ConditionReport { resolve_after, ..lag_of(&["b"]) };
    assert_eq!(report(store, &gone(HOUR)).await, [], "it was seen a moment ago");
    let blind = ConditionReport { looked_at: vec![], ..gone(NOW) };
    assert_eq!(report(store, &blind).await, [], "who could not look says nothing");
    let over = eventually("it is over", async || {
        let changes = report(store, &gone(Duration::from_millis(1))).await;
        (!changes.is_empty()).then_some(changes)
    })
    .await;
    assert_eq!(over, [("a".to_owned(), ConditionState::Resolved)]);
    assert_eq!(report(store, &gone(Duration::from_millis(1))).await, [], "once");
    let firing = store.firing_conditions().await.expect("firing");
    assert_eq!(firing, [("group_lag".to_owned(), 1)]);
    let again = report(store, &lag_of(&["a"])).await;
    assert_eq!(again, [("a".to_owned(), ConditionState::Firing)], "it comes again");
}

pub async fn a_condition_that_lasts_is_told_again(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    report(store, &lag_of(&["a"])).await;
    let with = |remind_after| ConditionReport { remind_after, ..lag_of(&["a"]) };
    assert_eq!(report(store, &with(None)).await, []);
    assert_eq!(report(store, &with(Some(HOUR))).await, []);
    let reminded = eventually("people are reminded", async || {
        let report = with(Some(Duration::from_millis(20)));
        store.report_conditions(&report).await.expect("report").pop()
    })
    .await;
    assert!(reminded.reminder && reminded.state == ConditionState::Firing);
    assert_eq!(reminded.detail.decode::<Value>().expect("json")["entries"], 7);
    let now = store.now().await.expect("now");
    assert!(reminded.since < now, "it began when it began");
}

pub async fn changes_gather_in_one_message_and_messages_keep_apart(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let slow = |subjects| ConditionReport { gather: HOUR, most_alerts: 2, ..lag_of(subjects) };
    report(store, &slow(&["a"])).await;
    assert_eq!(store.claim_notification("hook", 9, HOUR).await.expect("claim"), None, "it gathers");
    report(store, &slow(&["b"])).await;
    report(store, &ConditionReport { gather: NOW, most_alerts: 2, ..lag_of(&["c"]) }).await;
    let none = store.claim_notification("hook", 9, HOUR).await.expect("claim");
    assert_eq!(none, None, "a message that gathers stays as due as it was");

    // Another condition gathers on its own.
    let mut other = lag_of(&["d"]);
    other.seen[0].condition = "relay_stuck".into();
    report(store, &other).await;
    let first = store.claim_notification("hook", 9, HOUR).await.expect("claim").expect("due");
    assert_eq!((first.condition.as_str(), first.alert_count), ("relay_stuck", 1));
    let mut next = lag_of(&["e"]);
    next.seen[0].condition = "relay_stuck".into();
    next.apart = HOUR;
    report(store, &next).await;
    let none = store.claim_notification("hook", 9, HOUR).await.expect("claim");
    assert_eq!(none, None, "the next of its condition keeps apart from it");
}

pub async fn a_message_that_is_full_counts_what_it_does_not_carry(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let two = |subjects| ConditionReport { most_alerts: 2, ..lag_of(subjects) };
    report(store, &two(&["a", "b", "c", "d"])).await;
    let message = store.claim_notification("hook", 9, HOUR).await.expect("claim").expect("due");
    assert_eq!((alerts(&message.alerts).len(), message.alert_count), (2, 4));
}

pub async fn a_message_is_claimed_by_one_and_again_when_its_lease_ends(open: Open) {
    let truth = open(1).await;
    let (store, other) = (&truth.store, &truth.other);
    report(store, &lag_of(&["a"])).await;
    assert_eq!(store.claim_notification("elsewhere", 9, HOUR).await.expect("claim"), None);
    let short = Duration::from_millis(50);
    let first = store.claim_notification("hook", 9, short).await.expect("claim").expect("due");
    assert_eq!(first.attempts, 1);
    // Its process crashes: another one takes over, under the same id.
    let second = eventually("the lease ends", async || {
        other.claim_notification("hook", 9, HOUR).await.expect("claim")
    })
    .await;
    assert_eq!((second.id, &second.alerts), (first.id, &first.alerts));
    assert_eq!((second.attempts, second.first_tried_at), (2, first.first_tried_at));
    let late = store.end_notification(first.id, first.attempts, NotificationEnd::Sent).await;
    assert!(!late.expect("end"), "whoever lost the lease decides nothing");
    let again = NotificationEnd::Again(Duration::from_millis(1), "500".into());
    assert!(other.end_notification(second.id, second.attempts, again).await.expect("end"));
    let third = eventually("it is due again", async || {
        store.claim_notification("hook", 9, HOUR).await.expect("claim")
    })
    .await;
    assert_eq!((third.id, third.attempts), (first.id, 3));
    assert!(store.end_notification(third.id, 3, NotificationEnd::Sent).await.expect("end"));
    assert!(!store.end_notification(third.id, 3, NotificationEnd::Sent).await.expect("end"));
    assert_eq!(store.claim_notification("hook", 9, HOUR).await.expect("claim"), None, "sent");

    let remove = async |age| store.remove_leftovers(Leftover::Notifications, age, 10).await;
    assert_eq!(remove(HOUR).await.expect("remove"), 0);
    eventually("it is forgotten", async || (remove(NOW).await.expect("remove") == 1).then_some(()))
        .await;
}

pub async fn a_webhook_gets_only_so_many_messages_a_minute(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    for condition in ["one", "two", "three"] {
        let mut report_one = lag_of(&["a"]);
        report_one.seen[0].condition = condition.into();
        report(store, &report_one).await;
    }
    for _ in 0..2 {
        assert!(store.claim_notification("hook", 2, HOUR).await.expect("claim").is_some());
    }
    assert_eq!(store.claim_notification("hook", 2, HOUR).await.expect("claim"), None);
    let more = store.claim_notification("hook", 3, HOUR).await.expect("claim");
    assert!(more.is_some(), "it was not lost");
}

pub async fn the_lag_of_a_group_is_what_it_has_not_finished(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let (commands, view) = (GroupName::commands(), GroupName::projection("v"));
    let lag = async |group, log| store.group_lag(group, log).await.expect("lag");
    assert_eq!(lag(&commands, LogKind::Commands).await, GroupLag::default());
    store.accept((0..9).map(|i| add(&format!("c{i}"), 1)).collect()).await.expect("accept");
    let mut commit = appended(store, "a", 1);
    let partition = commit.events[0].partition;
    commit.outcomes[0].command_id = CommandId::generate();
    let head = store.heads().await.expect("heads").commands[partition.index()];
    commit.checkpoints =
        vec![CheckpointMove { group: commands.clone(), partition, from: Offset(0), to: head }];
    store.commit_commands(commit).await.expect("commit");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let behind = lag(&commands, LogKind::Commands).await;
    assert_eq!(behind.entries, 9 - head.0);
    assert!(behind.oldest >= Duration::from_millis(4) && behind.oldest < HOUR, "{behind:?}");
    assert_eq!(lag(&view, LogKind::Events).await.entries, 1);
}

pub async fn a_member_that_vanished_is_lost_and_one_that_stopped_is_not(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let mut stopping = membership::beat("stopping");
    stopping.draining = true;
    store.heartbeat(&stopping, HOUR).await.expect("beat");
    let vanished = membership::beat("vanished");
    store.heartbeat(&vanished, HOUR).await.expect("beat");
    assert_eq!(store.lost_members(HOUR, 2 * HOUR, 9).await.expect("lost"), []);
    let silent = Duration::from_millis(5);
    let lost = eventually("silence is noticed", async || {
        let lost = store.lost_members(silent, HOUR, 9).await.expect("lost");
        (!lost.is_empty()).then_some(lost)
    })
    .await;
    assert_eq!(lost.iter().map(|member| member.id).collect::<Vec<_>>(), [vanished.id]);
    assert_eq!(store.lost_members(NOW, NOW, 9).await.expect("lost"), [], "long ago is forgotten");
}
