//! The immediate lane: executed where it was received, with the guarantees of the queued one.

use std::time::Duration;

use adjutant::{
    immediate::{Executed, ImmediateSettings},
    ingress::Refusal,
    message::{CommandId, Lane as LaneName, OutcomeStatus},
    store::{CommandStatus, Intake, NewCommand, Outbox, Queries, Role, Store},
    worker::MembershipSettings,
};

use crate::support::{
    commands::{add, flaky},
    domain::{repair, tries},
    eventually,
    lane::{Lane, immediate},
    process::{ALL, Site},
};

fn key() -> String {
    CommandId::generate().to_string()
}

async fn number(site: &Site, sql: &'static str) -> i64 {
    let pool = site.database.pool().await;
    sqlx::query_scalar(sql).fetch_one(&pool).await.expect(sql)
}

async fn held(site: &Site) -> i64 {
    number(site, "SELECT count(*) FROM adjutant.immediate").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_callers_command_is_accepted_and_executed_in_one_transaction() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    let first = lane.outcome(add("a", 5)).await;
    let second = lane.outcome(add("a", 2)).await;
    assert_eq!((first.status, first.version.0), (OutcomeStatus::Succeeded, 1));
    assert_eq!(second.reply.expect("a reply").as_str(), "7");
    assert_eq!(second.positions.len(), 1);
    let transactions = "
        SELECT count(*) FROM (
            SELECT c.xmin::text FROM adjutant.commands c
            UNION SELECT o.xmin::text FROM adjutant.outcomes o
            UNION SELECT e.xmin::text FROM adjutant.events e) AS x";
    assert_eq!(number(&site, transactions).await, 2, "one for each command");
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.command_log").await, 0);
    let published = "SELECT count(*) FROM adjutant.outbox WHERE route = 1";
    assert_eq!(number(&site, published).await, 0, "no command goes to the broker");
    let events = "SELECT count(*) FROM adjutant.outbox WHERE route = 2";
    assert_eq!(number(&site, events).await, 2, "their events do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_at_once_is_durable_before_and_ends_without_the_queue() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    let commands: Vec<_> = (0..200).map(|n| immediate(add(&format!("c{}", n % 10), 1))).collect();
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    let answers = lane.processor.dispatch_together(commands).await.expect("room");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.commands").await, 200);
    site.until_ended(&ids).await;
    assert_eq!(held(&site).await, 0);
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.command_log").await, 0);
    assert_eq!(
        number(&site, "SELECT sum((data->>'amount')::bigint)::bigint FROM adjutant.events").await,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_one_stream_share_transactions_and_keep_their_order() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    let commands: Vec<_> = (0..200).map(|_| add("hot", 1)).collect();
    let executed = commands.iter().map(|command| lane.execute(command.clone()));
    let executed = futures_util::future::join_all(executed).await;
    let replies: Vec<_> = executed
        .into_iter()
        .map(|executed| match executed.expect("executed") {
            Executed::Ended(_, outcome) => outcome.reply.expect("a reply").as_str().to_owned(),
            Executed::Accepted(..) => panic!("it did not end"),
        })
        .collect();
    let expected: Vec<_> = (1..=200).map(|n: i32| n.to_string()).collect();
    assert_eq!(replies, expected, "in the order of their arrival");
    let commits = number(&site, "SELECT count(DISTINCT xmin::text) FROM adjutant.outcomes").await;
    assert!(commits < 100, "{commits} commits for 200 commands of one stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_wait_is_over_before_it_was_started_it_is_durable_and_goes_on() {
    let site = Site::new().await;
    let process = site.start_patient(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    let key = key();
    let blocks = lane.execute(flaky("flaky", "a", &key, 1, "hang"));
    let behind = add("a", 1);
    let id = behind.id;
    let (_, second) = tokio::join!(blocks, async {
        eventually("the first is at it", async || (tries(&key) > 0).then_some(())).await;
        let short = Duration::from_millis(50);
        let answer = lane.processor.execute(immediate(behind), short).await.expect("durable");
        assert!(matches!(answer, Executed::Accepted(_, LaneName::Immediate)), "{answer:?}");
        assert_eq!(held(&site).await, 1, "its owner is this process");
        repair(&key);
        answer
    });
    drop(second);
    site.until_ended(&[id]).await;
    assert_eq!(held(&site).await, 0);
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.command_log").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_being_executed_is_answered_when_it_has_ended() {
    let site = Site::new().await;
    let process = site.start_patient(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    let key = key();
    let command = immediate(flaky("flaky", "a", &key, 1, "hang"));
    let executing = lane.processor.execute(command, Duration::from_millis(50));
    let (answer, ()) = tokio::join!(executing, async {
        eventually("it is at it", async || (tries(&key) > 0).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        repair(&key);
    });
    let Ok(Executed::Ended(_, outcome)) = answer else { panic!("{answer:?}") };
    assert_eq!(outcome.status, OutcomeStatus::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_process_that_is_gone_are_finished_by_the_queue_in_their_order() {
    let site = Site::new().await;
    let gone = site.start(&[Role::Ingress]).await;
    // As if it had died before it executed any of them.
    let held_by = Some(gone.id());
    let commands: Vec<_> =
        (0..20).map(|_| NewCommand { held_by, ..immediate(add("a", 1)) }).collect();
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    site.store.accept(commands).await.expect("accept");
    assert_eq!(held(&site).await, 20);
    let others = site.start(&ALL).await;
    let all: Vec<_> = site.store.identity().partitions.all().collect();
    let ttl = MembershipSettings::default().ttl;
    assert_eq!(site.store.take_over(&all, ttl, 100).await.expect("look"), 0, "slow is not gone");
    drop(gone);
    site.until_ended(&ids).await;
    assert_eq!(held(&site).await, 0);
    let mut replies = Vec::new();
    for id in &ids {
        let record = site.store.command(*id).await.expect("command").expect("there");
        let reply = record.outcome.expect("ended").reply.expect("a reply");
        replies.push(reply.as_str().parse::<i64>().expect("a number"));
    }
    assert_eq!(replies, (1..=20).collect::<Vec<_>>());
    site.until_applied().await;
    site.assert_lawful().await;
    drop(others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_stops_says_so_and_accepts_nothing() {
    let site = Site::new().await;
    let process = site.start(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &process).await;
    lane.stop.cancel();
    let or_queued = NewCommand { or_queued: true, ..immediate(add("a", 1)) };
    let one = lane.processor.dispatch(immediate(add("a", 1))).await.map(|_| ());
    let together = lane.processor.dispatch_together(vec![or_queued]).await.map(|_| ());
    let waits = lane.execute(add("a", 1)).await.map(|_| ());
    for answer in [one, together, waits] {
        assert!(matches!(answer, Err(Refusal::Stopping)), "{answer:?}");
    }
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.commands").await, 0);
}

/// As after a failover of the database that took the commit back which had ended it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_holds_and_does_not_have_is_finished_by_the_queue() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let settings = ImmediateSettings { lost_after_ms: 200, ..ImmediateSettings::default() };
    let lane = Lane::with(&site, &process, settings).await;
    let lost = NewCommand { held_by: Some(process.id()), ..immediate(add("a", 1)) };
    let id = lost.id;
    site.store.accept(vec![lost]).await.expect("accept");
    site.until_ended(&[id]).await;
    assert_eq!(held(&site).await, 0);
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.command_log").await, 1);
    drop(lane);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_comes_back_late_writes_nothing() {
    let site = Site::new().await;
    let late = site.start_patient(&[Role::Ingress]).await;
    let lane = Lane::of(&site, &late).await;
    let key = key();
    // It hangs here the first time; whoever is second succeeds.
    let command = immediate(flaky("flaky", "a", &key, 1, "hang"));
    let id = command.id;
    lane.processor.dispatch(command).await.expect("room");
    eventually("it is at it", async || (tries(&key) > 0).then_some(())).await;
    let _others = site.start(&ALL).await;
    let pool = site.database.pool().await;
    sqlx::query("UPDATE adjutant.immediate SET owner = gen_random_uuid()")
        .execute(&pool)
        .await
        .expect("as if it were gone");
    site.until_ended(&[id]).await;
    repair(&key);
    eventually("the late one is done", async || {
        (lane.processor.stats().running == 0).then_some(())
    })
    .await;
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.attempts").await, 0);
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.schedule").await, 0);
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.events").await, 1);
    site.until_applied().await;
    site.assert_lawful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_is_retried_through_the_queue() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let lane = Lane::of(&site, &process).await;
    let command = flaky("flaky", "a", &key(), 2, "retryable");
    let id = command.id;
    let answer = lane.execute(command).await.expect("durable");
    assert!(matches!(answer, Executed::Accepted(..)), "{answer:?}");
    site.until_ended(&[id]).await;
    let record = site.store.command(id).await.expect("command").expect("there");
    assert_eq!(record.lane, LaneName::Immediate);
    assert_eq!(record.outcome.as_ref().expect("ended").status, OutcomeStatus::Succeeded);
    assert!(record.failed_attempts >= 1, "{record:?}");
    let fatal = lane.outcome(flaky("flaky", "b", &key(), 9, "fatal")).await;
    assert_eq!(fatal.status, OutcomeStatus::Dead);
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.dead_letters").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_ones_keep_their_order_with_those_of_the_queue() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let lane = Lane::of(&site, &process).await;
    let strict = || flaky("in_order", "a", &key(), 0, "retryable");
    let free = lane.outcome(strict()).await;
    assert_eq!(free.status, OutcomeStatus::Succeeded, "nothing is before it: at once");
    let dies = flaky("in_order", "a", &key(), 9, "fatal");
    let dead = dies.id;
    let answer = lane.execute(dies).await.expect("durable");
    assert!(matches!(answer, Executed::Accepted(..)), "it needs a place in the log: {answer:?}");
    site.until_ended(&[dead]).await;
    let behind = strict();
    let id = behind.id;
    let answer = lane.execute(behind).await.expect("durable");
    assert!(matches!(answer, Executed::Accepted(..)), "{answer:?}");
    eventually("it waits", async || {
        let status = site.store.command(id).await.expect("command").expect("there").status();
        (status == CommandStatus::Waiting).then_some(())
    })
    .await;
    let other = lane.outcome(flaky("in_order", "b", &key(), 0, "retryable")).await;
    assert_eq!(other.status, OutcomeStatus::Succeeded, "of another stream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_on_both_lanes_at_once_is_one_effect_and_both_get_its_outcome() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let lane = Lane::of(&site, &process).await;
    let mut ids = Vec::new();
    for n in 0..50 {
        let command = add(&format!("s{}", n % 5), 1);
        ids.push(command.id);
        let (queued, immediate) =
            tokio::join!(lane.commit.accept(command.clone()), lane.execute(command));
        let queued = queued.expect("accepted");
        match immediate.expect("accepted") {
            Executed::Ended(accepted, _) | Executed::Accepted(accepted, _) => {
                assert_eq!(accepted.accepted_at, queued.accepted_at);
                assert!(accepted.replay != queued.replay, "one of them was first");
            }
        }
    }
    site.until_ended(&ids).await;
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.events").await, 50);
    site.until_applied().await;
    site.assert_lawful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_lanes_write_to_one_stream_and_lose_nothing() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let lane = Lane::of(&site, &process).await;
    let commands: Vec<NewCommand> = (0..300).map(|n| add(&format!("s{}", n % 3), 1)).collect();
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    let sent = commands.into_iter().enumerate().map(async |(n, command)| {
        if n % 2 == 0 {
            lane.commit.accept(command).await.map(drop)
        } else {
            lane.execute(command).await.map(drop)
        }
    });
    for sent in futures_util::future::join_all(sent).await {
        sent.expect("accepted");
    }
    site.until_ended(&ids).await;
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.events").await, 300);
    site.until_applied().await;
    site.assert_lawful().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_it_is_refused_or_takes_the_queue_if_it_may() {
    let site = Site::new().await;
    let process = site.start_patient(&ALL).await;
    let settings = ImmediateSettings { waiting_commands: 2, ..ImmediateSettings::default() };
    let lane = Lane::with(&site, &process, settings).await;
    let key = key();
    let blocks = [lane.execute(flaky("flaky", "a", &key, 1, "hang")), lane.execute(add("a", 1))];
    let blocked = futures_util::future::join_all(blocks);
    let (_, ()) = tokio::join!(blocked, async {
        eventually("the room is full", async || {
            let stats = lane.processor.stats();
            (stats.running + stats.waiting == 2).then_some(())
        })
        .await;
        assert_eq!(lane.execute(add("b", 1)).await.unwrap_err(), Refusal::Overloaded);
        let dispatched = lane.processor.dispatch_together(vec![immediate(add("b", 1))]).await;
        assert_eq!(dispatched, Err(Refusal::Overloaded));
        let some = vec![immediate(add("b", 1)), add("b", 1)];
        let dispatched = lane.processor.dispatch_together(some).await.expect("answered");
        assert!(matches!(dispatched[..], [Err(Refusal::Overloaded), Ok(_)]), "{dispatched:?}");
        let may_queue = NewCommand { or_queued: true, ..add("b", 1) };
        let id = may_queue.id;
        let answer = lane.execute(may_queue).await.expect("accepted");
        assert!(matches!(answer, Executed::Accepted(_, LaneName::Queued)), "{answer:?}");
        site.until_ended(&[id]).await;
        assert_eq!(lane.processor.stats().refused, 4);
        repair(&key);
    });
    assert_eq!(number(&site, "SELECT count(*) FROM adjutant.commands").await, 4);
}
