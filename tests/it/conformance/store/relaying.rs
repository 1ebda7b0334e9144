//! The outbox: written with what it tells, read from an exact bound, and cleared.

use std::time::Duration;

use adjutant::{
    message::{Attempt, Offset, Partition, Route},
    store::{CommandCommit, Fence, LogKind, RejectedMessage, SetAside, Store},
};

use super::{
    Open,
    look::{self, appended},
};
use crate::support::{commands::add, eventually};

/// Law 2: what the broker is to be told stands in the transaction of what it is about.
pub async fn outbox_rows_are_written_with_what_they_tell_or_not_at_all(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let commands = |route: &Route| matches!(route, Route::Commands(_));
    store.accept((0..5).map(|i| add(&format!("c{i}"), 1)).collect()).await.expect("accept");
    assert_eq!(look::told(store, commands).await, 5);
    let mut batch = vec![add("x", 1)];
    batch[0].payload = look::unstorable();
    store.accept(batch).await.expect_err("cannot be stored");
    assert_eq!(look::told(store, commands).await, 5);
    store.commit_commands(appended(store, "a", 1)).await.expect("commit");
    store.commit_commands(appended(store, "a", 1)).await.expect_err("the version is taken");
    let partition = appended(store, "a", 1).events[0].partition;
    let rows: Vec<_> = look::outbox(store)
        .await
        .into_iter()
        .filter(|row| row.route == Route::Events(partition))
        .map(|row| (row.entries, row.first_offset, row.body))
        .collect();
    assert_eq!(rows, [(1, Some(Offset(1)), b"told".to_vec())]);
}

pub async fn the_outbox_is_read_from_an_exact_lower_bound(open: Open) {
    let truth = open(2).await;
    let store = &truth.store;
    let all = look::all(store);
    let empty = store.read_outbox(&all, 0, &[], 100).await.expect("read");
    assert!(empty.rows.is_empty());
    store.accept((0..10).map(|i| add(&format!("c{i}"), 1)).collect()).await.expect("accept");
    let first = store.read_outbox(&all, empty.next_bound, &[], 100).await.expect("read");
    assert_eq!(first.rows.len(), 2);
    assert!(first.rows.iter().all(|row| (0..60_000).contains(&row.age_ms)));
    let limited = store.read_outbox(&all, 0, &[], 1).await.expect("read");
    assert_eq!(limited.rows[0].id, first.rows[0].id);
    let known: Vec<i64> = limited.rows.iter().map(|row| row.id).collect();
    let rest = store.read_outbox(&all, 0, &known, 100).await.expect("read");
    assert_eq!(rest.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [first.rows[1].id]);
    let one = store.read_outbox(&[Partition(1)], 0, &[], 100).await.expect("read");
    assert!(one.rows.iter().all(|row| row.partition == Partition(1)) && one.rows.len() == 1);
    // Transactions elsewhere may hold the bound back for a moment.
    let mut bound = first.next_bound;
    eventually("rows below the bound are not read again", async || {
        let page = store.read_outbox(&all, bound, &[], 100).await.expect("read");
        bound = page.next_bound;
        page.rows.is_empty().then_some(())
    })
    .await;
    store.accept(vec![add("late", 1)]).await.expect("accept");
    let late = store.read_outbox(&all, bound, &[], 100).await.expect("read");
    assert_eq!(late.rows.len(), 1, "what is written later is not passed over");
    let (rows, age) = store.outbox_depth(10).await.expect("depth");
    assert!(rows == 3 && (0..60_000).contains(&age), "{rows} rows, {age} ms");
    assert_eq!(store.outbox_depth(2).await.expect("depth").0, 2);
    store.delete_outbox(&[first.rows[0].id, first.rows[1].id]).await.expect("delete");
    store.delete_outbox(&[first.rows[0].id]).await.expect("twice changes nothing");
    assert_eq!(store.outbox_depth(10).await.expect("depth").0, 1);
}

/// Relays remember ids: a row with the id of a deleted one would never be published.
pub async fn outbox_ids_are_never_used_again(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let mut newest = 0;
    for _ in 0..3 {
        store.accept(vec![add("a", 1)]).await.expect("accept");
        let ids: Vec<i64> = look::outbox(store).await.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), 1);
        assert!(ids[0] > newest);
        newest = ids[0];
        store.delete_outbox(&ids).await.expect("delete");
        assert_eq!(store.outbox_depth(10).await.expect("depth"), (0, 0));
    }
}

fn refused(reason: &str) -> RejectedMessage {
    RejectedMessage {
        body: b"\x00\xff".to_vec(),
        content_type: "text/plain".into(),
        headers: vec![("reason".into(), reason.into()), ("a".into(), "b".into())],
    }
}

pub async fn aged_rows_that_a_log_holds_are_dropped_and_no_others(open: Open) {
    let truth = open(2).await;
    let store = &truth.store;
    store.accept((0..10).map(|i| add(&format!("c{i}"), 1)).collect()).await.expect("accept");
    store.reject_messages(vec![refused("x")]).await.expect("reject");
    assert_eq!(drop_aged(&**store, &[0, 1], 3_600_000, 10).await, 0, "they are young");
    assert_eq!(drop_aged(&**store, &[0, 1], -1_000, 1).await, 1, "no more than asked for");
    assert_eq!(drop_aged(&**store, &[0, 1], -1_000, 10).await, 1);
    let rows = look::outbox(store).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].route, Route::IntakeDeadLetter, "it stands nowhere else");
}

async fn drop_aged(store: &dyn Store, partitions: &[i16], age_ms: i64, limit: i64) -> u64 {
    let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
    store.drop_aged(&partitions, age_ms, limit).await.expect("drop")
}

pub async fn refused_messages_wait_in_the_outbox(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.reject_messages(vec![refused("one"), refused("two")]).await.expect("reject");
    store.reject_messages(vec![refused("three"), refused("\0")]).await.expect_err("all or none");
    let rows = look::outbox(store).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].headers, [("a", "b"), ("reason", "two")].map(|(k, v)| (k.into(), v.into())));
    assert_eq!((rows[1].body.as_slice(), rows[1].entries), (&b"\x00\xff"[..], 0));
    assert_eq!((rows[1].content_type.as_str(), rows[1].first_offset), ("text/plain", None));
}

/// It must neither stick nor run the command again.
pub async fn a_schedule_row_of_a_command_that_ended_runs_nothing(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let (ended, waiting) = (add("a", 1), add("a", 2));
    store.accept(vec![ended.clone(), waiting.clone()]).await.expect("accept");
    let mut commit = appended(store, "a", 1);
    let partition = commit.events[0].partition;
    let aside = |command_id| SetAside {
        command_id,
        partition,
        delay_ms: 0,
        reason: "type_unknown_here",
        attempt: Attempt::FIRST,
        first_offset: None,
        edit: 0,
    };
    let set_aside = vec![aside(ended.id), aside(waiting.id)];
    let both = CommandCommit { set_aside, ..CommandCommit::default() };
    store.commit_commands(both).await.expect("set aside");
    commit.outcomes[0].command_id = ended.id;
    store.commit_commands(commit).await.expect("commit");
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 2);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 3, "only the other one runs");
    let told = look::outbox(store).await;
    assert_eq!(told.last().map(|row| (row.first_offset, row.entries)), Some((Some(Offset(3)), 1)));
    assert_eq!(
        store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"),
        0,
        "both are gone"
    );
    // Nothing but orphans: they go all the same.
    let alone = |id| CommandCommit { set_aside: vec![aside(id)], ..CommandCommit::default() };
    store.commit_commands(alone(waiting.id)).await.expect("set aside");
    let mut commit = appended(store, "a", 2);
    commit.outcomes[0].command_id = waiting.id;
    store.commit_commands(commit).await.expect("commit");
    let ended = store.commit_commands(alone(ended.id)).await;
    look::assert_fenced(ended, Fence::Outcome);
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 1);
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 0);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 3);
}
