//! Accepting commands, now or later.

use std::{collections::BTreeMap, time::Duration};

use adjutant::{
    message::{Batch, CommandId, Offset, RawJson, Route, decode_batch},
    store::{Accepted, Entry, LogKind, StoreError},
};

use super::{Open, look};
use crate::support::{
    commands::{add, command, stream},
    eventually,
};

fn is_commands(route: &Route) -> bool {
    matches!(route, Route::Commands(_))
}

pub async fn a_command_accepted_twice_is_one_command(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let first = add("a", 5);
    let accepted = store.accept(vec![first.clone()]).await.expect("accept");
    let Accepted::New { accepted_at } = accepted[0] else { panic!("{accepted:?}") };
    let again = store.accept(vec![first.clone(), add("b", 1)]).await.expect("accept");
    let Accepted::Occupied(occupied) = &again[0] else { panic!("{again:?}") };
    assert_eq!(occupied.content_hash, first.content_hash);
    assert_eq!(occupied.accepted_at, accepted_at);
    assert!(matches!(again[1], Accepted::New { .. }));
    let other = command(first.id, "counter.add", "elsewhere", serde_json::json!({"amount": 7}));
    let conflict = store.accept(vec![other.clone()]).await.expect("accept");
    let Accepted::Occupied(occupied) = &conflict[0] else { panic!("{conflict:?}") };
    assert_ne!(occupied.content_hash, other.content_hash);
    assert!(store.accept(Vec::new()).await.expect("nothing").is_empty());
    assert_eq!(look::commands(store).await, 2);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 2);
}

pub async fn an_id_twice_in_a_batch_is_one_command(open: Open) {
    let truth = open(8).await;
    let first = add("a", 5);
    let mut second = add("a", 6);
    second.id = first.id;
    let batch = vec![first.clone(), second, add("b", 1)];
    let accepted = truth.store.accept(batch).await.expect("accept");
    assert!(matches!(accepted[0], Accepted::New { .. }), "{accepted:?}");
    let Accepted::Occupied(occupied) = &accepted[1] else { panic!("{accepted:?}") };
    assert_eq!(occupied.content_hash, first.content_hash);
    assert!(matches!(accepted[2], Accepted::New { .. }), "{accepted:?}");
    assert_eq!(look::gapless(&truth.store, LogKind::Commands).await, 2);
}

pub async fn the_same_id_accepted_by_many_at_once_is_one_command(open: Open) {
    let truth = open(8).await;
    let ids: Vec<CommandId> = (0..20).map(|_| CommandId::generate()).collect();
    let tasks: Vec<_> = (0..8)
        .map(|caller: i64| {
            let (store, mut ids) = (truth.store.clone(), ids.clone());
            ids.rotate_left(caller as usize * 3 % 20);
            tokio::spawn(async move {
                let amount = serde_json::json!({ "amount": caller % 2 + 1 });
                let batch = ids.iter().map(|id| command(*id, "counter.add", "x", amount.clone()));
                store.accept(batch.collect()).await.expect("accept")
            })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        let answers = task.await.expect("task");
        new += answers.iter().filter(|a| matches!(a, Accepted::New { .. })).count();
    }
    assert_eq!(new, 20, "each id is new to exactly one caller");
    assert_eq!(look::commands(&truth.store).await, 20);
    assert_eq!(look::gapless(&truth.store, LogKind::Commands).await, 20);
}

/// Law 4. Broken by taking the offset before the lock, or in the statement that takes the lock.
pub async fn offsets_are_gapless_and_in_commit_order_under_concurrent_writers(open: Open) {
    let truth = open(3).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = truth.store.clone();
            tokio::spawn(async move {
                for round in 0..25 {
                    let mut batch: Vec<_> = (0..4)
                        .map(|i| add(&format!("c{}", (writer + i + round) % 11), 1))
                        .collect();
                    if round % 5 == 4 {
                        // One that fails after offsets were taken: it must leave no hole.
                        batch[3].payload = look::unstorable();
                        let refused = store.accept(batch).await;
                        assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
                    } else {
                        store.accept(batch).await.expect("accept");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    assert_eq!(look::gapless(&truth.store, LogKind::Commands).await, 8 * 20 * 4);
    // The outbox says the same, row by row, in the order of its ids.
    let mut next = BTreeMap::new();
    for row in look::outbox(&truth.store).await {
        let expected = next.entry(row.partition).or_insert(Offset(1));
        assert_eq!(row.first_offset, Some(*expected), "partition {}", row.partition);
        *expected = expected.plus(row.entries as usize);
    }
}

pub async fn an_unstorable_value_leaves_nothing_of_its_batch(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    for bad in ["{\"a\": \"\\u0000\"}", "\"\\ud800\"", "{", "\"\0\""] {
        let mut batch = vec![add("a", 1), add("b", 1), add("c", 1)];
        batch[2].payload = RawJson::from_trusted(bad.into());
        let refused = store.accept(batch).await;
        assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{bad}: {refused:?}");
    }
    let mut batch = vec![add("a", 1), add("b", 1)];
    batch[1].metadata.actor = Some("a\0".into());
    let refused = store.accept(batch).await;
    assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
    assert_eq!(look::commands(store).await, 0);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 0);
    assert!(look::outbox(store).await.is_empty());
}

pub async fn a_delayed_command_enters_the_log_when_it_is_due(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let now = store.now().await.expect("now");
    let mut delayed = add("a", 1);
    delayed.not_before = Some(now + Duration::from_millis(600));
    let mut past = add("a", 3);
    past.not_before = Some(now - Duration::from_secs(1));
    store.accept(vec![delayed.clone(), add("a", 2), past]).await.expect("accept");
    let record = store.command(delayed.id).await.expect("query").expect("is there");
    assert!(record.scheduled);
    let all = look::all(store);
    assert_eq!(store.promote_due(&all, Duration::ZERO, 10).await.expect("promote"), 0);
    eventually("due", async || {
        (store.promote_due(&all, Duration::ZERO, 10).await.expect("promote") == 1).then_some(())
    })
    .await;
    let log = look::log(store, LogKind::Commands).await.concat();
    let ids: Vec<_> = log
        .iter()
        .map(|entry| match entry {
            Entry::Command(entry) => (entry.offset.0, entry.command.id == delayed.id),
            Entry::Event(_) => panic!("an event in the command log"),
        })
        .collect();
    assert_eq!(ids, [(1, false), (2, false), (3, true)]);
    assert!(!store.command(delayed.id).await.expect("query").expect("is there").scheduled);
    assert_eq!(look::told(store, is_commands).await, 3);
    assert_eq!(store.promote_due(&all, Duration::ZERO, 10).await.expect("promote"), 0, "once");
}

pub async fn due_commands_enter_the_log_in_the_order_of_their_times(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let now = store.now().await.expect("now");
    let delayed: Vec<_> = [400, 100, 300, 200]
        .map(|delay| {
            let mut command = add("a", 1);
            command.not_before = Some(now + Duration::from_millis(delay + 300));
            command
        })
        .into();
    store.accept(delayed.clone()).await.expect("accept");
    let due = now + Duration::from_millis(750);
    eventually("all are due", async || (store.now().await.expect("now") > due).then_some(())).await;
    let all = look::all(store);
    assert_eq!(
        store.promote_due(&all, Duration::ZERO, 3).await.expect("promote"),
        3,
        "no more than asked for"
    );
    assert_eq!(store.promote_due(&all, Duration::ZERO, 3).await.expect("promote"), 1);
    let log = look::log(store, LogKind::Commands).await.concat();
    let ids: Vec<CommandId> = log
        .iter()
        .map(|entry| match entry {
            Entry::Command(entry) => entry.command.id,
            Entry::Event(_) => panic!("an event in the command log"),
        })
        .collect();
    assert_eq!(ids, [1, 3, 2, 0].map(|i: usize| delayed[i].id));
}

pub async fn a_large_batch_is_told_in_several_messages(open: Open) {
    let truth = open(1).await;
    let text = "x".repeat(200_000);
    let batch = (0..5).map(|i| {
        let payload = serde_json::json!({ "amount": i, "text": text });
        command(CommandId::generate(), "counter.add", "a", payload)
    });
    truth.store.accept(batch.collect()).await.expect("accept");
    let rows = look::outbox(&truth.store).await;
    assert!(rows.len() > 1, "{} messages", rows.len());
    let mut next = Offset(1);
    for row in rows {
        assert!(row.body.len() <= adjutant::message::MAX_BATCH_BYTES);
        assert_eq!(row.first_offset, Some(next));
        let Ok(Batch::Commands(commands)) = decode_batch(&row.body, true) else { panic!("body") };
        assert_eq!(commands.len(), row.entries as usize);
        assert!(commands.iter().all(|command| command.stream == stream("a")));
        next = next.plus(commands.len());
    }
    assert_eq!(next, Offset(6));
}
