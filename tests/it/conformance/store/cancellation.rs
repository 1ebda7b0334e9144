//! Commands that somebody calls off: what becomes of them, and of whoever is at them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use adjutant::{
    dead_letter::DeadLetterState,
    message::{
        Attempt, CommandId, Failure, MemberId, Offset, Outcome, OutcomeStatus, Partition,
        ReplyAddress, Route, Timestamp, Version,
    },
    store::{
        Acted, CancelAnswer, CancelledBy, CommandCommit, CommandStatus, Entering, Fence, Hold,
        HoldState, LogKind, NewCommand, NewFailure, RetryRequest, SetAside, Store,
    },
};

use super::{
    Open, letters,
    look::{self, appended, assert_fenced},
};
use crate::support::commands::{add, stream};

pub fn by(who: &str) -> CancelledBy {
    CancelledBy { who: who.into(), reason: Some("a mistake".into()), job: None }
}

pub fn cancelled() -> CancelAnswer {
    CancelAnswer::Cancelled { command_type: "counter.add".into() }
}

const AGAIN: CancelAnswer = CancelAnswer::AlreadyEnded(OutcomeStatus::Cancelled);

pub fn place(store: &Arc<dyn Store>, command: &NewCommand) -> Partition {
    store.identity().partitions.of(&command.stream)
}

/// Accepts commands of the counter `a`: their first offsets are 1, 2, 3 …
pub async fn accepted(store: &Arc<dyn Store>, n: usize) -> Vec<NewCommand> {
    let commands: Vec<_> = (0..n).map(|_| add("a", 1)).collect();
    store.accept(commands.clone()).await.expect("accept");
    commands
}

/// A command that is due in an hour.
pub async fn delayed(store: &Arc<dyn Store>, counter: &str) -> NewCommand {
    let not_before = Some(Timestamp::now_utc() + Duration::from_hours(1));
    let command = NewCommand { not_before, ..add(counter, 1) };
    store.accept(vec![command.clone()]).await.expect("accept");
    command
}

/// A command that a process of the immediate lane holds, which never gave a sign of life.
pub async fn held(store: &Arc<dyn Store>, counter: &str) -> NewCommand {
    let command = NewCommand { held_by: Some(MemberId::generate()), ..add(counter, 1) };
    store.accept(vec![command.clone()]).await.expect("accept");
    command
}

/// Its first attempt fails, and it comes back after so many milliseconds.
pub fn retry(place: Partition, command: CommandId, first: i64, delay_ms: i64) -> CommandCommit {
    CommandCommit {
        set_aside: vec![aside(place, command, first, delay_ms)],
        failures: vec![NewFailure {
            command_id: command,
            partition: place,
            attempt: Attempt::FIRST,
            error: Failure::new("broken", "no answer"),
            next_due_ms: Some(delay_ms),
        }],
        ..CommandCommit::default()
    }
}

fn aside(partition: Partition, command_id: CommandId, first: i64, delay_ms: i64) -> SetAside {
    SetAside {
        command_id,
        partition,
        delay_ms,
        reason: "retry",
        attempt: Attempt(2),
        first_offset: Some(Offset(first)),
        edit: 0,
    }
}

pub fn hold(partition: Partition, id: CommandId, first: i64, state: HoldState) -> Hold {
    Hold {
        partition,
        stream: stream("a"),
        first_offset: Offset(first),
        command_id: id,
        state,
        attempt: Attempt(1),
        edit: 0,
    }
}

pub async fn cancel(store: &Arc<dyn Store>, id: CommandId) -> CancelAnswer {
    store.cancel_commands(&[id], &by("ann")).await.expect("cancel").remove(0)
}

async fn outcome(store: &Arc<dyn Store>, id: CommandId) -> Outcome {
    let record = store.command(id).await.expect("query").expect("is there");
    record.outcome.expect("it has ended")
}

async fn promote(store: &Arc<dyn Store>) -> usize {
    store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote")
}

/// The rows of `holds` of the counter `a`, by first offset.
async fn states(store: &Arc<dyn Store>) -> Vec<(i64, HoldState)> {
    let asked = [(store.identity().partitions.of(&stream("a")), stream("a"))];
    let rows = store.holds(&asked).await.expect("holds");
    rows.iter().map(|row| (row.first_offset.0, row.state)).collect()
}

/// What an execution of this command would commit.
fn executed(store: &Arc<dyn Store>, command: &NewCommand, version: i64) -> CommandCommit {
    let counter = command.stream.as_str().trim_start_matches("counter/").to_owned();
    let mut commit = appended(store, &counter, version);
    commit.events[0].command_id = command.id;
    commit.outcomes[0].command_id = command.id;
    commit
}

pub async fn a_command_is_cancelled_once_wherever_it_is(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    store.commit_commands(appended(store, "a", 1)).await.expect("commit");
    let queued = accepted(store, 1).await.remove(0);
    let retried = add("r", 1);
    store.accept(vec![retried.clone()]).await.expect("accept");
    let failed = retry(place(store, &retried), retried.id, 1, 3_600_000);
    store.commit_commands(failed).await.expect("commit");
    let (delayed, held) = (delayed(store, "d").await, held(store, "h").await);
    for (command, status, attempts, version) in [
        (&queued, CommandStatus::Accepted, 0, 1),
        (&retried, CommandStatus::Retrying, 1, 0),
        (&delayed, CommandStatus::Scheduled, 0, 0),
        (&held, CommandStatus::Accepted, 0, 0),
    ] {
        let record = store.command(command.id).await.expect("query").expect("is there");
        assert_eq!(record.status(), status);
        assert_eq!(cancel(store, command.id).await, cancelled(), "{status:?}");
        let found = outcome(store, command.id).await;
        let error = Failure::new("cancelled", "called off by ann: a mistake");
        assert_eq!((found.status, found.error), (OutcomeStatus::Cancelled, Some(error)));
        assert_eq!((found.attempts, found.version), (attempts, Version(version)), "{status:?}");
        assert!(found.positions.is_empty() && found.reply.is_none());
        assert!(found.completed_at >= record.accepted_at);
        assert_eq!(cancel(store, command.id).await, AGAIN);
        let record = store.command(command.id).await.expect("query").expect("is there");
        assert_eq!(record.status(), CommandStatus::Ended(OutcomeStatus::Cancelled));
        assert!(!record.scheduled && !record.waiting);
    }
    let kept = truth.sql.table("cancellations");
    let changed = truth.sql.run(format!("UPDATE {kept} SET who = 'nobody'")).await;
    assert!(changed.is_err_and(|error| error.contains("append-only")));
}

pub async fn each_of_many_is_answered(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let commands: Vec<_> = (0..6).map(|n| add(&format!("c{n}"), 1)).collect();
    store.accept(commands.clone()).await.expect("accept");
    store.commit_commands(executed(store, &commands[0], 1)).await.expect("commit");
    let mut refused = executed(store, &commands[1], 0);
    (refused.events, refused.messages) = (Vec::new(), Vec::new());
    refused.outcomes[0].status = OutcomeStatus::Rejected;
    refused.outcomes[0].events = 0;
    refused.outcomes[0].version = Version(0);
    store.commit_commands(refused).await.expect("commit");
    let dead = letters::dead(&truth, add("dead", 1)).await.command_id;
    let ids = [
        commands[5].id,
        commands[0].id,
        CommandId::generate(),
        commands[1].id,
        commands[4].id,
        dead,
        commands[5].id,
    ];
    let answers = store.cancel_commands(&ids, &by("ann")).await.expect("cancel");
    let ended = CancelAnswer::AlreadyEnded;
    let expected = [
        cancelled(),
        ended(OutcomeStatus::Succeeded),
        CancelAnswer::NotFound,
        ended(OutcomeStatus::Rejected),
        cancelled(),
        ended(OutcomeStatus::Dead),
        AGAIN,
    ];
    assert_eq!(answers, expected);
    assert_eq!(outcome(store, dead).await.status, OutcomeStatus::Dead, "what has ended stays");
    assert!(store.cancel_commands(&[], &by("ann")).await.expect("cancel").is_empty());
    let too_many: Vec<_> = (0..=adjutant::store::MOST_CANCELLED).map(|_| commands[2].id).collect();
    assert!(store.cancel_commands(&too_many, &by("ann")).await.is_err());
    for untouched in [&commands[2], &commands[3]] {
        let record = store.command(untouched.id).await.expect("query").expect("is there");
        assert_eq!(record.outcome, None);
    }
}

pub async fn whoever_executes_a_cancelled_command_writes_nothing(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let commands = accepted(store, 2).await;
    let (first, place) = (&commands[0], place(store, &commands[0]));
    assert_eq!(cancel(store, first.id).await, cancelled());
    // Decided before, committed now: with another one, which has no effect either.
    let mut late = executed(store, first, 1);
    late.outcomes.extend(executed(store, &commands[1], 2).outcomes);
    late.events.extend(executed(store, &commands[1], 2).events);
    assert_fenced(store.commit_commands(late).await, Fence::Outcome);
    assert_eq!(look::gapless(store, LogKind::Events).await, 0);
    // Its attempt failed: it does not come back.
    let failed = retry(place, first.id, 1, 0);
    assert_fenced(store.commit_commands(failed).await, Fence::Outcome);
    let mut holds = retry(place, first.id, 1, 0);
    holds.holds = vec![hold(place, first.id, 1, HoldState::Holds)];
    assert_fenced(store.commit_commands(holds).await, Fence::Outcome);
    // It was to wait behind another one.
    let waits = CommandCommit {
        holds: vec![
            hold(place, commands[1].id, 0, HoldState::Holds),
            hold(place, first.id, 1, HoldState::Waits),
        ],
        ..CommandCommit::default()
    };
    assert_fenced(store.commit_commands(waits).await, Fence::Outcome);
    assert_eq!((promote(store).await, states(store).await), (0, Vec::new()));
    let record = store.command(first.id).await.expect("query").expect("is there");
    assert_eq!(record.failed_attempts, 0);
}

pub async fn a_cancelled_command_does_not_come_back(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let retried = accepted(store, 1).await.remove(0);
    let failed = retry(place(store, &retried), retried.id, 1, 0);
    store.commit_commands(failed).await.expect("commit");
    let delayed = delayed(store, "d").await;
    for command in [&retried, &delayed] {
        assert_eq!(cancel(store, command.id).await, cancelled());
    }
    let due = truth.sql.time(Timestamp::UNIX_EPOCH);
    let schedule = truth.sql.table("schedule");
    truth.sql.run(format!("UPDATE {schedule} SET due_at = {due}")).await.expect("hurry");
    assert_eq!(promote(store).await, 0, "nothing is left in the schedule");
    assert_eq!(look::gapless(store, LogKind::Commands).await, 1);
}

pub async fn what_a_cancelled_command_held_goes_on(open: Open) {
    use HoldState::{Holds, Released, Waits};
    let truth = open(8).await;
    let store = &truth.store;
    let commands = accepted(store, 5).await;
    let place = place(store, &commands[0]);
    let row = |first: i64, state| hold(place, commands[first as usize - 1].id, first, state);
    let mut commit = retry(place, commands[0].id, 1, 3_600_000);
    commit.holds = vec![row(1, Holds), row(2, Waits), row(3, Waits), row(4, Waits)];
    store.commit_commands(commit).await.expect("commit");
    // One that waits: the others go on waiting.
    assert_eq!(cancel(store, commands[2].id).await, cancelled());
    assert_eq!(states(store).await, [(1, Holds), (2, Waits), (4, Waits)]);
    assert_eq!(promote(store).await, 0);
    // The one that holds them.
    assert_eq!(cancel(store, commands[0].id).await, cancelled());
    assert_eq!(states(store).await, [(2, Released), (4, Released)]);
    // One that was released: the rest keeps its place.
    assert_eq!(cancel(store, commands[1].id).await, cancelled());
    assert_eq!(states(store).await, [(4, Released)]);
    assert_eq!(promote(store).await, 1);
    let last = look::log(store, LogKind::Commands).await[place.index()].last().cloned();
    let Some(adjutant::store::Entry::Command(last)) = last else { panic!("a command") };
    assert_eq!((last.command.id, last.command.first_offset), (commands[3].id, Some(Offset(4))));
    // Waiters behind one that waits behind a cancelled one are not forgotten.
    let waits = CommandCommit { holds: vec![row(5, Waits)], ..CommandCommit::default() };
    store.commit_commands(waits).await.expect("commit");
    assert_eq!(cancel(store, commands[3].id).await, cancelled());
    assert_eq!(states(store).await, [(5, Released)]);
}

pub async fn whoever_holds_a_cancelled_command_is_fenced(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let command = held(store, "a").await;
    let place = place(store, &command);
    assert_eq!(cancel(store, command.id).await, cancelled());
    let held = [(place, command.id)];
    assert!(store.held(&held).await.expect("held").is_empty());
    let entering = Entering { held: held.to_vec(), ..Entering::default() };
    let mut late = executed(store, &command, 1);
    late.entering = entering.clone();
    assert_fenced(store.commit_commands(late).await, Fence::Held);
    let aside = CommandCommit { entering, ..retry(place, command.id, 1, 0) };
    assert_fenced(store.commit_commands(aside).await, Fence::Held);
    let taken = store.take_over(&look::all(store), Duration::ZERO, 10).await.expect("take over");
    assert_eq!(taken, 0, "nobody takes it over");
    assert_eq!(look::gapless(store, LogKind::Events).await, 0);
}

/// Many commands are executed, each in a transaction of its own, and called off at the same time.
pub async fn cancelling_and_executing_at_once_is_one_of_them(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let mut commands: Vec<_> = (0..40).map(|n| add(&format!("c{n}"), 1)).collect();
    for command in commands.iter_mut().skip(20) {
        command.held_by = Some(MemberId::generate());
    }
    store.accept(commands.clone()).await.expect("accept");
    let execute = |command: NewCommand| {
        let store = truth.store.clone();
        tokio::spawn(async move {
            let mut commit = executed(&store, &command, 1);
            if command.held_by.is_some() {
                commit.entering.held = vec![(commit.outcomes[0].partition, command.id)];
            }
            match store.commit_commands(commit).await {
                Ok(_) => true,
                Err(adjutant::store::StoreError::Fenced(Fence::Outcome | Fence::Held)) => false,
                Err(error) => panic!("{error}"),
            }
        })
    };
    let call_off = |ids: Vec<CommandId>| {
        let store = truth.other.clone();
        tokio::spawn(async move { store.cancel_commands(&ids, &by("ann")).await.expect("cancel") })
    };
    // Half of them one by one, half of them together, in another order than they are executed.
    let mut ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    ids.reverse();
    let mut executing = Vec::new();
    let mut calling_off = vec![(ids[..20].to_vec(), call_off(ids[..20].to_vec()))];
    for (command, id) in commands.iter().zip(&ids[20..]) {
        executing.push((command.id, execute(command.clone())));
        calling_off.push((vec![*id], call_off(vec![*id])));
    }
    for command in &commands[20..] {
        executing.push((command.id, execute(command.clone())));
    }
    let mut ran = BTreeMap::new();
    for (id, executing) in executing {
        ran.insert(id, executing.await.expect("joined"));
    }
    let mut called_off = BTreeMap::new();
    for (ids, answers) in calling_off {
        let answers = answers.await.expect("joined");
        called_off.extend(ids.into_iter().zip(answers));
    }
    let mut effects = 0;
    for command in &commands {
        let found = outcome(store, command.id).await;
        let (status, answer) = if ran[&command.id] {
            effects += 1;
            (OutcomeStatus::Succeeded, CancelAnswer::AlreadyEnded(OutcomeStatus::Succeeded))
        } else {
            (OutcomeStatus::Cancelled, cancelled())
        };
        assert_eq!((found.status, &called_off[&command.id]), (status, &answer));
    }
    assert_eq!(look::gapless(store, LogKind::Events).await, effects);
    println!("{effects} of {} were executed", commands.len());
}

pub async fn a_command_that_fifty_cancel_at_once_is_cancelled_by_one(open: Open) {
    let truth = open(8).await;
    let commands = accepted(&truth.store, 3).await;
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    let calling = (0..50).map(|n| {
        let (store, mut ids) = (truth.other.clone(), ids.clone());
        ids.rotate_left(n % 3);
        tokio::spawn(async move { store.cancel_commands(&ids, &by("ann")).await })
    });
    let mut done = 0;
    for answers in futures_util::future::join_all(calling).await {
        let answers = answers.expect("joined").expect("cancel");
        done += answers.iter().filter(|answer| **answer == cancelled()).count();
    }
    assert_eq!(done, 3);
}

pub async fn the_reply_tells_that_it_was_cancelled(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let to = ReplyAddress { queue: "answers".into(), correlation_id: Some("one".into()) };
    let asks = NewCommand { reply_to: Some(to), ..add("a", 1) };
    let mute = NewCommand {
        reply_to: Some(ReplyAddress { queue: "answers".into(), correlation_id: None }),
        ..add("a", 1)
    };
    store.accept(vec![asks.clone(), mute.clone(), add("a", 1)]).await.expect("accept");
    for command in [&asks, &mute] {
        assert_eq!(cancel(store, command.id).await, cancelled());
        assert_eq!(cancel(store, command.id).await, AGAIN, "it is told once");
    }
    let replies: Vec<_> = look::outbox(store)
        .await
        .into_iter()
        .filter(|row| row.route == Route::Reply { queue: "answers".into() })
        .collect();
    let correlations: Vec<_> = replies.iter().map(|row| row.correlation_id.as_deref()).collect();
    assert_eq!(correlations, [Some("one"), None]);
    assert_eq!((replies[0].entries, replies[0].first_offset), (0, None));
    assert_eq!(replies[0].content_type, "application/json");
    let body: serde_json::Value = serde_json::from_slice(&replies[0].body).expect("JSON");
    let completed_at = body["completed_at"].as_str().expect("a time");
    assert_eq!(completed_at.len(), "2026-01-02T03:04:05.678901Z".len(), "{completed_at}");
    assert_eq!(
        body,
        serde_json::json!({
            "id": asks.id, "status": "cancelled", "attempts": 0, "completed_at": completed_at,
            "outcome": {
                "positions": [], "version": 0, "reply": null,
                "error": { "code": "cancelled", "message": "called off by ann: a mistake" },
            },
        })
    );
}

pub async fn a_dead_letter_that_was_retried_is_resolved_by_a_cancellation(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let letter = letters::dead(&truth, add("a", 1)).await;
    let request = RetryRequest { id: letter.id, payload: None };
    let acted = store.retry_dead_commands(&[request], &letters::by("bob")).await.expect("retry");
    assert_eq!(acted, [Acted::Done]);
    assert_eq!(cancel(store, letter.command_id).await, cancelled());
    let found = store.dead_letter(letter.id).await.expect("look").expect("is there");
    assert_eq!(found.letter.state, DeadLetterState::Resolved);
    assert_eq!(promote(store).await, 0);
    let discarded = store.discard_dead_letters(&[letter.id], &letters::by("bob")).await;
    let resolved = Acted::NotOpen(DeadLetterState::Resolved);
    assert_eq!(discarded.expect("discard"), [resolved]);
}
