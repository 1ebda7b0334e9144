//! Commands that are called off, over HTTP and with workers: one by one, by a job, and by their own
//! deadline.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use adjutant::{
    execute::{PerType, RetrySchedule},
    ingress::IngressSettings,
    message::{CommandId, OutcomeStatus},
    service::Process,
    signals::Signals,
    store::{Intake as _, NewCommand, Queries as _, Store as _},
};
use serde_json::{Value, json};

use crate::{
    main_path::accept,
    support::{
        commands::{add, flaky},
        database::Database,
        domain::{self, tries},
        eventually,
        http::{Answer, Api, EventStream, id_of},
        process::{ALL, Site, settings},
    },
};

fn key() -> String {
    CommandId::generate().to_string()
}

fn api_of(site: &Site, process: &Process) -> Api {
    let store = site.store.clone();
    Api::start(domain::service(), store, process.signals(), IngressSettings::default())
}

/// An API without workers: nothing is executed.
async fn api_on(database: &Database) -> Api {
    let store = database.store().await;
    Api::start(domain::service(), store, &Signals::default(), IngressSettings::default())
}

async fn delete(api: &Api, target: &str) -> Answer {
    api.client().await.request("DELETE", target, &[], b"").await
}

async fn cancel(api: &Api, id: CommandId) -> Answer {
    delete(api, &format!("/v1/commands/{id}?reason=a%20mistake")).await
}

/// Asks for a job; where it is, and how it began.
async fn cancel_all(api: &Api, body: &Value) -> (String, Value) {
    let headers = [("Content-Type", "application/json")];
    let body = body.to_string();
    let made =
        api.client().await.request("POST", "/v1/commands/cancel", &headers, body.as_bytes()).await;
    assert_eq!(made.status, 202, "{}", made.body);
    (made.header("location").expect("a location").to_owned(), made.json())
}

/// The end of a job.
async fn ended(api: &Api, target: &str) -> Value {
    eventually("the job ends", async || {
        let job = api.get(target).await.json();
        (job["state"] != "running").then_some(job)
    })
    .await
}

/// Starts a process whose retries come back after so long.
async fn start(site: &Site, retries: Duration) -> Process {
    let mut parts = site.parts(&ALL, Arc::new(site.road.broker())).await;
    parts.settings = settings();
    parts.settings.executor.retry = PerType::all(RetrySchedule::after(vec![retries; 5]));
    Process::start(parts).await.expect("start")
}

/// How many commands ended in which way.
async fn ends(database: &Database) -> BTreeMap<i16, i64> {
    let rows: Vec<(i16, i64)> =
        sqlx::query_as("SELECT status, count(*) FROM adjutant.outcomes GROUP BY status")
            .fetch_all(&database.pool().await)
            .await
            .expect("look");
    rows.into_iter().collect()
}

async fn count(database: &Database, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&database.pool().await).await.expect("count")
}

const CANCELLED: i16 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_between_two_attempts_is_cancelled_and_what_waited_goes_on() {
    let site = Site::new().await;
    let process = start(&site, Duration::from_hours(1)).await;
    let api = api_of(&site, &process);
    let (failing, fine) = (key(), key());
    let strict = |key: &str, fails| flaky("in_order", "a", key, fails, "retryable");
    let first = strict(&failing, 100);
    let behind: Vec<_> = (0..3).map(|_| strict(&fine, 0)).collect();
    accept(&site, &process, vec![first.clone()]).await;
    let mut watch = EventStream::open(api.address, first.id, None).await;
    eventually("it is retried", async || {
        (watch.next().await?.status() == "retrying").then_some(())
    })
    .await;
    let ids = accept(&site, &process, behind).await;
    let last = *ids.last().expect("one");
    eventually("they wait", async || {
        let record = site.store.command(last).await.ok()??;
        record.waiting.then_some(())
    })
    .await;
    let cancelled = cancel(&api, first.id).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let resource = cancelled.json();
    assert_eq!((&resource["status"], &resource["attempts"]), (&json!("cancelled"), &json!(1)));
    assert_eq!(resource["outcome"]["error"]["code"], "cancelled");
    assert_eq!(resource["failures"].as_array().map(Vec::len), Some(1));
    let told = watch.next().await.expect("the end");
    assert_eq!(told.data["outcome"], resource["outcome"]);
    assert!(watch.next().await.is_none());
    site.until_ended(&ids).await;
    for (id, version) in ids.iter().zip(1..) {
        let outcome = site.store.command(*id).await.expect("look").expect("there").outcome;
        let outcome = outcome.expect("ended");
        assert_eq!((outcome.status, outcome.version.0), (OutcomeStatus::Succeeded, version));
    }
    assert_eq!(tries(&failing), 1);
    assert_eq!(cancel(&api, ids[0]).await.problem(), (409, "already_ended".into()));
    let kept: (String, Option<String>) =
        sqlx::query_as("SELECT who, reason FROM adjutant.cancellations WHERE command_id = $1")
            .bind(first.id.0)
            .fetch_one(&site.database.pool().await)
            .await
            .expect("it is kept, once");
    assert_eq!(kept, ("anonymous".into(), Some("a mistake".into())));
    assert_eq!(count(&site.database, "SELECT count(*) FROM adjutant.holds").await, 0);
    assert_eq!(count(&site.database, "SELECT count(*) FROM adjutant.schedule").await, 0);
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

/// A worker meets entries of commands that were cancelled while they were queued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_cancelled_commands_are_passed_over() {
    let site = Site::new().await;
    let commands: Vec<_> = (0..60).map(|n| add(&format!("c{}", n % 7), 1)).collect();
    site.store.accept(commands.clone()).await.expect("accept");
    let api = api_on(&site.database).await;
    for command in commands.iter().step_by(2) {
        assert_eq!(cancel(&api, command.id).await.status, 200);
    }
    let process = site.start(&ALL).await;
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    site.until_ended(&ids).await;
    site.until_applied().await;
    assert_eq!(ends(&site.database).await, BTreeMap::from([(1, 30), (CANCELLED, 30)]));
    assert_eq!(count(&site.database, "SELECT count(*) FROM adjutant.events").await, 30);
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

/// A client may set a deadline: nobody executes until it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_in_the_queue_ends_the_command_as_soon_as_a_worker_is_back() {
    let site = Site::new().await;
    let api = api_on(&site.database).await;
    let in_ms = |ms: u64| {
        let time = time::OffsetDateTime::now_utc() + Duration::from_millis(ms);
        time.format(&time::format_description::well_known::Rfc3339).expect("a time")
    };
    let command = |not_after: String| {
        json!({
            "type": "counter.add", "stream": "counter/a", "payload": { "amount": 1 },
            "not_after": not_after,
        })
    };
    let late = api.submit(&command(in_ms(500))).await;
    assert_eq!(late.status, 202, "{}", late.body);
    let in_time = api.submit(&command(in_ms(3_600_000))).await;
    let (late_id, in_time_id) = (id_of(&late), id_of(&in_time));
    let not_after = site.store.command(late_id).await.expect("look").expect("there").not_after;
    eventually("its time is over", async || {
        (site.store.now().await.ok()? > not_after?).then_some(())
    })
    .await;
    let shown = api.get(&format!("/v1/commands/{late_id}")).await.json();
    assert_eq!(shown["status"], "accepted", "nobody has looked at it");
    let process = site.start(&ALL).await;
    let ended = api.get(&format!("/v1/commands/{late_id}?wait=30")).await.json();
    assert_eq!((&ended["status"], &ended["attempts"]), (&json!("cancelled"), &json!(0)));
    assert_eq!(ended["outcome"]["error"]["code"], "expired");
    let other = api.get(&format!("/v1/commands/{in_time_id}?wait=30")).await.json();
    assert_eq!((&other["status"], &other["outcome"]["version"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(cancel(&api, late_id).await.problem(), (409, "already_cancelled".into()));
    site.until_applied().await;
    site.assert_lawful().await;
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_cancels_what_matches_and_nothing_else() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let api = api_on(&database).await;
    let in_an_hour = Some(time::OffsetDateTime::now_utc() + Duration::from_hours(1));
    let mut commands: Vec<NewCommand> = Vec::new();
    for n in 0..300 {
        let counter = format!("c{}", n % 10);
        commands.push(if n % 3 == 0 {
            flaky("flaky", &counter, "k", 0, "retryable")
        } else {
            NewCommand { not_before: in_an_hour.filter(|_| n % 3 == 1), ..add(&counter, 1) }
        });
    }
    store.accept(commands.clone()).await.expect("accept");
    let first_of = |body: Value| {
        let (api, database) = (&api, &database);
        async move {
            let before = ends(database).await.get(&CANCELLED).copied().unwrap_or_default();
            let (target, made) = cancel_all(api, &body).await;
            let done = ended(api, &target).await;
            let now = ends(database).await.get(&CANCELLED).copied().unwrap_or_default();
            assert_eq!((&done["state"], &done["failed"]), (&json!("done"), &json!(0)), "{done}");
            assert_eq!(done["done"], now - before, "what it did is what it says: {done}");
            assert_eq!((&made["total"], &done["total"]), (&done["done"], &done["done"]), "{body}");
            now - before
        }
    };
    assert_eq!(first_of(json!({ "type": "counter.none" })).await, 0);
    assert_eq!(first_of(json!({ "older_than": "1h", "type": "counter.add" })).await, 0);
    let body = json!({ "stream": "counter/c4", "status": "scheduled", "rate": 10_000 });
    assert_eq!(first_of(body).await, 10);
    let body = json!({ "type": "counter.flaky", "newer_than": "1h", "rate": 10_000 });
    assert_eq!(first_of(body).await, 100);
    // What comes later is not touched, though it matches.
    let (target, _) = cancel_all(&api, &json!({ "status": "accepted", "rate": 200 })).await;
    let later: Vec<_> = (0..5).map(|n| add(&format!("later{n}"), 1)).collect();
    store.accept(later.clone()).await.expect("accept");
    assert_eq!(ended(&api, &target).await["done"], 100);
    for command in &later {
        let record = store.command(command.id).await.expect("look").expect("there");
        assert_eq!(record.outcome, None);
    }
    assert_eq!(first_of(json!({ "all": true, "rate": 10_000 })).await, 95);
    let jobs = "SELECT count(DISTINCT job_id) FROM adjutant.cancellations";
    assert_eq!(count(&database, jobs).await, 4);
    let once = "SELECT count(*) FROM adjutant.cancellations WHERE job_id IS NOT NULL";
    assert_eq!(count(&database, once).await, 305);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_over_commands_goes_on_in_another_process_when_its_own_is_gone() {
    let database = Database::migrated().await;
    let store = database.store().await;
    // Half of them are in the schedule, where the walk comes first: what it has moved on from before it
    // was done is looked at by nobody.
    let in_an_hour = Some(time::OffsetDateTime::now_utc() + Duration::from_hours(1));
    let commands = (0..200).map(|n| NewCommand {
        not_before: in_an_hour.filter(|_| n % 2 == 0),
        ..add(&format!("c{n}"), 1)
    });
    store.accept(commands.collect()).await.expect("accept");
    let first = api_on(&database).await;
    let (target, made) = cancel_all(&first, &json!({ "type": "counter.add", "rate": 40 })).await;
    assert_eq!(made["total"], 200);
    eventually("it has begun", async || {
        (first.get(&target).await.json()["done"].as_i64()? > 0).then_some(())
    })
    .await;
    drop(first);
    let second = api_on(&database).await;
    let before = second.get(&target).await.json();
    assert!(before["state"] == "running" && before["done"].as_i64() < Some(200), "{before}");
    // Its owner has been silent for long.
    let silent = "UPDATE adjutant.dead_letter_jobs
                     SET heartbeat_at = heartbeat_at - interval '1 minute', rate = 10000";
    sqlx::query(silent).execute(&database.pool().await).await.expect("silence");
    let done = ended(&second, &target).await;
    assert_eq!((&done["done"], &done["failed"]), (&json!(200), &json!(0)), "{done}");
    assert_eq!(ends(&database).await, BTreeMap::from([(CANCELLED, 200)]));
    assert_eq!(count(&database, "SELECT count(*) FROM adjutant.cancellations").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_over_commands_that_is_called_off_leaves_the_rest_alone() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let commands: Vec<_> = (0..60).map(|n| add(&format!("c{n}"), 1)).collect();
    store.accept(commands).await.expect("accept");
    let api = api_on(&database).await;
    let (target, _) = cancel_all(&api, &json!({ "all": true, "rate": 2 })).await;
    eventually("it has begun", async || {
        (api.get(&target).await.json()["done"].as_i64()? > 0).then_some(())
    })
    .await;
    let called_off = delete(&api, &target).await;
    assert_eq!((called_off.status, &called_off.json()["state"]), (200, &json!("cancelled")));
    let done = called_off.json()["done"].as_i64().expect("a count");
    assert!(done < 60);
    assert_eq!(delete(&api, &target).await.problem(), (409, "job_ended".into()));
    let (target, _) = cancel_all(&api, &json!({ "all": true, "rate": 10_000 })).await;
    let rest = ended(&api, &target).await;
    assert_eq!(rest["done"], 60 - done, "it did nothing more: {rest}");
}

/// Under load: whatever a job cancels has no effect, and everything else has its effect once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_cancels_while_workers_execute() {
    let site = Site::new().await;
    let processes = [
        start(&site, Duration::from_millis(50)).await,
        start(&site, Duration::from_millis(50)).await,
    ];
    let api = api_of(&site, &processes[0]);
    let mut ids = Vec::new();
    let mut jobs = Vec::new();
    for round in 0..6 {
        let commands: Vec<_> = (0..100)
            .map(|n| {
                let (counter, fails) = (format!("c{}", n % 9), u32::from(n % 4 == 0));
                match n % 3 {
                    0 => add(&counter, 1),
                    1 => flaky("flaky", &counter, &key(), fails, "retryable"),
                    _ => flaky("in_order", &counter, &key(), fails, "retryable"),
                }
            })
            .collect();
        ids.extend(accept(&site, &processes[round % 2], commands).await);
        let (target, _) = cancel_all(&api, &json!({ "all": true, "rate": 10_000 })).await;
        jobs.push(target);
    }
    let mut cancelled = 0;
    for target in &jobs {
        let job = ended(&api, target).await;
        assert_eq!(job["state"], "done", "{job}");
        cancelled += job["done"].as_i64().expect("a count");
    }
    site.until_ended(&ids).await;
    site.until_applied().await;
    let ends = ends(&site.database).await;
    assert_eq!(ends.get(&CANCELLED).copied().unwrap_or_default(), cancelled);
    let events = count(&site.database, "SELECT count(*) FROM adjutant.events").await;
    assert_eq!(ends.get(&1).copied().unwrap_or_default(), events);
    assert_eq!(events + cancelled, ids.len() as i64);
    println!("{cancelled} of {} were cancelled in time", ids.len());
    let held = "SELECT count(*) FROM adjutant.holds";
    assert_eq!(count(&site.database, held).await, 0);
    site.assert_lawful().await;
    for process in processes {
        process.stop(Duration::from_secs(10)).await;
    }
}
