//! The store keeps laws 3, 4 and 5 by itself, whatever its callers do.

use std::{collections::HashSet, sync::Arc, time::Duration};

use adjutant::{
    message::{CommandId, GroupName, Offset, OutcomeStatus, Partition, Position, RawJson, Version},
    store::{
        Accepted, CheckpointMove, CommandCommit, DocumentWrite, Entry, Execution, Fence,
        FoldRequest, Intake, LogKind, Logs, NewEvent, NewOutcome, Outbox, Store, StoreError,
        ViewCommit, Views, postgres::PostgresStore,
    },
};
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::support::{
    commands::{add, command, stream},
    database::Database,
    eventually,
};

async fn offsets(pool: &PgPool, table: &str) -> Vec<(i16, Vec<i64>)> {
    let sql = format!(
        "SELECT partition, array_agg(\"offset\" ORDER BY \"offset\") FROM adjutant.{table}
          GROUP BY partition ORDER BY partition"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await.expect("offsets")
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM adjutant.{table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.expect("count")
}

fn assert_gapless(logs: &[(i16, Vec<i64>)]) {
    for (partition, offsets) in logs {
        let expected: Vec<i64> = (1..=offsets.len() as i64).collect();
        assert_eq!(*offsets, expected, "partition {partition}");
    }
}

/// An event of a command that is in no log, as the immediate lane would write it.
fn appended(store: &PostgresStore, counter: &str, version: i64) -> CommandCommit {
    let stream = stream(counter);
    let partition = store.identity().partitions.of(&stream);
    let command_id = CommandId::generate();
    let data =
        RawJson::encode(&serde_json::json!({ "amount": 1, "total": version })).expect("json");
    CommandCommit {
        events: vec![NewEvent {
            stream: stream.clone(),
            partition,
            version: Version(version),
            event_type: "counter.added".into(),
            schema_version: 1,
            data,
            command_id,
            metadata: Default::default(),
        }],
        outcomes: vec![NewOutcome {
            command_id,
            partition,
            log_offset: None,
            decided_on: Some(stream.clone()),
            status: OutcomeStatus::Succeeded,
            events: 1,
            version: Version(version),
            reply: None,
            error: None,
            attempts: 1,
            reply_to: None,
        }],
        ..CommandCommit::default()
    }
}

#[tokio::test]
async fn a_command_accepted_twice_is_one_command() {
    let database = Database::migrated().await;
    let store = database.store().await;
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
    let pool = database.pool().await;
    assert_eq!(count(&pool, "commands").await, 2);
    assert_eq!(count(&pool, "command_log").await, 2);
}

#[tokio::test]
async fn the_same_id_accepted_by_many_at_once_is_one_command() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let ids: Vec<CommandId> = (0..20).map(|_| CommandId::generate()).collect();
    let tasks: Vec<_> = (0..8)
        .map(|caller: i64| {
            let (store, mut ids) = (store.clone(), ids.clone());
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
        new +=
            task.await.expect("task").iter().filter(|a| matches!(a, Accepted::New { .. })).count();
    }
    assert_eq!(new, 20, "each id is new to exactly one caller");
    let pool = database.pool().await;
    assert_eq!(count(&pool, "commands").await, 20);
    assert_gapless(&offsets(&pool, "command_log").await);
}

/// Law 4. Broken by taking the offset before the lock, or in the statement that takes the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_gapless_and_in_commit_order_under_concurrent_writers() {
    let database = Database::with_partitions(3).await;
    let store = database.store().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..25 {
                    let batch = (0..4).map(|i| add(&format!("c{}", (writer + i + round) % 11), 1));
                    if round % 5 == 4 {
                        // One that fails after its offsets were taken: it must leave no hole.
                        let mut batch: Vec<_> = batch.collect();
                        batch[0].payload =
                            RawJson::from_trusted("{\"amount\": \"\\u0000\"}".into());
                        let refused = store.accept(batch).await;
                        assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
                    } else {
                        store.accept(batch.collect()).await.expect("accept");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    let pool = database.pool().await;
    let logs = offsets(&pool, "command_log").await;
    assert_gapless(&logs);
    assert_eq!(logs.iter().map(|(_, offsets)| offsets.len()).sum::<usize>(), 8 * 20 * 4);
    // The outbox says the same, row by row, in the order of its ids.
    let rows: Vec<(i16, i64, i32)> = sqlx::query_as(
        "SELECT partition, first_offset, entries FROM adjutant.outbox WHERE route = 1 ORDER BY id",
    )
    .fetch_all(&pool)
    .await
    .expect("outbox");
    let mut next = std::collections::BTreeMap::new();
    for (partition, first, entries) in rows {
        let expected = next.entry(partition).or_insert(1);
        assert_eq!(first, *expected, "partition {partition}");
        *expected += i64::from(entries);
    }
}

/// Law 5.
#[tokio::test]
async fn a_checkpoint_moves_only_from_where_it_is() {
    let database = Database::migrated().await;
    let store = database.store().await;
    store.accept((0..4).map(|_| add("a", 1)).collect()).await.expect("accept");
    let partition = store.identity().partitions.of(&stream("a"));
    let moved = |from, to| CommandCommit {
        checkpoints: vec![CheckpointMove {
            group: GroupName::commands(),
            partition,
            from: Offset(from),
            to: Offset(to),
        }],
        ..CommandCommit::default()
    };
    store.commit_commands(moved(0, 2)).await.expect("move");
    for (from, to) in [(0, 2), (0, 3), (1, 3), (3, 4)] {
        let refused = store.commit_commands(moved(from, to)).await;
        assert!(matches!(refused, Err(StoreError::Fenced(Fence::Checkpoint))), "{refused:?}");
    }
    // Whatever stands in a transaction with a stale checkpoint is not written either.
    let mut stale = appended(&store, "a", 1);
    stale.checkpoints = moved(0, 3).checkpoints;
    let refused = store.commit_commands(stale).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::Checkpoint))), "{refused:?}");
    let pool = database.pool().await;
    assert_eq!((count(&pool, "events").await, count(&pool, "outcomes").await), (0, 0));
    let beyond = store.commit_commands(moved(2, 9)).await;
    assert!(matches!(beyond, Err(StoreError::Fenced(Fence::NotInLog))), "{beyond:?}");
    store.commit_commands(moved(2, 4)).await.expect("move");
    // A purge of the history must not let an old compare succeed.
    sqlx::query("UPDATE adjutant.checkpoints SET moved_at = moved_at - interval '1 hour'")
        .execute(&pool)
        .await
        .expect("age");
    assert_eq!(store.purge_checkpoints(100).await.expect("purge"), 1);
    let refused = store.commit_commands(moved(0, 3)).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::Checkpoint))), "{refused:?}");
    let checkpoints = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    assert_eq!(checkpoints[partition.index()], Offset(4));
}

/// Law 5: of two processes that both believe they own a partition, one writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_owners_of_a_partition_move_its_checkpoint_once() {
    let database = Database::migrated().await;
    let stores = [database.store().await, database.store().await];
    stores[0].accept((0..50).map(|_| add("a", 1)).collect()).await.expect("accept");
    let partition = stores[0].identity().partitions.of(&stream("a"));
    let mut won = 0;
    for place in 0..50 {
        let tries = stores.clone().map(|store| {
            tokio::spawn(async move {
                let mut commit = appended(&store, "a", place + 1);
                commit.checkpoints = vec![CheckpointMove {
                    group: GroupName::commands(),
                    partition,
                    from: Offset(place),
                    to: Offset(place + 1),
                }];
                store.commit_commands(commit).await
            })
        });
        for result in tries {
            match result.await.expect("task") {
                Ok(_) => won += 1,
                Err(error) => {
                    assert!(matches!(error, StoreError::Fenced(Fence::Checkpoint)), "{error:?}");
                }
            }
        }
    }
    assert_eq!(won, 50);
    assert_eq!(count(&database.pool().await, "events").await, 50);
}

/// Law 3.
#[tokio::test]
async fn a_second_outcome_of_a_command_is_refused_with_all_its_effects() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let first = appended(&store, "a", 1);
    let id = first.outcomes[0].command_id;
    store.commit_commands(first).await.expect("commit");
    let mut second = appended(&store, "a", 2);
    second.outcomes[0].command_id = id;
    let refused = store.commit_commands(second).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::Outcome))), "{refused:?}");
    let pool = database.pool().await;
    assert_eq!((count(&pool, "events").await, count(&pool, "outcomes").await), (1, 1));
}

#[tokio::test]
async fn a_taken_stream_version_is_refused() {
    let database = Database::migrated().await;
    let store = database.store().await;
    store.commit_commands(appended(&store, "a", 1)).await.expect("commit");
    let refused = store.commit_commands(appended(&store, "a", 1)).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::StreamVersion))), "{refused:?}");
    assert_gapless(&offsets(&database.pool().await, "events").await);
}

#[tokio::test]
async fn a_command_that_is_not_in_the_log_has_no_effect() {
    let database = Database::migrated().await;
    let store = database.store().await;
    store.accept(vec![add("a", 1)]).await.expect("accept");
    let mut ghost = appended(&store, "a", 1);
    ghost.outcomes[0].log_offset = Some(Offset(1)); // where another command stands
    let refused = store.commit_commands(ghost).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::NotInLog))), "{refused:?}");
    assert_eq!(count(&database.pool().await, "events").await, 0);
}

#[tokio::test]
async fn the_second_try_under_the_lock_sees_every_committed_event() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let streams = [(stream("hot"), 1)];
                    let inner = store.clone();
                    let decide = move |loaded: Vec<adjutant::store::LoadedStream>| {
                        let version = loaded[0].events.last().map_or(0, |event| event.version.0);
                        Ok(appended(&inner, "hot", version + 1))
                    };
                    let partitions = [store.identity().partitions.of(&streams[0].0)].into();
                    let done =
                        store.commit_exclusively(&partitions, &streams, Box::new(decide)).await;
                    done.expect("cannot conflict");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    let pool = database.pool().await;
    assert_gapless(&offsets(&pool, "events").await);
    assert_eq!(count(&pool, "events").await, 60);
}

fn one_document(key: &str, partition: Partition, version: i64) -> DocumentWrite {
    DocumentWrite {
        key: key.into(),
        version,
        value: Some(RawJson::encode(&version).expect("json")),
        as_of: vec![Position { partition, offset: Offset(version) }],
        partition: Some(partition),
    }
}

#[tokio::test]
async fn a_document_of_one_stream_that_two_partitions_feed_is_refused() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let commit = |partition: i16| ViewCommit {
        view: "v".into(),
        documents: vec![one_document("k", Partition(partition), 1)],
        checkpoints: Vec::new(),
    };
    store.commit_view(commit(1)).await.expect("commit");
    let refused = store.commit_view(commit(2)).await;
    assert!(matches!(refused, Err(StoreError::ScopeViolated(_))), "{refused:?}");
}

/// Law 5: a decision without events collides with no version, and is fenced all the same.
#[tokio::test]
async fn a_rejection_that_was_decided_on_an_old_state_is_refused() {
    let database = Database::migrated().await;
    let store = database.store().await;
    store.commit_commands(appended(&store, "a", 1)).await.expect("commit");
    let rejected = |version: i64| {
        let mut commit = appended(&store, "a", 2);
        commit.events.clear();
        commit.outcomes[0].status = OutcomeStatus::Rejected;
        commit.outcomes[0].events = 0;
        commit.outcomes[0].version = Version(version);
        commit
    };
    for stale in [0, 2] {
        let refused = store.commit_commands(rejected(stale)).await;
        assert!(matches!(refused, Err(StoreError::Fenced(Fence::StreamVersion))), "{refused:?}");
    }
    store.commit_commands(rejected(1)).await.expect("on the present state");
    assert_eq!(count(&database.pool().await, "outcomes").await, 2);
}

/// Law 3: a view and its checkpoint move together, or neither does.
#[tokio::test]
async fn a_view_is_not_written_when_its_checkpoint_is_elsewhere() {
    let database = Database::migrated().await;
    let store = database.store().await;
    for version in 1..=3 {
        store.commit_commands(appended(&store, "a", version)).await.expect("commit");
    }
    let partition = store.identity().partitions.of(&stream("a"));
    let group = GroupName::projection("v");
    let moved = |from, to| {
        let (from, to) = (Offset(from), Offset(to));
        vec![CheckpointMove { group: group.clone(), partition, from, to }]
    };
    let commit = |version, from, to| ViewCommit {
        view: "v".into(),
        documents: vec![one_document("k", partition, version)],
        checkpoints: moved(from, to),
    };
    store.commit_view(commit(1, 0, 1)).await.expect("commit");
    for (from, to) in [(0, 1), (0, 2), (2, 3)] {
        let refused = store.commit_view(commit(9, from, to)).await;
        assert!(matches!(refused, Err(StoreError::Fenced(Fence::Checkpoint))), "{refused:?}");
    }
    let request =
        FoldRequest { view: "v".into(), keys: vec!["s".into()], checkpoints: moved(0, 2) };
    let fold = |rows: Vec<adjutant::store::DocumentRow>| {
        Ok(rows
            .iter()
            .map(|row| DocumentWrite { partition: None, ..one_document(&row.key, partition, 1) })
            .collect())
    };
    let refused = store.fold_shared(request, Box::new(fold)).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::Checkpoint))), "{refused:?}");
    let rows = store.load_documents("v", &["k".into(), "s".into()]).await.expect("load");
    assert_eq!(
        (rows[0].version, rows[1].version),
        (1, 0),
        "nothing was written with a stale checkpoint"
    );
    assert_eq!(store.checkpoints(&group).await.expect("checkpoints")[partition.index()], Offset(1));
}

/// Law 4, for the event log: writers of one partition that share no stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_log_is_gapless_under_concurrent_writers() {
    let database = Database::with_partitions(1).await;
    let store = database.store().await;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for version in 1..=20 {
                    let commit = appended(&store, &format!("w{writer}"), version);
                    store.commit_commands(commit).await.expect("waits for the lock, and succeeds");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    let logs = offsets(&database.pool().await, "events").await;
    assert_gapless(&logs);
    assert_eq!(logs[0].1.len(), 120);
}

/// Law 2: what the broker is to be told stands in the transaction of what it is about.
#[tokio::test]
async fn outbox_rows_are_written_with_what_they_tell_or_not_at_all() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let pool = database.pool().await;
    store.accept((0..5).map(|i| add(&format!("c{i}"), 1)).collect()).await.expect("accept");
    let told: i64 = sqlx::query_scalar("SELECT sum(entries) FROM adjutant.outbox WHERE route = 1")
        .fetch_one(&pool)
        .await
        .expect("told");
    assert_eq!(told, 5);
    let mut batch = vec![add("x", 1)];
    batch[0].payload = RawJson::from_trusted("{\"amount\": \"\\u0000\"}".into());
    store.accept(batch).await.expect_err("cannot be stored");
    let with_message = |version| {
        let mut commit = appended(&store, "a", version);
        let partition = commit.events[0].partition;
        commit.messages.push(adjutant::store::EventMessage {
            partition,
            events: 1,
            body: b"told".to_vec(),
        });
        commit
    };
    store.commit_commands(with_message(1)).await.expect("commit");
    store.commit_commands(with_message(1)).await.expect_err("the version is taken");
    let rows: Vec<(i16, i32, Option<i64>)> =
        sqlx::query_as("SELECT route, entries, first_offset FROM adjutant.outbox WHERE route = 2")
            .fetch_all(&pool)
            .await
            .expect("rows");
    assert_eq!(rows, [(2, 1, Some(1))]);
    let told: i64 = sqlx::query_scalar("SELECT sum(entries) FROM adjutant.outbox WHERE route = 1")
        .fetch_one(&pool)
        .await
        .expect("told");
    assert_eq!(told, 5);
}

/// An absent row cannot be locked: broken by leaving out the empty insert.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_many_fold_at_once_lose_no_update() {
    let database = Database::migrated().await;
    let store = database.store().await;
    for round in 0..10 {
        let folders: Vec<_> = (0..6)
            .map(|folder| {
                let store = store.clone();
                tokio::spawn(async move {
                    let request = FoldRequest {
                        view: "sum".into(),
                        keys: vec![format!("a{round}"), format!("b{round}")],
                        checkpoints: Vec::new(),
                    };
                    let fold = move |rows: Vec<adjutant::store::DocumentRow>| {
                        Ok(rows
                            .into_iter()
                            .map(|row| DocumentWrite {
                                key: row.key.clone(),
                                version: row.version + 1,
                                value: Some(RawJson::encode(&(row.version + 1)).expect("json")),
                                as_of: vec![Position {
                                    partition: Partition(folder),
                                    offset: Offset(1),
                                }],
                                partition: None,
                            })
                            .collect())
                    };
                    store.fold_shared(request, Box::new(fold)).await.expect("fold");
                })
            })
            .collect();
        for folder in folders {
            folder.await.expect("folder");
        }
        let keys = [format!("a{round}"), format!("b{round}")];
        for row in store.load_documents("sum", &keys).await.expect("load") {
            assert_eq!(row.version, 6, "{row:?}");
            assert_eq!(row.value.expect("value").as_str(), "6");
        }
    }
}

#[tokio::test]
async fn the_outbox_is_read_from_an_exact_lower_bound() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let all: Vec<Partition> = store.identity().partitions.all().collect();
    // A transaction that began before and commits after the first read.
    let pool = database.pool().await;
    let mut slow = pool.begin().await.expect("begin");
    sqlx::query(
        "INSERT INTO adjutant.outbox (partition, route, entries, content_type, body, recorded_at)
         VALUES (0, 4, 0, 'text/plain', 'late', clock_timestamp())",
    )
    .execute(&mut *slow)
    .await
    .expect("insert");
    store.accept(vec![add("a", 1)]).await.expect("accept");
    let first = store.read_outbox(&all, 0, &[], 100).await.expect("read");
    assert_eq!(first.rows.len(), 1);
    slow.commit().await.expect("commit");
    let known: Vec<i64> = first.rows.iter().map(|row| row.id).collect();
    let second = store.read_outbox(&all, first.next_bound, &known, 100).await.expect("read");
    assert_eq!(second.rows.len(), 1, "the late row is not passed over");
    assert_eq!(second.rows[0].body, b"late");
    // Transactions of other databases hold the bound back for a moment, too.
    let mut bound = second.next_bound;
    eventually("rows below the bound are not read again", async || {
        let page = store.read_outbox(&all, bound, &[], 100).await.expect("read");
        bound = page.next_bound;
        page.rows.is_empty().then_some(())
    })
    .await;
    store.delete_outbox(&known).await.expect("delete");
    assert_eq!(store.outbox_depth(10).await.expect("depth").0, 1);
}

#[tokio::test]
async fn a_delayed_command_enters_the_log_when_it_is_due() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let mut delayed = add("a", 1);
    delayed.not_before = Some(OffsetDateTime::now_utc() + Duration::from_millis(600));
    store.accept(vec![delayed.clone(), add("a", 2)]).await.expect("accept");
    let all: Vec<Partition> = store.identity().partitions.all().collect();
    assert_eq!(store.promote_due(&all, 10).await.expect("promote"), 0);
    eventually("due", async || {
        (store.promote_due(&all, 10).await.expect("promote") == 1).then_some(())
    })
    .await;
    let partition = store.identity().partitions.of(&delayed.stream);
    let log = store.read_log(LogKind::Commands, partition, Offset(1), 10).await.expect("log");
    let ids: Vec<_> = log
        .iter()
        .map(|entry| match entry {
            Entry::Command(entry) => (entry.offset.0, entry.command.id == delayed.id),
            Entry::Event(_) => panic!("an event in the command log"),
        })
        .collect();
    assert_eq!(ids, [(1, false), (2, true)]);
}

#[tokio::test]
async fn an_answered_commit_is_on_disk_whatever_the_database_says() {
    let database = Database::migrated().await;
    let pool = database.pool().await;
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&pool).await.expect("name");
    let off = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    sqlx::raw_sql(sqlx::AssertSqlSafe(off)).execute(&pool).await.expect("alter");
    let store = database.store().await;
    assert_eq!(store.session_settings("synchronous_commit").await.expect("read"), ["on", "on"]);
    let stronger = format!("ALTER DATABASE {name} SET synchronous_commit = remote_apply");
    sqlx::raw_sql(sqlx::AssertSqlSafe(stronger)).execute(&pool).await.expect("alter");
    let store = database.store().await;
    assert_eq!(
        store.session_settings("synchronous_commit").await.expect("read"),
        ["remote_apply", "remote_apply"]
    );
}

#[tokio::test]
async fn an_abandoned_transaction_takes_its_connection_with_it() {
    let database = Database::migrated().await;
    let store = database.store().await;
    // Futures dropped at every await of an accept: no lock stays, no connection comes back dirty.
    for polls in 1..40 {
        let mut accept = Box::pin(store.accept(vec![add("a", 1)]));
        for _ in 0..polls {
            let polled = futures_util::poll!(accept.as_mut());
            if polled.is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    let accepted: Vec<_> =
        store.accept((0..8).map(|_| add("a", 1)).collect()).await.expect("accept");
    assert!(accepted.iter().all(|a| matches!(a, Accepted::New { .. })));
    let pool = database.pool().await;
    assert_gapless(&offsets(&pool, "command_log").await);
    let commands: Vec<(uuid::Uuid,)> =
        sqlx::query_as("SELECT id FROM adjutant.commands").fetch_all(&pool).await.expect("ids");
    let logged: Vec<(uuid::Uuid,)> = sqlx::query_as("SELECT command_id FROM adjutant.command_log")
        .fetch_all(&pool)
        .await
        .expect("ids");
    let set: HashSet<_> = logged.iter().collect();
    assert_eq!(commands.len(), logged.len());
    assert!(commands.iter().all(|id| set.contains(id)), "each command with its log entry");
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused_with_a_clear_message() {
    let database = Database::empty().await;
    let connect =
        || PostgresStore::connect(adjutant::store::postgres::PostgresSettings::new(&database.url));
    let Err(error) = connect().await else { panic!("not migrated, but accepted") };
    assert!(error.to_string().contains("run the `migrate` command"), "{error}");
    adjutant::store::postgres::migrate(&database.url, None).await.expect("migrate");
    let store = Arc::new(connect().await.expect("connect"));
    assert_eq!(store.identity().partitions.get(), 8);
    let pool = database.pool().await;
    sqlx::query("INSERT INTO adjutant.releases VALUES (2, '99.0.0')")
        .execute(&pool)
        .await
        .expect("insert");
    let Err(error) = connect().await else { panic!("too old, but accepted") };
    assert!(error.to_string().contains("99.0.0"), "{error}");
    sqlx::query("DELETE FROM adjutant.releases WHERE migration = 2")
        .execute(&pool)
        .await
        .expect("delete");
    sqlx::query("UPDATE adjutant._sqlx_migrations SET success = false")
        .execute(&pool)
        .await
        .expect("dirty");
    let Err(error) = connect().await else { panic!("dirty, but accepted") };
    assert!(error.to_string().contains("stopped half-way"), "{error}");
}
