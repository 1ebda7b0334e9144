//! What the PostgreSQL store does beyond what every store does (see `conformance`): connections,
//! slow transactions, sessions, migrations.

use std::{collections::HashSet, sync::Arc, time::Duration};

use adjutant::{
    message::{GroupName, MemberId, Offset, Partition},
    store::{
        Accepted, CancelAnswer, Cancellation, CancelledBy, CheckpointMove, CommandCommit,
        Execution, Fence, Intake, Logs, NewCommand, Outbox, Store, StoreError, WhenDue,
        postgres::PostgresStore,
    },
};
use sqlx::PgPool;

use crate::support::{
    commands::{add, stream},
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

/// Whether one waits for somebody's lock.
async fn a_cancellation_waits(pool: &PgPool) -> bool {
    let waiting = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock'
            AND query LIKE '%cancel_commands%'",
    );
    waiting.fetch_one(pool).await.is_ok_and(|waiting| waiting == 1)
}

fn assert_gapless(logs: &[(i16, Vec<i64>)]) {
    for (partition, offsets) in logs {
        let expected: Vec<i64> = (1..=offsets.len() as i64).collect();
        assert_eq!(*offsets, expected, "partition {partition}");
    }
}

/// Law 5: an old compare fails also when the history it would collide with is gone.
#[tokio::test]
async fn a_purge_of_checkpoint_history_lets_no_old_compare_succeed() {
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
    store.commit_commands(moved(2, 4)).await.expect("move");
    assert_eq!(store.purge_checkpoints(100).await.expect("purge"), 0, "it is young");
    sqlx::query("UPDATE adjutant.checkpoints SET moved_at = moved_at - interval '1 hour'")
        .execute(&database.pool().await)
        .await
        .expect("age");
    assert_eq!(store.purge_checkpoints(100).await.expect("purge"), 1);
    let refused = store.commit_commands(moved(0, 3)).await;
    assert!(matches!(refused, Err(StoreError::Fenced(Fence::Checkpoint))), "{refused:?}");
    let checkpoints = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    assert_eq!(checkpoints[partition.index()], Offset(4));
}

/// Law 4: a cancellation takes what can wait for others first, then the log locks in their order. The
/// executor does, too; whoever did not would wait for it while it waits for them.
#[tokio::test]
async fn a_cancellation_that_waits_holds_nothing_that_comes_later() {
    const COMMAND_LOG: &str = "1094929921";
    const EVENT_LOG: &str = "1094929922";
    let database = Database::migrated().await;
    let store = database.store().await;
    let pool = database.pool().await;
    let partition = store.identity().partitions.of(&stream("a")).0;
    let lock = |log: &str| format!("SELECT pg_advisory_xact_lock({log}, {partition})");
    let held_row = "SELECT id FROM adjutant.immediate FOR UPDATE".to_owned();
    for (others_hold, later) in
        [(held_row, &[COMMAND_LOG, EVENT_LOG][..]), (lock(COMMAND_LOG), &[EVENT_LOG])]
    {
        let held = NewCommand { held_by: Some(MemberId::generate()), ..add("a", 1) };
        store.accept(vec![held.clone()]).await.expect("accept");
        let mut executor = pool.begin().await.expect("begin");
        let hold = sqlx::AssertSqlSafe(others_hold.clone());
        sqlx::raw_sql(hold).execute(&mut *executor).await.expect("hold");
        let cancelling = {
            let store = store.clone();
            let by = CancelledBy { who: "ann".into(), reason: None, job: None };
            tokio::spawn(async move { store.cancel_commands(&[held.id], &by).await })
        };
        eventually("it waits", async || a_cancellation_waits(&pool).await.then_some(())).await;
        for log in later {
            let free = format!("SELECT pg_try_advisory_xact_lock({log}, {partition})");
            let free = sqlx::query_scalar(sqlx::AssertSqlSafe(free)).fetch_one(&pool).await;
            assert!(free.unwrap_or(false), "behind `{others_hold}` it holds {log}");
        }
        executor.rollback().await.expect("let go");
        let answers = cancelling.await.expect("joined").expect("cancel");
        assert!(matches!(answers[..], [CancelAnswer::Cancelled { .. }]), "{answers:?}");
    }
}

/// Law 3: between the schedule and the hands of a process a command is nowhere for whoever does not wait
/// for the claim.
#[tokio::test]
async fn a_cancellation_waits_for_a_claim_that_is_under_way() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let pool = database.pool().await;
    let due = NewCommand { when_due: WhenDue::Lane, ..add("a", 1) };
    store.accept(vec![due.clone()]).await.expect("accept");
    let mut claim = pool.begin().await.expect("begin");
    sqlx::raw_sql(
        "WITH due AS (DELETE FROM adjutant.schedule RETURNING *)
         INSERT INTO adjutant.immediate (partition, command_id, bucket, owner, accepted_at)
         SELECT partition, command_id, bucket, gen_random_uuid(), now() FROM due",
    )
    .execute(&mut *claim)
    .await
    .expect("as a claim does");
    let cancelling = {
        let (store, id) = (store.clone(), due.id);
        let by = CancelledBy { who: "ann".into(), reason: None, job: None };
        tokio::spawn(async move { store.cancel_commands(&[id], &by).await })
    };
    eventually("it waits", async || {
        let waits = a_cancellation_waits(&pool).await;
        (waits || cancelling.is_finished()).then_some(())
    })
    .await;
    claim.commit().await.expect("commit");
    let answers = cancelling.await.expect("joined").expect("cancel");
    assert!(matches!(answers[..], [CancelAnswer::Cancelled { .. }]), "{answers:?}");
    let place = store.identity().partitions.of(&due.stream);
    let held = store.held(&[(place, due.id)]).await.expect("held");
    assert!(held.is_empty(), "nobody executes what was called off");
}

#[tokio::test]
async fn a_row_of_a_slow_transaction_is_not_below_the_outbox_bound() {
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
    sqlx::query("INSERT INTO adjutant.releases VALUES (99, '99.0.0')")
        .execute(&pool)
        .await
        .expect("insert");
    let Err(error) = connect().await else { panic!("too old, but accepted") };
    assert!(error.to_string().contains("99.0.0"), "{error}");
    sqlx::query("DELETE FROM adjutant.releases WHERE migration = 99")
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
