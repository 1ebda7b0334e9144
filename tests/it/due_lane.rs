//! What falls due for the immediate lane is executed by a process that claims it, without the queue; or
//! by the queue, if nobody claims it or has room.

use std::{sync::Arc, time::Duration};

use adjutant::{
    immediate::{Executed, ImmediateSettings},
    message::{CommandId, MemberId, Metadata, Partition},
    service::Process,
    store::{
        CommandTemplate, Intake, MissedRuns, NewCommand, NextDue, Outbox, Queries, Recurring,
        RecurringState, RecurringTerms, Role, Store, WhenDue,
    },
};

use uuid::Uuid;

use crate::support::{
    commands::{add, flaky},
    database::Database,
    eventually,
    lane::{Lane, immediate},
    process::{ALL, Site},
};

async fn number(site: &Site, sql: &'static str) -> i64 {
    let pool = site.database.pool().await;
    sqlx::query_scalar(sql).fetch_one(&pool).await.expect(sql)
}

async fn queued(site: &Site) -> i64 {
    number(site, "SELECT count(*) FROM adjutant.command_log").await
}

/// Nobody executes what is queued, and the relay leaves the lanes their time, however slow all is.
async fn start_without_workers(site: &Site) -> Process {
    let roles = [Role::Ingress, Role::Relay];
    let mut parts = site.parts(&roles, Arc::new(site.road.broker())).await;
    parts.settings.relay.lane_grace = Duration::from_hours(1);
    Process::start(parts).await.expect("start")
}

/// A command for the lane that falls due in a moment.
async fn soon(site: &Site, command: NewCommand) -> NewCommand {
    let now = site.store.now().await.expect("now");
    NewCommand { not_before: Some(now + Duration::from_millis(400)), ..immediate(command) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_command_is_executed_by_the_lane_when_it_is_due() {
    let site = Site::new().await;
    let process = start_without_workers(&site).await;
    let lane = Lane::of(&site, &process).await;
    let delayed = soon(&site, add("a", 5)).await;
    let (id, due) = (delayed.id, delayed.not_before.expect("a time"));
    let answer = lane.execute(delayed).await.expect("accepted");
    assert!(
        matches!(answer, Executed::Accepted(..)),
        "nobody waits for what is not due: {answer:?}"
    );
    site.until_ended(&[id]).await;
    let outcome = site.store.command(id).await.expect("query").expect("there").outcome;
    let outcome = outcome.expect("ended");
    assert!(outcome.completed_at >= due, "{} < {due}", outcome.completed_at);
    assert_eq!(outcome.reply.expect("a reply").as_str(), "5");
    assert_eq!((queued(&site).await, lane.processor.stats().executed), (0, 1));
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.immediate").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_of_one_stream_run_in_the_order_of_their_times() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    let now = site.store.now().await.expect("now");
    let at = |ms: u32| Some(now + Duration::from_millis(ms.into()));
    let delayed: Vec<_> = [3_200_u32, 3_000, 3_100, 3_000]
        .into_iter()
        .map(|ms| NewCommand { not_before: at(ms), ..immediate(add("a", ms.into())) })
        .collect();
    let ids: Vec<_> = delayed.iter().map(|command| command.id).collect();
    let answers = lane.processor.dispatch_together(delayed).await.expect("room");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    site.until_ended(&ids).await;
    let pool = site.database.pool().await;
    let amounts: Vec<i64> = sqlx::query_scalar(
        "SELECT (data->>'amount')::bigint FROM adjutant.events ORDER BY version",
    )
    .fetch_all(&pool)
    .await
    .expect("events");
    assert_eq!(amounts, [3_000, 3_000, 3_100, 3_200]);
    assert_eq!(queued(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_a_recurring_command_are_executed_by_the_lane() {
    let site = Site::new().await;
    let process = start_without_workers(&site).await;
    let lane = Lane::of(&site, &process).await;
    let each = |name: &str, command: NewCommand| {
        let terms = RecurringTerms {
            cron: "* * * * * *".into(),
            time_zone: "UTC".into(),
            missed_runs: MissedRuns::Once,
            command: CommandTemplate {
                command_type: command.command_type,
                stream: command.stream,
                payload: command.payload,
                metadata: Metadata::default(),
                lane: command.lane,
                expected_version: None,
            },
            state: RecurringState::Active,
        };
        (name.parse().expect("a name"), terms)
    };
    let now = site.store.now().await.expect("now");
    for (name, terms) in [each("mine", immediate(add("a", 1))), each("theirs", add("b", 1))] {
        let made = site.store.put_recurring(&name, &terms, NextDue::At(Some(now)), None, "ann");
        made.await.expect("put").expect("there was none");
    }
    eventually("two runs have ended", async || {
        (number(&site, "SELECT count(*) FROM adjutant.outcomes").await >= 2).then_some(())
    })
    .await;
    let by_lane = "SELECT count(*) FROM adjutant.outcomes o JOIN adjutant.commands c
                    ON c.id = o.command_id WHERE c.stream <> 'counter/a'";
    assert_eq!(number(&site, by_lane).await, 0, "nobody executes what is queued");
    assert!(lane.processor.stats().executed >= 2);
    let queued = "SELECT count(*) FROM adjutant.command_log l JOIN adjutant.commands c
                    ON c.id = l.command_id WHERE c.stream = 'counter/a'";
    assert_eq!(number(&site, queued).await, 0);
}

/// Strict ones have their order by the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_one_enters_the_log_when_it_is_due() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let lane = Lane::of(&site, &process).await;
    let key = CommandId::generate().to_string();
    let delayed = soon(&site, flaky("in_order", "a", &key, 0, "retryable")).await;
    let id = delayed.id;
    lane.execute(delayed).await.expect("accepted");
    site.until_ended(&[id]).await;
    assert_eq!((queued(&site).await, lane.processor.stats().executed), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anybody_who_claims_it_the_queue_has_it() {
    let site = Site::new().await;
    let mut parts = site.parts(&ALL, Arc::new(site.road.broker())).await;
    parts.settings.relay.lane_grace = Duration::from_millis(300);
    // It has the role, and no lane.
    let _process = Process::start(parts).await.expect("start");
    let due = NewCommand { when_due: WhenDue::Lane, ..soon(&site, add("a", 1)).await };
    let (id, not_before) = (due.id, due.not_before.expect("a time"));
    site.store.accept(vec![due]).await.expect("accept");
    site.until_ended(&[id]).await;
    let outcome = site.store.command(id).await.expect("query").expect("there").outcome;
    let completed = outcome.expect("ended").completed_at;
    assert!(completed >= not_before + Duration::from_millis(300), "{completed}: lanes had no time");
    assert_eq!(queued(&site).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_is_let_go_of_and_the_queue_has_it() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    // One fits alone, whatever it weighs.
    let settings = ImmediateSettings { waiting_bytes: 1, ..ImmediateSettings::default() };
    let lane = Lane::with(&site, &process, settings).await;
    let due = |counter| NewCommand { when_due: WhenDue::Lane, ..immediate(add(counter, 1)) };
    let all = vec![due("a"), due("b"), due("c")];
    let ids: Vec<_> = all.iter().map(|command| command.id).collect();
    site.store.accept(all).await.expect("accept");
    site.until_ended(&ids).await;
    let (by_queue, stats) = (queued(&site).await, lane.processor.stats());
    assert_eq!(by_queue as u64 + stats.executed, 3, "each once");
    assert!(by_queue >= 1 && stats.executed >= 1, "{by_queue} by the queue, {stats:?}");
    assert_eq!(stats.refused, by_queue as u64);
    site.until_applied().await;
    site.assert_lawful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_an_ingress_share_what_falls_due_and_one_that_drains_has_none() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress]).await;
    let mut partitions = process.lane_partitions();
    let all: Vec<Partition> = site.store.identity().partitions.all().collect();
    assert_eq!(partitions.now(), all);
    let relays = site.start(&[Role::Relay]).await;
    assert!(relays.lane_partitions().now().is_empty(), "it has no lane");
    let other = site.start(&[Role::Ingress]).await;
    let mut of_other = other.lane_partitions();
    eventually("they share", async || {
        let mut both = [partitions.now(), of_other.now()].concat();
        both.sort_unstable();
        (both == all).then_some(())
    })
    .await;
    process.stop(Duration::from_secs(10)).await;
    eventually("the other one has them", async || (of_other.now() == all).then_some(())).await;
}

/// The time is a bound of the index, not a condition on each row behind it.
#[tokio::test]
async fn looking_for_what_is_due_reads_nothing_that_is_not() {
    let database = Database::migrated().await;
    let (store, pool) = (database.store().await, database.pool().await);
    let later = "
        INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason)
        SELECT 0, clock_timestamp() + interval '1 hour', gen_random_uuid(), 0, reason
          FROM unnest(ARRAY['immediate', 'not_before']) AS reason, generate_series(1, 10000)";
    sqlx::query(later).execute(&pool).await.expect("rows");
    sqlx::query("ANALYZE adjutant.schedule").execute(&pool).await.expect("analyze");
    // A session tells what it read after a second, with its next transaction.
    let (scans, read): (i64, i64) = eventually("both have looked", async || {
        let (partitions, member) = ([Partition(0)], MemberId(Uuid::now_v7()));
        assert!(store.claim_due(&partitions, member, 100).await.expect("claim").is_empty());
        let promoted = store.promote_due(&partitions, Duration::from_secs(2), 100).await;
        assert_eq!(promoted.expect("promote"), 0);
        let seen = "
            SELECT sum(idx_scan)::bigint, sum(idx_tup_read)::bigint FROM pg_stat_user_indexes
             WHERE schemaname = 'adjutant' AND relname = 'schedule'
               AND (SELECT seq_tup_read FROM pg_stat_user_tables
                     WHERE schemaname = 'adjutant' AND relname = 'schedule') = 0";
        let seen: (i64, i64) = sqlx::query_as(seen).fetch_one(&pool).await.expect("no table scan");
        (seen.0 > 10).then_some(seen)
    })
    .await;
    assert!(read < scans, "{read} index rows in {scans} looks");
}
