//! Housekeeping: what is removed, and what never is.

use std::{sync::Arc, time::Duration};

use adjutant::{
    message::{Attempt, CommandId, GroupName, LogId, Offset, Partition, StreamId},
    store::{
        Accepted, CheckpointMove, CommandCommit, Entry, ForeignMessage, Leftover, LogKind,
        NewCommand, SetAside, Store, ViewCommit,
    },
};

use super::{
    Open,
    look::{self, appended},
    membership,
};
use crate::support::{commands::add, eventually};

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3_600);
const ONLY: Partition = Partition(0);

/// Accepts commands; all of them in partition 0 of a store with one.
async fn accept(store: &Arc<dyn Store>, n: usize) -> Vec<NewCommand> {
    let commands: Vec<_> = (0..n).map(|i| add(&format!("c{i}"), 1)).collect();
    store.accept(commands.clone()).await.expect("accept");
    commands
}

/// The command at this offset ends, with an event.
async fn end(store: &Arc<dyn Store>, command: &NewCommand, offset: i64) {
    let stream: &StreamId = &command.stream;
    let mut commit = appended(store, stream.as_str().trim_start_matches("counter/"), 1);
    commit.events[0].command_id = command.id;
    commit.outcomes[0].command_id = command.id;
    commit.outcomes[0].log_offset = Some(Offset(offset));
    store.commit_commands(commit).await.expect("commit");
}

async fn finish(store: &Arc<dyn Store>, from: i64, to: i64) {
    let (from, to) = (Offset(from), Offset(to));
    let moved = CheckpointMove { group: GroupName::commands(), partition: ONLY, from, to };
    let commit = CommandCommit { checkpoints: vec![moved], ..CommandCommit::default() };
    store.commit_commands(commit).await.expect("move the checkpoint");
}

async fn put_aside(store: &Arc<dyn Store>, command: CommandId, delay_ms: i64) {
    let aside = SetAside {
        command_id: command,
        partition: ONLY,
        delay_ms,
        reason: "type_unknown_here",
        attempt: Attempt::FIRST,
        first_offset: None,
        edit: 0,
    };
    let commit = CommandCommit { set_aside: vec![aside], ..CommandCommit::default() };
    store.commit_commands(commit).await.expect("set aside");
}

/// Removes all that may go, until that many log entries and commands are gone.
async fn until_removed(store: &Arc<dyn Store>, entries: u64, commands: u64) {
    let mut removed = (0, 0);
    eventually("what may go is gone", async || {
        removed.0 += store.remove_log_entries(ONLY, NOW, 100).await.expect("remove");
        removed.1 += store.remove_ended_commands(NOW, None, 100).await.expect("remove").removed;
        (removed == (entries, commands)).then_some(())
    })
    .await;
    assert_eq!(store.remove_log_entries(ONLY, NOW, 100).await.expect("remove"), 0);
    let more = store.remove_ended_commands(NOW, None, 100).await.expect("remove");
    assert_eq!(more.removed, 0);
}

async fn offsets(store: &Arc<dyn Store>) -> Vec<i64> {
    look::log(store, LogKind::Commands).await.concat().iter().map(|e| e.offset().0).collect()
}

async fn is_there(store: &Arc<dyn Store>, command: &NewCommand) -> bool {
    store.command(command.id).await.expect("query").is_some()
}

pub async fn commands_that_ended_are_removed_when_they_are_old(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let commands = accept(store, 3).await;
    for (command, offset) in commands.iter().zip(1..) {
        end(store, command, offset).await;
    }
    finish(store, 0, 3).await;
    let again = store.accept(vec![commands[0].clone()]).await.expect("accept");
    assert!(matches!(again[0], Accepted::Occupied(_)), "its id is known while it is kept");

    assert_eq!(store.remove_log_entries(ONLY, HOUR, 100).await.expect("remove"), 0);
    let none = store.remove_ended_commands(HOUR, None, 100).await.expect("remove");
    assert_eq!((none.removed, none.next), (0, None), "too young");

    until_removed(store, 2, 2).await;
    assert_eq!(offsets(store).await, [3], "the newest entry is what the next is counted from");
    assert!(!is_there(store, &commands[0]).await && !is_there(store, &commands[1]).await);
    assert!(is_there(store, &commands[2]).await, "its entry is still there");
    let asked: Vec<_> = commands.iter().map(|command| (ONLY, command.id)).collect();
    assert_eq!(store.outcomes(&asked).await.expect("outcomes").len(), 1);
    assert_eq!(look::gapless(store, LogKind::Events).await, 3, "event logs stay");

    let again = store.accept(vec![commands[0].clone()]).await.expect("accept");
    assert!(matches!(again[0], Accepted::New { .. }), "after that its id is new");
    assert_eq!(offsets(store).await, [3, 4], "offsets go on");
    assert_eq!(store.heads().await.expect("heads").commands, [Offset(4)]);
    finish(store, 3, 4).await;
}

pub async fn an_undecided_command_is_kept_however_old_it_is(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let commands = accept(store, 3).await;
    end(store, &commands[0], 1).await;
    put_aside(store, commands[1].id, 0).await;
    end(store, &commands[2], 3).await;
    finish(store, 0, 3).await;
    eventually("the first entry is removed", async || {
        (store.remove_log_entries(ONLY, NOW, 100).await.expect("remove") == 1).then_some(())
    })
    .await;
    until_removed(store, 0, 0).await;
    assert_eq!(offsets(store).await, [2, 3], "what came after it stays in the log, too");
    for command in &commands {
        assert!(is_there(store, command).await);
    }
    // It gets its turn, and ends.
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 1);
    assert_eq!(offsets(store).await, [2, 3, 4]);
    end(store, &commands[1], 4).await;
    finish(store, 3, 4).await;
    until_removed(store, 2, 2).await;
    assert_eq!(offsets(store).await, [4]);
    assert!(is_there(store, &commands[1]).await, "its last entry is the newest");
}

pub async fn a_command_that_waits_in_the_schedule_is_kept(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let commands = accept(store, 2).await;
    put_aside(store, commands[0].id, 0).await;
    for (command, offset) in commands.iter().zip(1..) {
        end(store, command, offset).await;
    }
    finish(store, 0, 2).await;
    until_removed(store, 1, 0).await;
    assert!(is_there(store, &commands[0]).await);
    assert_eq!(store.promote_due(&look::all(store), Duration::ZERO, 10).await.expect("promote"), 1);
    until_removed(store, 0, 1).await;
    assert!(!is_there(store, &commands[0]).await);
}

pub async fn entries_that_are_not_finished_are_kept(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let commands = accept(store, 4).await;
    for (command, offset) in commands.iter().zip(1..) {
        end(store, command, offset).await;
    }
    until_removed(store, 0, 0).await;
    assert_eq!(offsets(store).await, [1, 2, 3, 4], "nothing is finished");
    finish(store, 0, 2).await;
    eventually("what is finished goes", async || {
        let removed = store.remove_log_entries(ONLY, NOW, 1).await.expect("remove");
        assert!(removed <= 1, "no more than asked for");
        (offsets(store).await == [3, 4]).then_some(())
    })
    .await;
    let page = store.read_log(LogKind::Commands, ONLY, Offset(1), 1).await.expect("read");
    let first = page.first().map(Entry::offset);
    assert_eq!(first, Some(Offset(3)), "a reader finds what is left");
}

/// A page at a time, and every command once in a walk, those that stay included.
pub async fn a_walk_over_old_commands_ends(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let commands = accept(store, 5).await;
    for (command, offset) in commands.iter().zip(1..).skip(2) {
        end(store, command, offset).await;
    }
    finish(store, 0, 5).await;
    let mut steps = 0;
    let mut from = None;
    eventually("all five are old enough", async || {
        let step = store.remove_ended_commands(NOW, None, 100).await.expect("walk");
        let page = store.remove_ended_commands(NOW, None, 5).await.expect("walk");
        (step.next.is_none() && page.next.is_some()).then_some(())
    })
    .await;
    loop {
        let step = store.remove_ended_commands(NOW, from, 2).await.expect("walk");
        steps += 1;
        from = step.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(steps, 3);
}

pub async fn outbox_rows_go_when_every_group_has_finished_them(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let (first, second) = (GroupName::projection("first"), GroupName::projection("second"));
    let groups = [first.clone(), second.clone()];
    let commands = accept(store, 1).await;
    end(store, &commands[0], 1).await;
    store.reject_messages(vec![rejected()]).await.expect("reject");
    assert_eq!(look::outbox(store).await.len(), 3);
    let remove = async || store.remove_finished_outbox(&groups, NOW, 100).await.expect("remove");
    let apply = async |group: &GroupName| {
        let (from, to) = (Offset(0), Offset(1));
        let moved = CheckpointMove { group: group.clone(), partition: ONLY, from, to };
        let view = group.as_str().trim_start_matches("projection.").to_owned();
        let commit = ViewCommit {
            view,
            documents: vec![],
            checkpoints: vec![moved],
            passed: vec![],
            parked: vec![],
        };
        store.commit_view(commit).await.expect("apply");
    };
    assert_eq!(remove().await, 0);
    finish(store, 0, 1).await;
    apply(&first).await;
    let mut removed = 0;
    eventually("the command's message goes", async || {
        removed += remove().await;
        (removed == 1).then_some(())
    })
    .await;
    assert_eq!(remove().await, 0, "one group has not finished the event");
    apply(&second).await;
    let young = store.remove_finished_outbox(&groups, HOUR, 100).await.expect("remove");
    assert_eq!(young, 0);
    eventually("and the event's", async || (remove().await == 1).then_some(())).await;
    assert_eq!(look::outbox(store).await.len(), 1, "what no log holds is published or stays");
}

fn rejected() -> adjutant::store::RejectedMessage {
    adjutant::store::RejectedMessage {
        content_type: "text/plain".into(),
        headers: vec![],
        body: b"?".to_vec(),
    }
}

pub async fn counted_foreign_messages_are_bounded(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let foreign: Vec<_> = (0..10)
        .map(|i| ForeignMessage {
            group: GroupName::commands(),
            partition: ONLY,
            log_id: Some(LogId::generate()),
            reason: format!("reason {i}"),
            count: 1,
        })
        .collect();
    store.record_foreign(&foreign).await.expect("record");
    assert_eq!(store.bound_foreign(7, 2).await.expect("bound"), 2, "a batch");
    assert_eq!(store.bound_foreign(7, 2).await.expect("bound"), 1);
    assert_eq!(store.bound_foreign(7, 2).await.expect("bound"), 0);
}

pub async fn members_that_are_long_gone_are_removed(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    store.heartbeat(&membership::beat("gone"), HOUR).await.expect("beat");
    let remove = async |age| store.remove_leftovers(Leftover::Members, age, 10).await;
    assert_eq!(remove(HOUR).await.expect("remove"), 0);
    eventually("it goes", async || (remove(NOW).await.expect("remove") == 1).then_some(())).await;
    assert!(store.live_members(HOUR).await.expect("live").is_empty());
}
