//! The second try, snapshots, what comes back, and replies.

use std::time::Duration;

use adjutant::{
    message::{Attempt, Failure, Offset, OutcomeStatus, RawJson, ReplyAddress, Route, Version},
    store::{
        CommandCommit, DecideAgain, Entering, LoadedStream, LogKind, NewSnapshot, SetAside,
        StoreError,
    },
};

use super::{
    Open,
    look::{self, appended},
};
use crate::support::commands::{add, stream};

pub async fn the_second_try_sees_every_committed_event(open: Open) {
    let truth = open(8).await;
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let store = truth.store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let streams = [(stream("hot"), 1)];
                    // The closure borrows: a store may not ask for more.
                    let decide: DecideAgain<'_> = Box::new(|loaded: Vec<LoadedStream>| {
                        let version = loaded[0].events.last().map_or(0, |event| event.version.0);
                        Ok(appended(&store, "hot", version + 1))
                    });
                    let partitions = [store.identity().partitions.of(&streams[0].0)].into();
                    let done = store
                        .commit_exclusively(&partitions, &streams, &Entering::default(), decide)
                        .await;
                    done.expect("cannot conflict");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    assert_eq!(look::gapless(&truth.store, LogKind::Events).await, 60);
}

pub async fn a_second_try_that_fails_writes_nothing(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let streams = [(stream("a"), 1)];
    let partitions = [store.identity().partitions.of(&streams[0].0)].into();
    let give_up: DecideAgain<'_> =
        Box::new(|_| Err(StoreError::Corrupt("nothing to decide on".into())));
    let refused =
        store.commit_exclusively(&partitions, &streams, &Entering::default(), give_up).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    let bad: DecideAgain<'_> = Box::new(|_| {
        let mut commit = appended(store, "a", 1);
        commit.events[0].data = look::unstorable();
        Ok(commit)
    });
    let refused = store.commit_exclusively(&partitions, &streams, &Entering::default(), bad).await;
    assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
    assert_eq!(look::gapless(store, LogKind::Events).await, 0);
    let good: DecideAgain<'_> = Box::new(|_| Ok(appended(store, "a", 1)));
    store
        .commit_exclusively(&partitions, &streams, &Entering::default(), good)
        .await
        .expect("nothing is locked");
}

pub async fn a_stream_is_loaded_from_its_newest_usable_snapshot(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    for version in 1..=5 {
        store.commit_commands(appended(store, "a", version)).await.expect("commit");
    }
    let snapshot = |version, state_version, state: &str| {
        let partition = store.identity().partitions.of(&stream("a"));
        CommandCommit {
            snapshots: vec![NewSnapshot {
                stream: stream("a"),
                partition,
                version: Version(version),
                state_version,
                state: state.as_bytes().to_vec(),
            }],
            ..CommandCommit::default()
        }
    };
    let load = async |state_version| {
        let asked = [(stream("empty"), 1), (stream("a"), state_version)];
        let mut loaded = store.load_streams(&asked).await.expect("load");
        assert_eq!(loaded[0].stream, stream("empty"));
        assert!(loaded[0].snapshot.is_none() && loaded[0].events.is_empty());
        let loaded = loaded.remove(1);
        let versions: Vec<i64> = loaded.events.iter().map(|event| event.version.0).collect();
        (loaded.snapshot.map(|s| (s.version.0, s.state)), versions)
    };
    assert_eq!(load(1).await, (None, vec![1, 2, 3, 4, 5]));
    store.commit_commands(snapshot(3, 1, "three")).await.expect("commit");
    assert_eq!(load(1).await, (Some((3, b"three".to_vec())), vec![4, 5]));
    assert_eq!(load(2).await, (None, vec![1, 2, 3, 4, 5]), "of another state version");
    store.commit_commands(snapshot(2, 1, "older")).await.expect("commit");
    assert_eq!(load(1).await.0, Some((3, b"three".to_vec())), "an older one changes nothing");
    store.commit_commands(snapshot(2, 2, "upgraded")).await.expect("commit");
    assert_eq!(load(2).await, (Some((2, b"upgraded".to_vec())), vec![3, 4, 5]));
}

pub async fn a_stream_has_no_gap_though_its_snapshot_is_written_while_it_is_loaded(open: Open) {
    let truth = open(8).await;
    let writer = truth.store.clone();
    let writes = tokio::spawn(async move {
        for version in 1..=200 {
            let mut commit = appended(&writer, "a", version);
            // The newest event is behind it.
            commit.snapshots.push(NewSnapshot {
                stream: stream("a"),
                partition: writer.identity().partitions.of(&stream("a")),
                version: Version(version - 1),
                state_version: 1,
                state: b"state".to_vec(),
            });
            writer.commit_commands(commit).await.expect("commit");
        }
    });
    let mut loads = 0;
    while !writes.is_finished() {
        let loaded = truth.other.load_streams(&[(stream("a"), 1)]).await.expect("load").remove(0);
        let snapshot = loaded.snapshot.as_ref().map(|it| it.version).unwrap_or_default();
        for (event, i) in loaded.events.iter().zip(1..) {
            assert_eq!(event.version.0, snapshot.0 + i, "behind the snapshot {snapshot}");
        }
        loads += 1;
    }
    writes.await.expect("writer");
    assert!(loads > 20, "{loads}");
}

pub async fn a_command_set_aside_comes_back_as_a_new_entry(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let command = add("a", 1);
    store.accept(vec![command.clone()]).await.expect("accept");
    let partition = store.identity().partitions.of(&command.stream);
    let aside = |delay_ms| CommandCommit {
        set_aside: vec![SetAside {
            command_id: command.id,
            partition,
            delay_ms,
            reason: "type_unknown_here",
            attempt: Attempt::FIRST,
            first_offset: None,
            edit: 0,
        }],
        ..CommandCommit::default()
    };
    store.commit_commands(aside(3_600_000)).await.expect("commit");
    store.commit_commands(aside(0)).await.expect("commit");
    let record = store.command(command.id).await.expect("query").expect("is there");
    assert!(!record.scheduled, "it is not the sender who delays it");
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 1);
    assert_eq!(look::gapless(store, LogKind::Commands).await, 2);
    let rows = look::outbox(store).await;
    assert_eq!(rows.last().and_then(|row| row.first_offset), Some(Offset(2)));
}

pub async fn a_reply_carries_the_outcome(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let queue = "answers".to_owned();
    let to = |id: &str| ReplyAddress { queue: queue.clone(), correlation_id: Some(id.into()) };
    let mut done = appended(store, "a", 1);
    done.outcomes[0].reply_to = Some(to("one"));
    done.outcomes[0].reply = Some(RawJson::from_trusted("{\"b\": 9007199254740993}".into()));
    let mut dead = look::rejected(store, "b", 0);
    dead.outcomes[0].reply_to = Some(to("two"));
    dead.outcomes[0].status = OutcomeStatus::Dead;
    dead.outcomes[0].attempts = 3;
    dead.outcomes[0].error = Some(Failure::new("c", "because"));
    for commit in [&done, &dead] {
        store.commit_commands(commit.clone()).await.expect("commit");
    }
    let rows: Vec<_> = look::outbox(store)
        .await
        .into_iter()
        .filter(|row| row.route == Route::Reply { queue: queue.clone() })
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].correlation_id.as_deref(), Some("one"));
    assert_eq!((rows[0].entries, rows[0].first_offset), (0, None));
    assert_eq!(rows[0].content_type, "application/json");
    let bodies: Vec<serde_json::Value> =
        rows.iter().map(|row| serde_json::from_slice(&row.body).expect("JSON")).collect();
    let partition = done.outcomes[0].partition;
    let completed_at = bodies[0]["completed_at"].as_str().expect("a time");
    assert_eq!(completed_at.len(), "2026-01-02T03:04:05.678901Z".len(), "{completed_at}");
    assert_eq!(
        bodies[0],
        serde_json::json!({
            "id": done.outcomes[0].command_id, "status": "succeeded", "attempts": 1,
            "completed_at": completed_at,
            "outcome": {
                "positions": [format!("{partition}:1")], "version": 1,
                "reply": { "b": 9_007_199_254_740_993_i64 }, "error": null,
            },
        })
    );
    assert_eq!((&bodies[1]["status"], &bodies[1]["attempts"]), (&"dead".into(), &3.into()));
    assert_eq!(
        bodies[1]["outcome"],
        serde_json::json!({
            "positions": [], "version": 0, "reply": null,
            "error": { "code": "c", "message": "because" },
        })
    );
}
