use std::{sync::atomic::Ordering, time::Duration};

use super::*;
use crate::{
    ingress::{
        Origin, Validator,
        testing::{MemoryStore, POISON, Script, bank},
    },
    message::CommandId,
    store::StoreError,
};

fn command(amount: i64, note: &str) -> NewCommand {
    let json = serde_json::json!({
        "type": "account.deposit", "stream": "account/a",
        "payload": { "amount": amount, "note": note },
    });
    Validator::new(bank().registry().clone()).check_value(&json, &Origin::default()).unwrap()
}

fn with_id(id: CommandId, amount: i64) -> NewCommand {
    NewCommand { id, ..command(amount, "") }
}

struct Fixture {
    store: Arc<MemoryStore>,
    commit: GroupCommit,
    task: JoinHandle<()>,
    signals: Signals,
}

fn start(store: MemoryStore, settings: CommitSettings) -> Fixture {
    let (store, signals) = (Arc::new(store), Signals::default());
    let (commit, task) =
        GroupCommit::start(store.clone(), signals.clone(), OutboxLimit::default(), &settings);
    Fixture { store, commit, task, signals }
}

fn slow() -> MemoryStore {
    MemoryStore { accept_takes: Duration::from_millis(100), ..MemoryStore::default() }
}

/// Sends all at once, in order; answers in order.
async fn accept_all(commit: &GroupCommit, commands: Vec<NewCommand>) -> Vec<Answer> {
    let answers = commands.into_iter().map(|command| commit.accept(command));
    futures_util::future::join_all(answers).await
}

fn one_at_a_time() -> CommitSettings {
    CommitSettings { in_flight: 1, ..CommitSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn commands_that_arrive_while_a_commit_runs_share_the_next() {
    let it = start(slow(), one_at_a_time());
    let commands = (1..=20).map(|amount| command(amount, "")).collect();
    let ids: Vec<_> = Vec::clone(&commands).iter().map(|c: &NewCommand| c.id).collect();
    let answers = accept_all(&it.commit, commands).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|a| !a.replay)));
    assert_eq!(it.store.inside().batches, [20]);
    assert_eq!(it.store.inside().order, ids, "the order of arrival is kept");
    tokio::time::timeout(Duration::from_secs(1), it.signals.outbox_hint()).await.expect("hinted");

    // One that comes alone does not wait; those that come meanwhile go together.
    let first = tokio::spawn({
        let commit = it.commit.clone();
        async move { commit.accept(command(1, "")).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    accept_all(&it.commit, (1..=5).map(|amount| command(amount, "")).collect()).await;
    first.await.unwrap().unwrap();
    assert_eq!(it.store.inside().batches, [20, 1, 5]);
}

#[tokio::test(start_paused = true)]
async fn batches_are_bounded_but_what_came_together_stays_together() {
    let it = start(slow(), CommitSettings { batch_commands: 4, ..one_at_a_time() });
    let together = (1..=6).map(|amount| command(amount, "")).collect();
    let (together, singles) = tokio::join!(
        it.commit.accept_together(together),
        accept_all(&it.commit, (1..=6).map(|amount| command(amount, "")).collect()),
    );
    assert_eq!(together.unwrap().len(), 6);
    assert_eq!(singles.len(), 6);
    assert_eq!(it.store.inside().batches, [6, 4, 2]);
}

#[tokio::test]
async fn the_same_id_twice_is_accepted_once() {
    let it = start(MemoryStore::default(), one_at_a_time());
    let id = CommandId::generate();
    let commands = vec![with_id(id, 1), with_id(id, 1), with_id(id, 2), command(9, "")];
    let answers = it.commit.accept_together(commands).await.unwrap();
    let accepted_at = answers[0].as_ref().unwrap().accepted_at;
    assert_eq!(answers[0], Ok(Acceptance { accepted_at, replay: false }));
    assert_eq!(answers[1], Ok(Acceptance { accepted_at, replay: true }));
    assert_eq!(answers[2], Err(Refusal::Conflict));
    assert!(answers[3].is_ok());
    assert_eq!(it.store.inside().batches, [2]);

    // And in another batch.
    assert_eq!(
        it.commit.accept(with_id(id, 1)).await,
        Ok(Acceptance { accepted_at, replay: true })
    );
    let again = it.commit.accept_together(vec![with_id(id, 2), with_id(id, 1)]).await.unwrap();
    assert_eq!(again, [Err(Refusal::Conflict), Ok(Acceptance { accepted_at, replay: true })]);
    assert_eq!(it.store.inside().commands.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_made_good_by_submitting_again() {
    let it = start(MemoryStore::default(), one_at_a_time());
    it.store.script([Script::AcceptThenLose, Script::Fail(StoreError::Unavailable)]);
    let id = CommandId::generate();
    let answer = it.commit.accept(with_id(id, 1)).await.unwrap();
    assert!(!answer.replay, "it is our own");
    assert_eq!(it.store.inside().batches, [1, 1, 1]);
    assert_eq!(it.store.inside().order, [id]);

    it.store.script([Script::AcceptThenLose]);
    assert_eq!(it.commit.accept(with_id(id, 2)).await, Err(Refusal::Conflict));
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried_for_a_bounded_time() {
    let it = start(MemoryStore::default(), one_at_a_time());
    it.store.script([Script::Fail(StoreError::Transient), Script::Fail(StoreError::Unavailable)]);
    it.commit.accept(command(1, "")).await.unwrap();
    assert_eq!(it.store.inside().batches.len(), 3);

    it.store.inside().down = true;
    let started = tokio::time::Instant::now();
    assert!(matches!(it.commit.accept(command(1, "")).await, Err(Refusal::Unavailable(_))));
    let took = started.elapsed();
    assert!((3..=5).contains(&took.as_secs()), "{took:?}");
    assert_eq!(it.store.inside().commands.len(), 1, "nothing was accepted");
    it.store.inside().down = false;
    it.commit.accept(command(1, "")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_accepted_is_never_called_refused() {
    let it = start(MemoryStore::default(), one_at_a_time());
    it.store.script([Script::AcceptThenLose]);
    it.store.script(std::iter::repeat_n(Script::Fail(StoreError::Unavailable), 100));
    assert!(matches!(it.commit.accept(command(1, "")).await, Err(Refusal::Unknown(_))));
    it.store.inside().script.clear();
    it.store.script([Script::Panic]);
    assert!(matches!(it.commit.accept(command(1, "")).await, Err(Refusal::Unknown(_))));
    it.commit.accept(command(1, "")).await.expect("a panic takes only its batch with it");
}

#[tokio::test]
async fn one_bad_command_does_not_fail_its_neighbours() {
    let it = start(MemoryStore::default(), one_at_a_time());
    let mut commands: Vec<_> = (1..=9).map(|amount| command(amount, "")).collect();
    commands[3] = command(1, POISON);
    let ids: Vec<_> = commands.iter().map(|c| c.id).collect();
    let answers = it.commit.accept_together(commands).await.unwrap();
    for (index, answer) in answers.iter().enumerate() {
        match index {
            3 => assert!(matches!(answer, Err(Refusal::Unstorable(_)))),
            _ => assert!(answer.is_ok(), "{index}"),
        }
    }
    let good: Vec<_> =
        ids.into_iter().enumerate().filter(|(i, _)| *i != 3).map(|(_, id)| id).collect();
    assert_eq!(it.store.inside().order, good, "the order of the others is kept");
}

#[tokio::test(start_paused = true)]
async fn the_waiting_room_is_bounded_by_count_and_bytes() {
    let it = start(slow(), CommitSettings { waiting_commands: 3, ..one_at_a_time() });
    let answers = accept_all(&it.commit, (1..=5).map(|amount| command(amount, "")).collect()).await;
    let refused = answers.iter().filter(|a| **a == Err(Refusal::Overloaded)).count();
    assert_eq!((refused, answers.len()), (2, 5));
    it.commit.accept(command(1, "")).await.expect("there is room again");

    let it = start(slow(), CommitSettings { waiting_bytes: 1_500, ..one_at_a_time() });
    let answers = accept_all(&it.commit, (1..=4).map(|amount| command(amount, "")).collect()).await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_for_a_commit_is_refused() {
    let store = MemoryStore { accept_takes: Duration::from_secs(20), ..MemoryStore::default() };
    let it = start(store, one_at_a_time());
    let first = tokio::spawn({
        let commit = it.commit.clone();
        async move { commit.accept(command(1, "")).await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let started = tokio::time::Instant::now();
    assert!(matches!(it.commit.accept(command(2, "")).await, Err(Refusal::Unavailable(_))));
    assert_eq!(started.elapsed().as_secs(), 5);
    assert!(first.await.unwrap().is_ok(), "the one that was being committed gets its answer");
    assert_eq!(it.store.inside().commands.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_takes_nothing_with_it() {
    let it = start(slow(), one_at_a_time());
    let (gone, stays) = (command(1, ""), command(2, ""));
    let ids = [gone.id, stays.id];
    let going = tokio::spawn({
        let commit = it.commit.clone();
        async move { commit.accept(gone).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    going.abort();
    it.commit.accept(stays).await.unwrap();
    assert_eq!(it.store.inside().order, ids);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_when_all_handles_are_gone_and_all_is_answered() {
    let it = start(slow(), CommitSettings::default());
    let commit = it.commit.clone();
    let waiting = tokio::spawn(async move { commit.accept(command(1, "")).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(it.commit);
    it.task.await.unwrap();
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_refuses_until_there_is_room() {
    let store = Arc::new(MemoryStore::default());
    store.outbox_rows.store(100, Ordering::Relaxed);
    let stop = tokio_util::sync::CancellationToken::new();
    let limit = OutboxLimit::watch(store.clone(), 100, stop.clone());
    let (commit, _task) =
        GroupCommit::start(store.clone(), Signals::default(), limit, &one_at_a_time());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(commit.accept(command(1, "")).await, Err(Refusal::OutboxFull));
    store.outbox_rows.store(99, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    commit.accept(command(1, "")).await.unwrap();
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn when_it_is_stopped_what_waits_is_committed_though_a_handle_is_kept() {
    let it = start(slow(), one_at_a_time());
    let accepting = [1, 2, 3].map(|amount| {
        let commit = it.commit.clone();
        tokio::spawn(async move { commit.accept(command(amount, "")).await })
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    it.commit.close();
    tokio::time::timeout(Duration::from_secs(1), it.task)
        .await
        .expect("it ends")
        .expect("no panic");
    for accepted in accepting {
        accepted.await.unwrap().expect("it had come before");
    }
    assert_eq!(it.commit.accept(command(4, "")).await, Err(Refusal::Stopping));
}
