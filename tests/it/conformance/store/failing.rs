//! What is written when something of a batch failed, came back or waits.

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::DeadLetterId,
    message::{
        Attempt, Batch, CommandEnvelope, CommandId, Failure, Offset, OutcomeStatus, Partition,
        decode_batch,
    },
    store::{
        CommandCommit, CommandFilter, CommandStatus, Entry, Fence, Hold, HoldState, LetGo, LogKind,
        NewCommand, NewDeadLetter, NewFailure, SetAside, Store,
    },
};

use super::{
    Open, Truth,
    look::{self, assert_fenced, rejected},
};
use crate::support::commands::{add, stream};

/// Accepts commands of the counter `a`: their first offsets are 1, 2, 3 …
async fn accepted(truth: &Truth, n: usize) -> Vec<NewCommand> {
    let commands: Vec<_> = (0..n).map(|_| add("a", 1)).collect();
    truth.store.accept(commands.clone()).await.expect("accept");
    commands
}

fn place(store: &Arc<dyn Store>) -> Partition {
    store.identity().partitions.of(&stream("a"))
}

fn aside(partition: Partition, id: CommandId, attempt: i32, first: i64) -> SetAside {
    SetAside {
        command_id: id,
        partition,
        delay_ms: 0,
        reason: "retry",
        attempt: Attempt(attempt),
        first_offset: Some(Offset(first)),
        edit: 0,
    }
}

fn failure(partition: Partition, id: CommandId, attempt: i32, next: Option<i64>) -> NewFailure {
    let error = Failure { sources: vec!["a cause".into()], ..Failure::new("broken", "no answer") };
    NewFailure { command_id: id, partition, attempt: Attempt(attempt), error, next_due_ms: next }
}

fn hold(partition: Partition, id: CommandId, first: i64, state: HoldState) -> Hold {
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

fn let_go(partition: Partition, first: i64) -> LetGo {
    LetGo { partition, stream: stream("a"), first_offset: Offset(first) }
}

fn holding(holds: Vec<Hold>) -> CommandCommit {
    CommandCommit { holds, ..CommandCommit::default() }
}

/// The states of the rows of the counter `a`, by first offset.
async fn states(store: &Arc<dyn Store>) -> Vec<(i64, HoldState)> {
    let rows = store.holds(&[(place(store), stream("a"))]).await.expect("holds");
    rows.iter().map(|row| (row.first_offset.0, row.state)).collect()
}

/// The executions that the command log of the counter `a` owes behind an offset.
async fn owed(store: &Arc<dyn Store>, after: i64) -> Vec<CommandEnvelope> {
    let from = Offset(after + 1);
    let entries = store.read_log(LogKind::Commands, place(store), from, 100).await.expect("log");
    let command = |entry| match entry {
        Entry::Command(entry) => entry.command,
        Entry::Event(_) => unreachable!("a command log"),
    };
    entries.into_iter().map(command).collect()
}

async fn promote(store: &Arc<dyn Store>) -> usize {
    store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote")
}

pub async fn a_failed_attempt_is_recorded_and_the_command_comes_back(open: Open) {
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let command = accepted(&truth, 2).await.remove(1);
    let failed = |attempt: i32| CommandCommit {
        set_aside: vec![aside(partition, command.id, attempt + 1, 2)],
        failures: vec![failure(partition, command.id, attempt, Some(0))],
        ..CommandCommit::default()
    };
    for attempt in 1..=2 {
        store.commit_commands(failed(attempt)).await.expect("commit");
        let record = store.command(command.id).await.expect("query").expect("is there");
        assert_eq!(record.status(), CommandStatus::Retrying);
        assert_eq!(record.failed_attempts, attempt);
        assert_eq!(promote(store).await, 1);
    }
    let record = store.command(command.id).await.expect("query").expect("is there");
    let attempts: Vec<_> = record.failures.iter().map(|failed| failed.attempt).collect();
    assert_eq!(attempts, [Attempt(2), Attempt(1)], "newest first");
    let newest = &record.failures[0];
    assert_eq!(newest.error, failure(partition, command.id, 2, None).error);
    assert_eq!(newest.next_due_at, Some(newest.failed_at), "due at once");
    let logged = owed(store, 2).await;
    let executions: Vec<_> =
        logged.iter().map(|it| (it.id, it.attempt, it.first_offset, it.edit)).collect();
    let expected = |attempt| (command.id, Attempt(attempt), Some(Offset(2)), 0);
    assert_eq!(executions, [expected(2), expected(3)]);
    // By the road the same.
    let rows = look::outbox(store).await;
    let told: Vec<CommandEnvelope> = rows
        .iter()
        .filter(|row| row.first_offset > Some(Offset(2)))
        .flat_map(|row| match decode_batch(&row.body, true).expect("decode") {
            Batch::Commands(commands) => commands,
            Batch::Events(_) => unreachable!("commands were written"),
        })
        .collect();
    assert_eq!(told, logged);
}

pub async fn an_attempt_is_recorded_once(open: Open) {
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let command = accepted(&truth, 1).await.remove(0);
    let failed = || CommandCommit {
        set_aside: vec![aside(partition, command.id, 2, 1)],
        failures: vec![failure(partition, command.id, 1, Some(0))],
        ..CommandCommit::default()
    };
    store.commit_commands(failed()).await.expect("commit");
    store.commit_commands(failed()).await.expect_err("the same attempt again");
    assert_eq!(promote(store).await, 1, "nothing of the second one took place");
}

pub async fn commands_are_listed_by_what_they_wait_for(open: Open) {
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let commands = accepted(&truth, 3).await;
    let mut commit = holding(vec![
        hold(partition, commands[0].id, 1, HoldState::Holds),
        hold(partition, commands[1].id, 2, HoldState::Waits),
    ]);
    commit.failures = vec![failure(partition, commands[0].id, 1, Some(1_000))];
    commit.set_aside = vec![aside(partition, commands[0].id, 2, 1)];
    store.commit_commands(commit).await.expect("commit");
    for (i, status) in [CommandStatus::Retrying, CommandStatus::Waiting, CommandStatus::Accepted]
        .into_iter()
        .enumerate()
    {
        let filter = CommandFilter { status: Some(status), ..CommandFilter::default() };
        let page = store.commands(&filter, None, 10).await.expect("list");
        let found: Vec<_> = page.items.iter().map(|record| record.id).collect();
        assert_eq!(found, [commands[i].id], "{status:?}");
    }
}

pub async fn a_command_waits_only_while_something_holds_it(open: Open) {
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let ids: Vec<_> = accepted(&truth, 3).await.iter().map(|command| command.id).collect();
    let waits = |first: i64| hold(partition, ids[first as usize - 1], first, HoldState::Waits);
    let mut refused = holding(vec![waits(2)]);
    refused.failures = vec![failure(partition, ids[1], 1, Some(0))];
    assert_fenced(store.commit_commands(refused).await, Fence::Holds);
    let record = store.command(ids[1]).await.expect("query").expect("is there");
    assert_eq!((record.status(), record.failed_attempts), (CommandStatus::Accepted, 0));
    // Later ones hold nothing.
    store
        .commit_commands(holding(vec![hold(partition, ids[2], 3, HoldState::Holds)]))
        .await
        .expect("commit");
    assert_fenced(store.commit_commands(holding(vec![waits(2)])).await, Fence::Holds);
    // What holds it may come in the same transaction.
    let both = holding(vec![hold(partition, ids[0], 1, HoldState::Holds), waits(2)]);
    store.commit_commands(both).await.expect("it is held");
    use HoldState::{Holds, Waits};
    assert_eq!(states(store).await, [(1, Holds), (2, Waits), (3, Holds)]);
    let others = [(partition, stream("other"))];
    assert!(store.holds(&others).await.expect("holds").is_empty());
}

pub async fn what_waits_is_released_in_order_when_nothing_holds_it(open: Open) {
    use HoldState::{Holds, Released, Waits};
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let ids: Vec<_> = accepted(&truth, 5).await.iter().map(|command| command.id).collect();
    let row = |first: i64, state| hold(partition, ids[first as usize - 1], first, state);
    let mut second = row(3, Waits);
    second.attempt = Attempt(2);
    let held = vec![row(1, Holds), row(5, Waits), row(2, Waits), second, row(4, Waits)];
    store.commit_commands(holding(held)).await.expect("commit");
    let end =
        |first| CommandCommit { let_go: vec![let_go(partition, first)], ..Default::default() };
    // The one in front of it holds on.
    store.commit_commands(end(4)).await.expect("commit");
    assert_eq!(promote(store).await, 0, "an earlier one still holds");
    store.commit_commands(end(1)).await.expect("commit");
    assert_eq!(states(store).await, [(2, Released), (3, Released), (5, Released)]);
    assert_eq!(promote(store).await, 3);
    let executions: Vec<_> =
        owed(store, 5).await.iter().map(|it| (it.id, it.attempt, it.first_offset)).collect();
    let expected =
        |first: i64, attempt| (ids[first as usize - 1], Attempt(attempt), Some(Offset(first)));
    assert_eq!(executions, [expected(2, 1), expected(3, 2), expected(5, 1)]);
    // A released one that ends releases nobody twice.
    store.commit_commands(end(2)).await.expect("commit");
    assert_eq!(promote(store).await, 0);
    assert_eq!(states(store).await, [(3, Released), (5, Released)]);
    // One that came later waits behind the released ones, and goes on after the last of them.
    let mut last = end(3);
    last.holds = vec![row(5, Waits)];
    assert_fenced(store.commit_commands(last).await, Fence::Holds);
}

pub async fn what_ends_and_what_waits_in_one_transaction_is_released_together(open: Open) {
    use HoldState::{Holds, Released, Waits};
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let ids: Vec<_> = accepted(&truth, 3).await.iter().map(|command| command.id).collect();
    let row = |first: i64, state| hold(partition, ids[first as usize - 1], first, state);
    store.commit_commands(holding(vec![row(1, Holds), row(2, Waits)])).await.expect("commit");
    let mut commit = holding(vec![row(3, Waits)]);
    commit.let_go = vec![let_go(partition, 1)];
    store.commit_commands(commit).await.expect("it waits behind the second");
    assert_eq!(states(store).await, [(2, Released), (3, Released)]);
    assert_eq!(promote(store).await, 2);
    let order: Vec<_> = owed(store, 3).await.iter().map(|it| it.id).collect();
    assert_eq!(order, ids[1..]);
}

pub async fn a_fence_that_holds_leaves_no_failure_behind(open: Open) {
    let truth = open(8).await;
    let (store, partition) = (&truth.store, place(&truth.store));
    let ids: Vec<_> = accepted(&truth, 2).await.iter().map(|command| command.id).collect();
    let mut dead = rejected(store, "a", 0);
    dead.outcomes[0].status = OutcomeStatus::Dead;
    store.commit_commands(dead.clone()).await.expect("commit");
    // The same command again: its outcome is there.
    let mut again = dead;
    let error = Failure::new("broken", "no answer");
    again.failures = vec![failure(partition, ids[0], 1, Some(0))];
    again.set_aside = vec![aside(partition, ids[0], 2, 1)];
    again.holds = vec![hold(partition, ids[0], 1, HoldState::Holds)];
    again.dead_letters = vec![NewDeadLetter {
        id: DeadLetterId::generate(),
        partition,
        stream: stream("a"),
        command_type: "counter.add".into(),
        command_id: again.outcomes[0].command_id,
        offset: None,
        fingerprint: adjutant::dead_letter::fingerprint("counter.add", "broken", "no answer"),
        error,
        attempts: Attempt(1),
    }];
    assert_fenced(store.commit_commands(again.clone()).await, Fence::Outcome);
    assert_eq!(promote(store).await, 0);
    assert_eq!(states(store).await, []);
    let record = store.command(ids[0]).await.expect("query").expect("is there");
    assert_eq!(record.failed_attempts, 0);
    // Without the outcome the rest is taken.
    again.outcomes.clear();
    store.commit_commands(again).await.expect("commit");
    assert_eq!(promote(store).await, 1);
}
