//! Committing decisions: fences, and all or nothing.

use std::time::Duration;

use adjutant::{
    message::{Attempt, GroupName, Offset, Partition, Position, RawJson, Route, Version},
    store::{
        CheckpointMove, CommandCommit, Entry, Fence, LogKind, NewSnapshot, SetAside, StoreError,
    },
};

use super::{
    Open, Truth,
    look::{self, appended, assert_fenced, rejected},
};
use crate::support::commands::{add, stream};

fn moved(partition: Partition, from: i64, to: i64) -> Vec<CheckpointMove> {
    let group = GroupName::commands();
    vec![CheckpointMove { group, partition, from: Offset(from), to: Offset(to) }]
}

/// Law 5.
pub async fn a_checkpoint_moves_only_from_where_it_is(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.accept((0..4).map(|_| add("a", 1)).collect()).await.expect("accept");
    let partition = store.identity().partitions.of(&stream("a"));
    let only = |from, to| CommandCommit {
        checkpoints: moved(partition, from, to),
        ..CommandCommit::default()
    };
    store.commit_commands(only(0, 2)).await.expect("move");
    for (from, to) in [(0, 2), (0, 3), (1, 3), (3, 4)] {
        assert_fenced(store.commit_commands(only(from, to)).await, Fence::Checkpoint);
    }
    // Whatever stands in a transaction with a stale checkpoint is not written either.
    let mut stale = appended(store, "a", 1);
    stale.checkpoints = moved(partition, 0, 3);
    assert_fenced(store.commit_commands(stale.clone()).await, Fence::Checkpoint);
    assert_eq!(look::gapless(store, LogKind::Events).await, 0);
    assert!(!look::has_outcome(store, &stale).await);
    assert_fenced(store.commit_commands(only(2, 9)).await, Fence::NotInLog);
    store.commit_commands(only(2, 4)).await.expect("move");
    // A purge of the history must not let an old compare succeed.
    store.purge_checkpoints(100).await.expect("purge");
    assert_fenced(store.commit_commands(only(0, 3)).await, Fence::Checkpoint);
    let checkpoints = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    assert_eq!(checkpoints.len(), 8);
    assert_eq!(checkpoints[partition.index()], Offset(4));
    let others = store.checkpoints(&GroupName::projection("v")).await.expect("checkpoints");
    assert_eq!(others, vec![Offset(0); 8], "groups do not share checkpoints");
}

/// Law 5: of two processes that both believe they own a partition, one writes.
pub async fn two_owners_of_a_partition_move_its_checkpoint_once(open: Open) {
    let truth = open(8).await;
    truth.store.accept((0..50).map(|_| add("a", 1)).collect()).await.expect("accept");
    let partition = truth.store.identity().partitions.of(&stream("a"));
    let mut won = 0;
    for place in 0..50 {
        let tries = [truth.store.clone(), truth.other.clone()].map(|store| {
            tokio::spawn(async move {
                let mut commit = appended(&store, "a", place + 1);
                commit.checkpoints = moved(partition, place, place + 1);
                store.commit_commands(commit).await
            })
        });
        for result in tries {
            match result.await.expect("task") {
                Ok(_) => won += 1,
                lost => assert_fenced(lost, Fence::Checkpoint),
            }
        }
    }
    assert_eq!(won, 50);
    assert_eq!(look::gapless(&truth.store, LogKind::Events).await, 50);
}

/// Law 3.
pub async fn a_second_outcome_of_a_command_is_refused_with_all_its_effects(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let first = appended(store, "a", 1);
    let id = first.outcomes[0].command_id;
    store.commit_commands(first).await.expect("commit");
    let mut second = appended(store, "a", 2);
    second.outcomes[0].command_id = id;
    assert_fenced(store.commit_commands(second).await, Fence::Outcome);
    assert_eq!(look::gapless(store, LogKind::Events).await, 1);
}

pub async fn a_taken_stream_version_is_refused(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.commit_commands(appended(store, "a", 1)).await.expect("commit");
    let second = appended(store, "a", 1);
    assert_fenced(store.commit_commands(second.clone()).await, Fence::StreamVersion);
    assert!(!look::has_outcome(store, &second).await);
    assert_eq!(look::gapless(store, LogKind::Events).await, 1);
}

pub async fn a_command_that_is_not_in_the_log_has_no_effect(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.accept(vec![add("a", 1)]).await.expect("accept");
    for offset in [1, 2] {
        let mut ghost = appended(store, "a", 1);
        ghost.outcomes[0].log_offset = Some(Offset(offset)); // where another stands, or nothing
        assert_fenced(store.commit_commands(ghost).await, Fence::NotInLog);
    }
    assert_eq!(look::gapless(store, LogKind::Events).await, 0);
}

/// Law 5: a decision without events collides with no version, and is fenced all the same.
pub async fn a_rejection_that_was_decided_on_an_old_state_is_refused(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.commit_commands(appended(store, "a", 1)).await.expect("commit");
    for stale in [0, 2] {
        let refused = rejected(store, "a", stale);
        assert_fenced(store.commit_commands(refused.clone()).await, Fence::StreamVersion);
        assert!(!look::has_outcome(store, &refused).await);
    }
    let rejection = rejected(store, "a", 1);
    store.commit_commands(rejection.clone()).await.expect("on the present state");
    assert!(look::has_outcome(store, &rejection).await);
    let mut blind = rejected(store, "a", 7);
    blind.outcomes[0].decided_on = None;
    store.commit_commands(blind).await.expect("no state was looked at");
}

/// A commit with one of everything, beside which a fault is to be placed.
async fn full(truth: &Truth) -> CommandCommit {
    let store = &truth.store;
    let accepted = [add("full", 1), add("full", 2)];
    store.accept(accepted.to_vec()).await.expect("accept");
    let partition = store.identity().partitions.of(&stream("full"));
    let mut commit = appended(store, "full", 1);
    commit.events[0].command_id = accepted[0].id;
    commit.outcomes[0].command_id = accepted[0].id;
    commit.outcomes[0].log_offset = Some(Offset(1));
    commit.outcomes[0].reply_to = Some(adjutant::message::ReplyAddress {
        queue: "answers".into(),
        correlation_id: Some("c".into()),
    });
    commit.snapshots = vec![NewSnapshot {
        stream: stream("full"),
        partition,
        version: Version(1),
        state_version: 1,
        state: b"state".to_vec(),
    }];
    commit.set_aside = vec![SetAside {
        command_id: accepted[1].id,
        partition,
        delay_ms: 0,
        reason: "type_unknown_here",
        attempt: Attempt::FIRST,
        first_offset: None,
        edit: 0,
    }];
    commit.checkpoints = moved(partition, 0, 2);
    commit
}

async fn assert_nothing_of(truth: &Truth, commit: &CommandCommit, events: usize) {
    let store = &truth.store;
    assert_eq!(look::gapless(store, LogKind::Events).await, events);
    assert!(!look::has_outcome(store, commit).await);
    let groups = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    assert!(groups.iter().all(|offset| *offset == Offset(0)), "{groups:?}");
    let loaded = store.load_streams(&[(stream("full"), 1)]).await.expect("load");
    assert!(loaded[0].snapshot.is_none() && loaded[0].events.is_empty());
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 0);
    let rows = look::outbox(store).await;
    assert!(!rows.iter().any(|row| matches!(row.route, Route::Reply { .. })));
    assert_eq!(look::told(store, |route| matches!(route, Route::Events(_))).await, events as i32);
}

pub async fn a_fence_that_holds_leaves_nothing_half_written(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let taken = appended(store, "taken", 1);
    store.commit_commands(taken.clone()).await.expect("commit");
    let commit = full(&truth).await;
    let with = |change: &dyn Fn(&mut CommandCommit)| {
        let mut changed = commit.clone();
        change(&mut changed);
        changed
    };
    // A second decision in the same transaction, refused at each of the fences.
    let version = with(&|commit| {
        let late = appended(store, "taken", 1);
        commit.events.extend(late.events);
        commit.outcomes.extend(late.outcomes);
    });
    let stale = with(&|commit| commit.outcomes.extend(rejected(store, "taken", 0).outcomes));
    let outcome = with(&|commit| {
        let mut late = appended(store, "taken", 2);
        late.outcomes[0].command_id = taken.outcomes[0].command_id;
        commit.events.extend(late.events);
        commit.outcomes.extend(late.outcomes);
    });
    let not_in_log = with(&|commit| {
        let mut late = appended(store, "taken", 2);
        late.outcomes[0].log_offset = Some(Offset(77));
        commit.events.extend(late.events);
        commit.outcomes.extend(late.outcomes);
    });
    let checkpoint = with(&|commit| commit.checkpoints[0].from = Offset(1));
    let beyond = with(&|commit| commit.checkpoints[0].to = Offset(3));
    for (fenced, fence) in [
        (version, Fence::StreamVersion),
        (stale, Fence::StreamVersion),
        (outcome, Fence::Outcome),
        (not_in_log, Fence::NotInLog),
        (checkpoint, Fence::Checkpoint),
        (beyond, Fence::NotInLog),
    ] {
        assert_fenced(store.commit_commands(fenced).await, fence);
        assert_nothing_of(&truth, &commit, 1).await;
    }
    store.commit_commands(commit.clone()).await.expect("without a fault it is written");
    assert!(look::has_outcome(store, &commit).await);
}

pub async fn an_unstorable_event_leaves_nothing_half_written(open: Open) {
    let truth = open(8).await;
    let commit = full(&truth).await;
    let mut event = commit.clone();
    event.events[0].data = look::unstorable();
    let mut reply = commit.clone();
    reply.outcomes[0].reply = Some(look::unstorable());
    let mut error = commit.clone();
    error.outcomes[0].error = Some(adjutant::message::Failure::new("x", "a\0"));
    for bad in [event, reply, error] {
        let refused = truth.store.commit_commands(bad).await;
        assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
        assert_nothing_of(&truth, &commit, 0).await;
    }
    truth.store.commit_commands(commit).await.expect("without a fault it is written");
}

/// Law 4, for the event log: writers of one partition that share no stream.
pub async fn event_offsets_are_gapless_under_concurrent_writers(open: Open) {
    let truth = open(1).await;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let store = truth.store.clone();
            tokio::spawn(async move {
                for version in 1..=20 {
                    let commit = appended(&store, &format!("w{writer}"), version);
                    store.commit_commands(commit).await.expect("waits, and succeeds");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    assert_eq!(look::gapless(&truth.store, LogKind::Events).await, 120);
}

pub async fn events_and_outcomes_say_the_same_positions(open: Open) {
    let truth = open(2).await;
    let store = &truth.store;
    let mut commit = CommandCommit::default();
    for (counter, events) in [("a", 2), ("b", 1), ("c", 0), ("d", 3)] {
        let mut one = appended(store, counter, 0);
        let event = one.events.remove(0);
        for version in 1..=events {
            let mut event = event.clone();
            event.version = Version(version);
            commit.events.push(event);
        }
        one.outcomes[0].events = events as usize;
        one.outcomes[0].version = Version(events);
        one.outcomes[0].reply = Some(RawJson::encode(counter).expect("json"));
        commit.outcomes.extend(one.outcomes);
    }
    let committed = store.commit_commands(commit.clone()).await.expect("commit");
    let log = look::log(store, LogKind::Events).await;
    let asked: Vec<_> = commit.outcomes.iter().map(|o| (o.partition, o.command_id)).collect();
    let outcomes = store.outcomes(&asked).await.expect("outcomes");
    assert_eq!(outcomes.len(), 4);
    for (i, written) in commit.outcomes.iter().enumerate() {
        let (_, outcome) =
            outcomes.iter().find(|(id, _)| *id == written.command_id).expect("its outcome");
        let stands: Vec<Position> = log[written.partition.index()]
            .iter()
            .filter_map(|entry| match entry {
                Entry::Event(entry) if entry.event.command_id == written.command_id => {
                    assert_eq!(Some(entry.recorded_at), committed.recorded_at);
                    Some(Position { partition: written.partition, offset: entry.offset })
                }
                _ => None,
            })
            .collect();
        assert_eq!(outcome.positions, stands);
        assert_eq!(committed.first_offsets[i], stands.first().map(|position| position.offset));
        assert_eq!(Some(outcome.completed_at), committed.recorded_at);
        assert_eq!(outcome.version, written.version);
        let reply = outcome.reply.as_ref().map(RawJson::to_value);
        assert_eq!(reply, written.reply.as_ref().map(RawJson::to_value));
    }
}
