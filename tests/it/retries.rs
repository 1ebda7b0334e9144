//! Commands that fail: retried, given up, timed out, suspended; their effects happen once.

use std::{sync::Arc, time::Duration};

use adjutant::{
    execute::{BreakerSettings, BreakerState, PerType, RetrySchedule},
    message::{CommandId, OutcomeStatus},
    observe::notify::{ConditionSource as _, OpenBreakers},
    service::{Process, ProcessSettings},
    store::{CommandRecord, CommandStatus, Queries, Role},
};

use crate::{
    main_path::accept,
    support::{
        commands::{add, flaky},
        domain::{repair, tries},
        eventually,
        process::{ALL, Site, settings},
    },
};

/// A name that no other test uses.
fn key() -> String {
    CommandId::generate().to_string()
}

async fn start(site: &Site, roles: &[Role], settings: ProcessSettings) -> Process {
    let mut parts = site.parts(roles, Arc::new(site.road.broker())).await;
    parts.settings = settings;
    Process::start(parts).await.expect("start")
}

async fn record(site: &Site, id: CommandId) -> CommandRecord {
    site.store.command(id).await.expect("command").expect("there")
}

async fn until_status(site: &Site, id: CommandId, status: CommandStatus) {
    eventually(status.as_str(), async || (record(site, id).await.status() == status).then_some(()))
        .await;
}

/// Of a command: how many dead letters, of which attempt and code.
async fn dead_letters(site: &Site, id: CommandId) -> Vec<(i32, String, String, String)> {
    let pool = site.database.pool().await;
    sqlx::query_as(
        "SELECT attempts, error ->> 'code', type, key FROM adjutant.dead_letters
          WHERE command_id = $1 AND kind = 1 AND group_name = 'commands' AND state = 1
            AND fingerprint <> '' ORDER BY id",
    )
    .bind(id.0)
    .fetch_all(&pool)
    .await
    .expect("dead letters")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_twice_succeeds_the_third_time_and_its_effect_happens_once() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let key = key();
    let fails = flaky("flaky", "a", &key, 2, "retryable");
    let ids = accept(&site, &process, vec![add("a", 1), fails.clone(), add("a", 1)]).await;
    site.until_ended(&ids).await;
    let record = record(&site, fails.id).await;
    let outcome = record.outcome.expect("ended");
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Succeeded, 3));
    assert_eq!(outcome.version.0, 3, "the later one overtook it");
    assert_eq!(tries(&key), 3);
    let failures: Vec<_> = record
        .failures
        .iter()
        .map(|failed| (failed.attempt.0, failed.error.code.as_str(), &failed.error.sources[..]))
        .collect();
    let sources = ["told to".to_owned()];
    assert_eq!(failures, [(2, "out_of_reach", &sources[..]), (1, "out_of_reach", &sources[..])]);
    assert!(record.failures.iter().all(|failed| failed.next_due_at > Some(failed.failed_at)));
    assert!(dead_letters(&site, fails.id).await.is_empty());
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_attempts_are_exhausted_is_one_dead_letter() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let (lost, doomed) = (key(), key());
    let exhausted = flaky("flaky", "a", &lost, 100, "retryable");
    let fatal = flaky("flaky", "a", &doomed, 100, "fatal");
    let ids = accept(&site, &process, vec![exhausted.clone(), fatal.clone(), add("a", 1)]).await;
    site.until_ended(&ids).await;
    for (command, key, attempts, code) in
        [(&exhausted, &lost, 4, "out_of_reach"), (&fatal, &doomed, 1, "impossible")]
    {
        let record = record(&site, command.id).await;
        let outcome = record.outcome.expect("ended");
        assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Dead, attempts));
        assert_eq!(outcome.error.expect("why").code, code);
        assert_eq!(record.failures.len() as i32, attempts);
        assert_eq!(record.failures[0].next_due_at, None, "there is no further one");
        assert_eq!(tries(key) as i32, attempts);
        let letter =
            (attempts, code.to_owned(), "counter.flaky".to_owned(), "counter/a".to_owned());
        assert_eq!(dead_letters(&site, command.id).await, [letter]);
    }
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_succeeds_at_once_when_tried_again_has_burnt_no_attempt() {
    let site = Site::new().await;
    let mut settings = settings();
    settings.executor.retry.default = RetrySchedule { immediate: 2, ..RetrySchedule::never() };
    let process = start(&site, &ALL, settings).await;
    let (soon, never) = (key(), key());
    let succeeds = flaky("flaky", "a", &soon, 2, "retryable");
    let dies = flaky("flaky", "a", &never, 100, "retryable");
    let ids = accept(&site, &process, vec![succeeds.clone(), dies.clone()]).await;
    site.until_ended(&ids).await;
    let found = record(&site, succeeds.id).await;
    let outcome = found.outcome.expect("ended");
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Succeeded, 1));
    assert_eq!(found.failed_attempts, 0);
    let outcome = record(&site, dies.id).await.outcome.expect("ended");
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Dead, 1));
    assert_eq!(tries(&never), 3);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_hangs_is_a_failed_attempt_and_holds_nobody_up() {
    let site = Site::new().await;
    let mut settings = settings();
    settings.executor.time_limit = PerType::all(Duration::from_millis(50));
    let process = start(&site, &ALL, settings).await;
    let key = key();
    let hangs = flaky("flaky", "a", &key, 2, "hang");
    let mut batch: Vec<_> = (0..10).map(|i| add(&format!("c{i}"), 1)).collect();
    batch.insert(5, hangs.clone());
    batch.insert(6, add("a", 1));
    let ids = accept(&site, &process, batch).await;
    site.until_ended(&ids).await;
    let record = record(&site, hangs.id).await;
    let outcome = record.outcome.expect("ended");
    assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{:?}", outcome.error);
    assert_eq!((outcome.attempts, tries(&key)), (3, 3));
    assert!(record.failures.iter().all(|failed| failed.error.code == "timed_out"));
    site.until_applied().await;
    site.assert_lawful().await;
    repair(&key);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_tried_again_because_it_may_depend_on_the_state() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let key = key();
    let panics = flaky("flaky", "a", &key, 1, "panic");
    let ids = accept(&site, &process, vec![panics.clone()]).await;
    site.until_ended(&ids).await;
    let record = record(&site, panics.id).await;
    assert_eq!(record.outcome.expect("ended").status, OutcomeStatus::Succeeded);
    assert_eq!(record.failures[0].error.code, "handler_panicked");
    process.stop(Duration::from_secs(10)).await;
}

/// What one process began another one finishes: retries are in the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_outlive_the_process_that_began_them() {
    let site = Site::new().await;
    let mut slow = settings();
    slow.executor.retry.default = RetrySchedule::after(vec![Duration::from_millis(300); 5]);
    let first = start(&site, &ALL, slow.clone()).await;
    let keys: Vec<_> = (0..20).map(|_| key()).collect();
    let batch = keys.iter().enumerate();
    let batch = batch.map(|(i, key)| flaky("flaky", &format!("c{i}"), key, 2, "retryable"));
    let ids = accept(&site, &first, batch.collect()).await;
    until_status(&site, ids[7], CommandStatus::Retrying).await;
    // Dropped, not stopped: it dies.
    drop(first);
    let (second, third) = (start(&site, &ALL, slow.clone()).await, start(&site, &ALL, slow).await);
    site.until_ended(&ids).await;
    for (id, key) in ids.iter().zip(&keys) {
        let outcome = record(&site, *id).await.outcome.expect("ended");
        assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Succeeded, 3));
        assert!(tries(key) >= 3, "a try that was not committed may have come before");
    }
    site.until_applied().await;
    site.assert_lawful().await;
    second.stop(Duration::from_secs(10)).await;
    third.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_burns_no_attempt_and_a_probe_closes_it() {
    let site = Site::new().await;
    let mut settings = settings();
    settings.executor.retry.default = RetrySchedule::after(vec![Duration::from_millis(50); 100]);
    settings.executor.breaker.default = BreakerSettings {
        min_calls: 4,
        open_for: Duration::from_millis(200),
        open_at_most: Duration::from_millis(200),
        ..BreakerSettings::default()
    };
    let process = start(&site, &ALL, settings).await;
    let key = key();
    let failing: Vec<_> =
        (0..6).map(|i| flaky("flaky", &format!("c{i}"), &key, 1_000_000, "retryable")).collect();
    let mut ids = accept(&site, &process, failing).await;
    let open = ("counter.flaky".to_owned(), BreakerState::Open);
    let opened = async || process.executor().breakers().contains(&open).then_some(());
    eventually("the breaker opens", opened).await;
    let told = OpenBreakers { breakers: process.breakers().clone(), process: "here".into() };
    let subjects: Vec<_> =
        told.look().await.expect("look").into_iter().map(|seen| seen.subject).collect();
    assert_eq!(subjects, ["counter.flaky in here"]);
    let other = accept(&site, &process, vec![add("c0", 1)]).await;
    site.until_ended(&other).await; // other types go on
    let late = flaky("flaky", "c9", &key, 1_000_000, "retryable");
    ids.extend(accept(&site, &process, vec![late.clone()]).await);
    let pool = site.database.pool().await;
    eventually("it is set aside", async || {
        let n: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM adjutant.schedule
              WHERE command_id = $1 AND reason = 'breaker_open'",
        )
        .bind(late.id.0)
        .fetch_one(&pool)
        .await
        .ok()?;
        (n == 1).then_some(())
    })
    .await;
    repair(&key);
    site.until_ended(&ids).await;
    for id in &ids {
        let outcome = record(&site, *id).await.outcome.expect("ended");
        assert_eq!(outcome.status, OutcomeStatus::Succeeded);
        let failed: i64 =
            sqlx::query_scalar("SELECT count(*) FROM adjutant.attempts WHERE command_id = $1")
                .bind(id.0)
                .fetch_one(&pool)
                .await
                .expect("attempts");
        assert_eq!(i64::from(outcome.attempts), failed + 1, "none was burnt without being tried");
    }
    assert!(!process.executor().breakers().contains(&open));
    assert_eq!(told.look().await.expect("look"), [], "what is closed is over");
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM adjutant.holds")
        .fetch_one(&pool)
        .await
        .expect("holds");
    assert_eq!(held, 0, "whoever was set aside holds nobody any more");
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}
