//! Commands with a `not_after`: they are not started after it, whichever way they come.

use std::{sync::Arc, time::Duration};

use adjutant::{
    execute::{Arrival, ArrivalEnd, Enters},
    message::{CommandId, MemberId, Outcome, OutcomeStatus, Timestamp},
    store::{CommandStatus, HoldState, NewCommand, Store},
};

use super::{
    Open, Truth,
    cancellation::{held, place},
    lane::Lane,
};
use crate::support::{
    commands::{add, flaky, stream},
    domain::{repair, tries},
    eventually,
};

fn key() -> String {
    CommandId::generate().to_string()
}

async fn ago(store: &Arc<dyn Store>) -> Timestamp {
    store.now().await.expect("the time") - Duration::from_secs(1)
}

/// The deadline of a command passes now.
async fn pass(truth: &Truth, command: &NewCommand) {
    let (commands, id) = (truth.sql.table("commands"), truth.sql.id(command.id.0));
    let ago = truth.sql.time(ago(&truth.store).await);
    let sql = format!("UPDATE {commands} SET not_after = {ago} WHERE id = {id}");
    truth.sql.run(sql).await.expect("pass");
}

/// What is scheduled is due now.
async fn hurry(truth: &Truth) {
    let (schedule, due) = (truth.sql.table("schedule"), truth.sql.time(Timestamp::UNIX_EPOCH));
    truth.sql.run(format!("UPDATE {schedule} SET due_at = {due}")).await.expect("hurry");
}

#[track_caller]
fn assert_expired(outcome: &Outcome, attempts: i32) {
    assert_eq!(outcome.status, OutcomeStatus::Cancelled);
    let error = outcome.error.as_ref().expect("an error");
    assert_eq!(error.code, "expired", "{}", error.message);
    assert_eq!((outcome.attempts, outcome.positions.len()), (attempts, 0));
}

async fn status(store: &Arc<dyn Store>, id: CommandId) -> CommandStatus {
    store.command(id).await.expect("query").expect("is there").status()
}

/// Whoever executes comes late: nobody did for a while.
pub async fn a_deadline_that_passes_while_nobody_executes_ends_the_command(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let later = Timestamp::now_utc() + Duration::from_hours(1);
    let in_time = Some(later);
    let commands = [
        NewCommand { not_after: in_time, ..add("a", 1) },
        NewCommand { not_after: Some(ago(store).await), ..add("a", 1) },
        NewCommand { not_after: in_time, ..add("a", 1) },
    ];
    store.accept(commands.to_vec()).await.expect("accept");
    let record = store.command(commands[0].id).await.expect("query").expect("is there");
    let kept = record.not_after.expect("it is kept").unix_timestamp_nanos() / 1_000;
    assert_eq!(kept, later.unix_timestamp_nanos() / 1_000);
    let lane = Lane::on(store).await;
    let ends = lane.until_ended(&commands.each_ref().map(|command| command.id)).await;
    assert_expired(&ends[1], 0);
    let versions = [ends[0].version.0, ends[1].version.0, ends[2].version.0];
    assert_eq!(versions, [1, 1, 2]);
    assert!(ends[0].status == OutcomeStatus::Succeeded && ends[2].status == ends[0].status);
}

pub async fn a_retry_that_is_due_after_the_deadline_does_not_take_place(open: Open) {
    let truth = open(4).await;
    let (store, key) = (&truth.store, key());
    let command = flaky("flaky", "a", &key, 100, "retryable");
    store.accept(vec![command.clone()]).await.expect("accept");
    let lane = Lane::on(store).await;
    lane.go_on().await;
    assert_eq!(status(store, command.id).await, CommandStatus::Retrying);
    pass(&truth, &command).await;
    hurry(&truth).await;
    assert_expired(&lane.until_ended(&[command.id]).await[0], 1);
    assert_eq!(tries(&key), 1, "it was not started again");
}

pub async fn a_strict_command_that_expires_lets_go_of_those_behind(open: Open) {
    let truth = open(4).await;
    let (store, first) = (&truth.store, key());
    let strict = |key: &str, fails| flaky("in_order", "a", key, fails, "retryable");
    let (behind, last) = (strict(&key(), 0), strict(&key(), 0));
    let expires = strict(&first, 100);
    store.accept(vec![expires.clone(), behind.clone(), last.clone()]).await.expect("accept");
    let lane = Lane::on(store).await;
    lane.go_on().await;
    assert_eq!(status(store, expires.id).await, CommandStatus::Retrying);
    assert_eq!(status(store, behind.id).await, CommandStatus::Waiting);
    // One of those behind is late, too, when it comes to its turn.
    pass(&truth, &expires).await;
    pass(&truth, &behind).await;
    hurry(&truth).await;
    let ends = lane.until_ended(&[expires.id, behind.id, last.id]).await;
    assert_expired(&ends[0], 1);
    assert_expired(&ends[1], 0);
    assert_eq!((ends[2].status, ends[2].version.0), (OutcomeStatus::Succeeded, 1));
    let held = store.holds(&[(place(store, &expires), stream("a"))]).await.expect("holds");
    assert!(held.is_empty(), "{held:?}");
}

/// It need not wait for its turn to be too late.
pub async fn a_strict_command_that_is_late_does_not_wait(open: Open) {
    let truth = open(4).await;
    let (store, first) = (&truth.store, key());
    let holds = flaky("in_order", "a", &first, 100, "fatal");
    let late = NewCommand {
        not_after: Some(ago(store).await),
        ..flaky("in_order", "a", &key(), 0, "retryable")
    };
    store.accept(vec![holds.clone(), late.clone()]).await.expect("accept");
    let lane = Lane::on(store).await;
    let ends = lane.until_ended(&[holds.id, late.id]).await;
    assert_eq!(ends[0].status, OutcomeStatus::Dead);
    assert_expired(&ends[1], 0);
    let rows = store.holds(&[(place(store, &holds), stream("a"))]).await.expect("holds");
    let rows: Vec<_> = rows.iter().map(|row| (row.command_id, row.state)).collect();
    assert_eq!(rows, [(holds.id, HoldState::Holds)]);
}

pub async fn a_delayed_command_that_comes_late_is_not_started(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let hours = |n| Some(Timestamp::now_utc() + Duration::from_hours(n));
    let command = NewCommand { not_before: hours(1), not_after: hours(2), ..add("a", 1) };
    let in_time = NewCommand { not_before: hours(1), not_after: hours(2), ..add("a", 1) };
    store.accept(vec![command.clone(), in_time.clone()]).await.expect("accept");
    let lane = Lane::on(store).await;
    assert_eq!(lane.go_on().await, 0);
    pass(&truth, &command).await;
    hurry(&truth).await;
    let ends = lane.until_ended(&[command.id, in_time.id]).await;
    assert_expired(&ends[0], 0);
    assert_eq!(ends[1].status, OutcomeStatus::Succeeded);
}

/// In the immediate lane: one that enters with its execution, one that is held.
pub async fn the_immediate_lane_starts_nothing_that_is_late(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let lane = Lane::on(store).await;
    let late = Some(ago(store).await);
    let new = NewCommand { not_after: late, ..add("a", 1) };
    let owner = Some(MemberId::generate());
    let holding = NewCommand { held_by: owner, not_after: late, ..add("a", 1) };
    store.accept(vec![holding.clone()]).await.expect("accept");
    let arrival = |command: &NewCommand, enters| Arrival {
        partition: place(store, command),
        command: envelope(command),
        enters,
    };
    let arrivals =
        vec![arrival(&new, Enters::New(Box::new(new.clone()))), arrival(&holding, Enters::Held)];
    for end in lane.arrive(arrivals).await {
        let ArrivalEnd::Ended { outcome, .. } = end else { panic!("{end:?}") };
        assert_expired(&outcome, 0);
    }
    for command in [&new, &holding] {
        let expired = CommandStatus::Ended(OutcomeStatus::Cancelled);
        assert_eq!(status(store, command.id).await, expired);
    }
    let still = store.held(&[(place(store, &holding), holding.id)]).await.expect("held");
    assert!(still.is_empty());
}

/// What is cancelled while a process holds it is not executed by it.
pub async fn the_immediate_lane_executes_nothing_that_is_cancelled(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let lane = Lane::on(store).await;
    let (called_off, goes_on) = (held(store, "a").await, held(store, "a").await);
    let by = super::cancellation::by("ann");
    store.cancel_commands(&[called_off.id], &by).await.expect("cancel");
    let arrival = |command: &NewCommand| Arrival {
        partition: place(store, command),
        command: envelope(command),
        enters: Enters::Held,
    };
    let ends = lane.arrive(vec![arrival(&called_off), arrival(&goes_on)]).await;
    assert!(matches!(ends[0], ArrivalEnd::Known { .. }), "{:?}", ends[0]);
    let ArrivalEnd::Ended { outcome, .. } = &ends[1] else { panic!("{:?}", ends[1]) };
    assert_eq!((outcome.status, outcome.version.0), (OutcomeStatus::Succeeded, 1));
    let cancelled = CommandStatus::Ended(OutcomeStatus::Cancelled);
    assert_eq!(status(store, called_off.id).await, cancelled);
}

fn envelope(command: &NewCommand) -> adjutant::message::CommandEnvelope {
    adjutant::message::CommandEnvelope {
        id: command.id,
        command_type: command.command_type.clone(),
        stream: command.stream.clone(),
        payload: command.payload.clone(),
        metadata: command.metadata.clone(),
        expected_version: command.expected_version,
        reply_to: command.reply_to.clone(),
        accepted_at: Timestamp::now_utc(),
        attempt: adjutant::message::Attempt::FIRST,
        first_offset: None,
        edit: 0,
        not_after: command.not_after,
        callback_url: None,
    }
}

/// A batch that hangs in its handler while its command is cancelled: the attempt has no effect.
pub async fn an_attempt_under_way_has_no_effect_when_its_command_is_cancelled(open: Open) {
    let truth = open(4).await;
    let (store, key) = (truth.store.clone(), key());
    let hangs = flaky("in_order", "a", &key, 1, "hang");
    let behind = flaky("in_order", "a", &self::key(), 0, "retryable");
    store.accept(vec![hangs.clone(), behind.clone()]).await.expect("accept");
    let lane = Arc::new(Lane::on(&store).await);
    let executing = lane.clone();
    let executing = tokio::spawn(async move { executing.go_on().await });
    eventually("it is at work", async || (tries(&key) > 0).then_some(())).await;
    let by = super::cancellation::by("ann");
    store.cancel_commands(&[hangs.id], &by).await.expect("cancel");
    repair(&key);
    executing.await.expect("joined");
    let ends = lane.until_ended(&[hangs.id, behind.id]).await;
    assert_eq!(ends[0].status, OutcomeStatus::Cancelled);
    assert_eq!(ends[0].error.as_ref().expect("an error").code, "cancelled");
    assert_eq!((ends[1].status, ends[1].version.0), (OutcomeStatus::Succeeded, 1));
    let record = store.command(hangs.id).await.expect("query").expect("is there");
    assert!(record.failures.is_empty(), "nothing of the attempt was written");
}
