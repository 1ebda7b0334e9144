//! Strict order: while one command of a stream is retried, set aside or dead, later strict ones of
//! that stream wait behind it, and go on in order. All others go on at once.

use std::{sync::Arc, time::Duration};

use adjutant::{
    broker::local::{LocalBroker, LocalSettings},
    execute::{Run, RunEnd},
    message::{CommandId, Offset, OutcomeStatus, Partition},
    service::Process,
    store::{CommandStatus, Entry, LogKind, Logs, NewCommand, Outbox, Queries, Role, Store},
};

use crate::{
    main_path::accept,
    support::{
        commands::{add, flaky},
        domain::repair,
        eventually,
        process::{ALL, Site},
    },
};

fn key() -> String {
    CommandId::generate().to_string()
}

/// A strict command that succeeds.
fn in_order(counter: &str) -> NewCommand {
    flaky("in_order", counter, &key(), 0, "retryable")
}

async fn status(site: &Site, id: CommandId) -> CommandStatus {
    site.store.command(id).await.expect("command").expect("there").status()
}

async fn until(site: &Site, id: CommandId, status_is: CommandStatus) {
    eventually(status_is.as_str(), async || (status(site, id).await == status_is).then_some(()))
        .await;
}

/// The stream's versions after these commands, which have all succeeded.
async fn versions(site: &Site, ids: &[CommandId]) -> Vec<i64> {
    let mut versions = Vec::new();
    for id in ids {
        let record = site.store.command(*id).await.expect("command").expect("there");
        let outcome = record.outcome.expect("ended");
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{:?}", outcome.error);
        versions.push(outcome.version.0);
    }
    versions
}

async fn assert_in_order(site: &Site, ids: &[CommandId]) {
    let versions = versions(site, ids).await;
    assert!(versions.is_sorted(), "{versions:?}");
}

async fn assert_nothing_is_held(site: &Site) {
    let pool = site.database.pool().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.holds")
        .fetch_one(&pool)
        .await
        .expect("holds");
    assert_eq!(rows, 0);
}

/// Executes all that is in the log of a partition behind `checkpoint` in one batch.
async fn execute_behind(
    site: &Site,
    process: &Process,
    partition: Partition,
    checkpoint: Offset,
) -> usize {
    let log = site.store.read_log(LogKind::Commands, partition, checkpoint.plus(1), 100);
    let of_commands = |entry| match entry {
        Entry::Command(entry) => Some(entry),
        Entry::Event(_) => None,
    };
    let entries: Vec<_> = log.await.expect("read").into_iter().filter_map(of_commands).collect();
    let count = entries.len();
    let run = Run { partition, checkpoint: Some(checkpoint), entries, crashed: None };
    let ends = process.executor().execute(vec![run]).await;
    assert!(matches!(ends.as_slice(), [RunEnd::Done]), "{ends:?}");
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_waits_goes_on_when_what_held_it_ends_in_the_same_batch() {
    let site = Site::new().await;
    // Nobody else executes or promotes, and no road is needed.
    let road = LocalBroker::new(LocalSettings::default(), site.road.partitions);
    let process = site.start_with(&[Role::Ingress], Arc::new(road)).await;
    let first = flaky("in_order", "a", &key(), 1, "retryable");
    let partition = site.store.identity().partitions.of(&first.stream);
    let promoted = async || {
        eventually("it is due", async || {
            (site.store.promote_due(&[partition], Duration::ZERO, 10).await.expect("promote") > 0)
                .then_some(())
        })
        .await;
    };
    let mut ids = accept(&site, &process, vec![first]).await;
    let mut done = Offset::default();
    done = done.plus(execute_behind(&site, &process, partition, done).await);
    ids.extend(accept(&site, &process, vec![in_order("a"), in_order("a")]).await);
    promoted().await;
    // Those that wait are before the retry that they wait for.
    done = done.plus(execute_behind(&site, &process, partition, done).await);
    assert_eq!(done, Offset(4));
    while how_many_ended(&site, &ids).await < ids.len() {
        promoted().await;
        done = done.plus(execute_behind(&site, &process, partition, done).await);
    }
    assert_eq!(versions(&site, &ids).await, [1, 2, 3]);
    assert_nothing_is_held(&site).await;
}

async fn how_many_ended(site: &Site, ids: &[CommandId]) -> usize {
    let mut ended = 0;
    for id in ids {
        ended += usize::from(matches!(status(site, *id).await, CommandStatus::Ended(_)));
    }
    ended
}

/// What a person's discard does to the order of the stream.
async fn discard(site: &Site, id: CommandId) {
    let pool = site.database.pool().await;
    let mut transaction = pool.begin().await.expect("begin");
    sqlx::query(
        "SELECT pg_advisory_xact_lock(1094929921, partition::integer) FROM adjutant.holds
          WHERE command_id = $1",
    )
    .bind(id.0)
    .execute(&mut *transaction)
    .await
    .expect("lock");
    let (partition, stream): (i16, String) = sqlx::query_as(
        "DELETE FROM adjutant.holds WHERE command_id = $1 RETURNING partition, stream",
    )
    .bind(id.0)
    .fetch_one(&mut *transaction)
    .await
    .expect("a dead strict command has a row");
    sqlx::query("SELECT adjutant.release_waiting(ARRAY[$1], ARRAY[$2])")
        .bind(partition)
        .bind(stream)
        .execute(&mut *transaction)
        .await
        .expect("release");
    transaction.commit().await.expect("commit");
}

/// What a person's retry does.
async fn retry(site: &Site, id: CommandId) {
    let pool = site.database.pool().await;
    let mut transaction = pool.begin().await.expect("begin");
    sqlx::query(
        "INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason, attempt,
                                        first_offset)
         SELECT partition, clock_timestamp(), command_id, bucket, 'dead_letter_retry', attempt,
                first_offset
           FROM adjutant.holds WHERE command_id = $1",
    )
    .bind(id.0)
    .execute(&mut *transaction)
    .await
    .expect("schedule");
    for sql in [
        "UPDATE adjutant.dead_letters SET state = 2 WHERE command_id = $1 AND state = 1",
        "DELETE FROM adjutant.outcomes WHERE command_id = $1",
    ] {
        let done = sqlx::query(sql).bind(id.0).execute(&mut *transaction).await.expect("retry");
        assert_eq!(done.rows_affected(), 1);
    }
    transaction.commit().await.expect("commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_strict_ones_wait_behind_a_dead_one_and_all_others_go_on() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let dies = flaky("in_order", "a", &key(), 100, "fatal");
    let before = in_order("a");
    let waiting: Vec<_> = (0..3).map(|_| in_order("a")).collect();
    let others = [before.clone(), add("a", 1), in_order("b"), add("c", 1)];
    let mut batch = vec![before, dies.clone()];
    batch.extend(waiting.clone());
    batch.extend(others[1..].to_vec());
    accept(&site, &process, batch).await;
    let waits: Vec<_> = waiting.iter().map(|command| command.id).collect();
    for id in &waits {
        until(&site, *id, CommandStatus::Waiting).await;
    }
    let others: Vec<_> = others.iter().map(|command| command.id).collect();
    site.until_ended(&others).await;
    assert_eq!(status(&site, dies.id).await, CommandStatus::Ended(OutcomeStatus::Dead));
    // One that comes later waits, too; a relaxed one does not.
    let late = accept(&site, &process, vec![in_order("a"), add("a", 1)]).await;
    until(&site, late[0], CommandStatus::Waiting).await;
    site.until_ended(&late[1..]).await;
    discard(&site, dies.id).await;
    let mut released = waits.clone();
    released.push(late[0]);
    site.until_ended(&released).await;
    assert_in_order(&site, &released).await;
    assert_nothing_is_held(&site).await;
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_runs_in_order_after_the_dead_one_was_retried() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let key = key();
    let dies = flaky("in_order", "a", &key, 1_000_000, "fatal");
    let mut ids = accept(&site, &process, vec![dies.clone(), in_order("a"), in_order("a")]).await;
    until(&site, ids[2], CommandStatus::Waiting).await;
    retry(&site, dies.id).await;
    // It dies again: the first dead letter is resolved, there is another one, and all still wait.
    let pool = site.database.pool().await;
    let states = async || -> Vec<(i16, i32)> {
        sqlx::query_as(
            "SELECT state, attempts FROM adjutant.dead_letters WHERE command_id = $1 ORDER BY id",
        )
        .bind(dies.id.0)
        .fetch_all(&pool)
        .await
        .expect("dead letters")
    };
    eventually("dead again", async || (states().await.len() == 2).then_some(())).await;
    assert_eq!(states().await, [(3, 1), (1, 2)]);
    assert_eq!(status(&site, ids[1]).await, CommandStatus::Waiting);
    // New ones arrive while the retry and the release are under way.
    repair(&key);
    retry(&site, dies.id).await;
    for _ in 0..40 {
        ids.extend(accept(&site, &process, vec![in_order("a")]).await);
    }
    site.until_ended(&ids).await;
    assert_in_order(&site, &ids).await;
    assert_eq!(states().await, [(3, 1), (3, 2)]);
    assert_nothing_is_held(&site).await;
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_keep_the_order_of_strict_commands_and_not_of_relaxed_ones() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let mut strict = Vec::new();
    let mut relaxed = Vec::new();
    for round in 0..10 {
        let fails = [2, 0, 1, 0, 3][round % 5];
        let batch = vec![
            flaky("in_order", "a", &key(), fails, "retryable"),
            flaky("in_order", "a", &key(), 0, "retryable"),
            flaky("flaky", "a", &key(), u32::from(round == 0), "retryable"),
        ];
        let ids = accept(&site, &process, batch).await;
        strict.extend(&ids[..2]);
        relaxed.push(ids[2]);
    }
    site.until_ended(&strict).await;
    site.until_ended(&relaxed).await;
    assert_in_order(&site, &strict).await;
    assert_nothing_is_held(&site).await;
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

/// The order outlives processes: it is in the database, and fenced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_holds_while_processes_die_and_others_take_over() {
    let site = Site::new().await;
    let ingress = site.start(&[Role::Relay]).await;
    let mut workers: Vec<Process> = Vec::new();
    let counters = ["a", "b", "c"];
    let mut ids = vec![Vec::new(); counters.len()];
    for round in 0..9_u32 {
        for (counter, ids) in counters.iter().zip(&mut ids) {
            let batch = (0..6).map(|i| {
                let fails = u32::from((round + i) % 3 == 0);
                flaky("in_order", counter, &key(), fails, "retryable")
            });
            ids.extend(accept(&site, &ingress, batch.collect()).await);
        }
        workers.push(site.start(&[Role::CommandWorker, Role::ProjectionWorker]).await);
        if round % 2 == 0 {
            until_some_ended(&site, &ids.concat(), (round as usize + 1) * 4).await;
            drop(workers.remove(0)); // it dies
        }
    }
    workers.push(site.start(&ALL).await);
    site.until_ended(&ids.concat()).await;
    for ids in &ids {
        assert_in_order(&site, ids).await;
    }
    assert_nothing_is_held(&site).await;
    site.until_applied().await;
    site.assert_lawful().await;
    for process in workers {
        process.stop(Duration::from_secs(10)).await;
    }
    ingress.stop(Duration::from_secs(10)).await;
}

async fn until_some_ended(site: &Site, ids: &[CommandId], n: usize) {
    let pool = site.database.pool().await;
    let ids: Arc<Vec<uuid::Uuid>> = Arc::new(ids.iter().map(|id| id.0).collect());
    eventually("some have ended", async || {
        let ended: i64 =
            sqlx::query_scalar("SELECT count(*) FROM adjutant.outcomes WHERE command_id = ANY($1)")
                .bind(&*ids)
                .fetch_one(&pool)
                .await
                .ok()?;
        (ended >= n as i64).then_some(())
    })
    .await;
}
