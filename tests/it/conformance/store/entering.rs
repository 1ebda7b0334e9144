//! Commands of the immediate lane: accepted by the transaction that decides them, or held by a
//! process and taken over when it is gone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use adjutant::{
    message::{CommandId, MemberId, Offset, Partition, RawJson},
    store::{
        Accepted, CheckpointMove, CommandCommit, DecideAgain, Entering, Entry, Fence, Heartbeat,
        Hold, HoldState, LogKind, NewCommand, SetAside, Store,
    },
};

use super::{
    Open,
    look::{self, appended, assert_fenced},
};
use crate::support::commands::{add, stream};

const TTL: Duration = Duration::from_mins(1);

/// The commit of one event, and the command that enters with it.
fn entering_with(store: &Arc<dyn Store>, version: i64, command: &NewCommand) -> CommandCommit {
    let mut commit = appended(store, "a", version);
    commit.outcomes[0].command_id = command.id;
    commit.events[0].command_id = command.id;
    commit
}

fn new(store: &Arc<dyn Store>, version: i64, command: NewCommand) -> CommandCommit {
    let commit = entering_with(store, version, &command);
    CommandCommit { entering: Entering { new: vec![command], ..Entering::default() }, ..commit }
}

fn held(store: &Arc<dyn Store>, version: i64, command: &NewCommand) -> CommandCommit {
    let held = vec![(place(store), command.id)];
    let commit = entering_with(store, version, command);
    CommandCommit { entering: Entering { held, ..Entering::default() }, ..commit }
}

fn place(store: &Arc<dyn Store>) -> Partition {
    store.identity().partitions.of(&stream("a"))
}

/// A command that was accepted and is held by this process.
async fn accepted(store: &Arc<dyn Store>, owner: MemberId) -> NewCommand {
    let command = NewCommand { held_by: Some(owner), ..add("a", 1) };
    let answers = store.accept(vec![command.clone()]).await.expect("accept");
    assert!(matches!(answers[0], Accepted::New { .. }));
    command
}

async fn beats(store: &Arc<dyn Store>) -> MemberId {
    let id = MemberId::generate();
    let beat = Heartbeat {
        id,
        name: "test".into(),
        release: "0".into(),
        roles: Vec::new(),
        groups: Vec::new(),
        draining: false,
        stats: serde_json::json!({}),
    };
    store.heartbeat(&beat, TTL).await.expect("beat");
    id
}

async fn still_held(store: &Arc<dyn Store>, commands: &[NewCommand]) -> Vec<CommandId> {
    let asked: Vec<_> = commands.iter().map(|command| (place(store), command.id)).collect();
    store.held(&asked).await.expect("held")
}

async fn logged(store: &Arc<dyn Store>) -> Vec<CommandId> {
    let log = store.read_log(LogKind::Commands, place(store), Offset(1), 100).await.expect("log");
    let id = |entry: &Entry| match entry {
        Entry::Command(entry) => entry.command.id,
        Entry::Event(_) => panic!("an event in the command log"),
    };
    log.iter().map(id).collect()
}

pub async fn a_command_is_accepted_by_the_transaction_that_ends_it(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let command = add("a", 1);
    let committed = store.commit_commands(new(store, 1, command.clone())).await.expect("commit");
    let record = store.command(command.id).await.expect("command").expect("there");
    assert_eq!(Some(record.accepted_at), committed.accepted_at);
    let value = |json: &RawJson| json.decode::<serde_json::Value>().expect("JSON");
    assert_eq!(value(&record.payload), value(&command.payload));
    assert!(record.outcome.is_some());
    assert_eq!(look::gapless(store, LogKind::Commands).await, 0, "the queue owes nothing");
    let again = store.accept(vec![command]).await.expect("accept");
    assert!(matches!(again[0], Accepted::Occupied(_)), "{again:?}");
}

pub async fn a_command_that_was_accepted_before_does_not_enter(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let command = add("a", 1);
    store.accept(vec![command.clone()]).await.expect("accept");
    let both = CommandCommit {
        entering: Entering { new: vec![add("a", 2), command.clone()], ..Entering::default() },
        ..entering_with(store, 1, &command)
    };
    let streams = [(stream("a"), 1)];
    let entering = both.entering.clone();
    assert_fenced(store.commit_commands(both.clone()).await, Fence::Accepted);
    let decide: DecideAgain<'_> = Box::new(|_| Ok(both.clone()));
    let partitions = BTreeSet::from([place(store)]);
    let tried = store.commit_exclusively(&partitions, &streams, &entering, decide).await;
    assert_fenced(tried, Fence::Accepted);
    assert_eq!(look::gapless(store, LogKind::Events).await, 0);
    assert_eq!(look::commands(store).await, 1, "nor does what would enter with it");
}

pub async fn a_held_command_is_finished_once(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let owner = beats(store).await;
    let command = accepted(store, owner).await;
    assert_eq!(look::gapless(store, LogKind::Commands).await, 0);
    assert_eq!(still_held(store, std::slice::from_ref(&command)).await, [command.id]);
    store.commit_commands(held(store, 1, &command)).await.expect("commit");
    assert!(still_held(store, std::slice::from_ref(&command)).await.is_empty());
    let again = store.commit_commands(held(store, 2, &command)).await;
    assert_fenced(again, Fence::Held);
    assert_eq!(look::gapless(store, LogKind::Events).await, 1);
}

pub async fn a_held_command_may_be_finished_under_the_locks(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let owner = beats(store).await;
    let command = accepted(store, owner).await;
    let (streams, partitions) = ([(stream("a"), 1)], BTreeSet::from([place(store)]));
    let commit = held(store, 1, &command);
    let entering = commit.entering.clone();
    let without = CommandCommit { entering: Entering::default(), ..commit };
    let decide: DecideAgain<'_> = Box::new(|_| Ok(without.clone()));
    store.commit_exclusively(&partitions, &streams, &entering, decide).await.expect("commit");
    assert!(still_held(store, std::slice::from_ref(&command)).await.is_empty());
    let decide: DecideAgain<'_> = Box::new(|_| Ok(without.clone()));
    let again = store.commit_exclusively(&partitions, &streams, &entering, decide).await;
    assert_fenced(again, Fence::Held);
}

pub async fn what_a_gone_process_held_enters_the_log_in_order(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let (lives, gone) = (beats(store).await, MemberId::generate());
    let mut commands = Vec::new();
    for n in 0..6 {
        commands.push(accepted(store, if n % 2 == 0 { gone } else { lives }).await);
    }
    let all = look::all(store);
    assert_eq!(store.take_over(&[], TTL, 100).await.expect("take over"), 0);
    assert_eq!(store.take_over(&all, TTL, 2).await.expect("take over"), 2, "bounded");
    let (first, second) =
        tokio::join!(store.take_over(&all, TTL, 100), truth.other.take_over(&all, TTL, 100));
    assert_eq!(first.expect("take over") + second.expect("take over"), 1, "once");
    let of_gone: Vec<_> = commands.iter().step_by(2).map(|command| command.id).collect();
    assert_eq!(logged(store).await, of_gone);
    assert_eq!(still_held(store, &commands).await.len(), 3, "slow is not gone");
    // The one that was gone comes back late.
    assert_fenced(store.commit_commands(held(store, 1, &commands[0])).await, Fence::Held);
    store.leave(lives).await.expect("leave");
    assert_eq!(store.take_over(&all, TTL, 100).await.expect("take over"), 3);
    look::gapless(store, LogKind::Commands).await;
    assert_eq!(
        look::told(store, |route| matches!(route, adjutant::message::Route::Commands(_))).await,
        6
    );
}

pub async fn gone_processes_are_found_among_those_that_live(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    // Their ids are in this order: two that are gone stand beside each other, and at both ends.
    let mut owners = Vec::new();
    for lives in [false, true, true, false, false, true, false] {
        let id = if lives { beats(store).await } else { MemberId::generate() };
        owners.push((id, lives));
    }
    let (mut of_gone, mut all) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        for (owner, lives) in &owners {
            let command = accepted(store, *owner).await;
            if !lives {
                of_gone.push(command.id);
            }
            all.push(command);
        }
    }
    let partitions = look::all(store);
    assert_eq!(store.take_over(&partitions, TTL, 100).await.expect("take over"), 8);
    assert_eq!(logged(store).await, of_gone, "in the order of acceptance");
    assert_eq!(still_held(store, &all).await.len(), 6);
    assert_eq!(store.take_over(&partitions, TTL, 100).await.expect("take over"), 0);
}

pub async fn a_held_command_that_is_set_aside_is_held_no_more(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let owner = beats(store).await;
    let command = accepted(store, owner).await;
    let commit = CommandCommit {
        entering: Entering { held: vec![(place(store), command.id)], ..Entering::default() },
        set_aside: vec![SetAside {
            command_id: command.id,
            partition: place(store),
            delay_ms: 0,
            reason: "retry",
            attempt: adjutant::message::Attempt(2),
            first_offset: None,
            edit: 0,
        }],
        ..CommandCommit::default()
    };
    store.commit_commands(commit).await.expect("commit");
    assert!(still_held(store, std::slice::from_ref(&command)).await.is_empty());
    assert_eq!(
        store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote"),
        1
    );
    assert_eq!(logged(store).await, [command.id]);
}

pub async fn what_a_process_holds_is_listed_in_order_and_let_go_of(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let (owner, other) = (beats(store).await, beats(store).await);
    let mut commands = Vec::new();
    for _ in 0..3 {
        commands.push(accepted(store, owner).await);
    }
    accepted(store, other).await;
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    assert_eq!(store.accepted(&ids).await.expect("accepted").len(), 3);
    assert!(store.accepted(&[CommandId::generate()]).await.expect("accepted").is_empty());
    let old = Duration::from_secs(3_600);
    assert!(store.held_by(owner, old, 0, 100).await.expect("held").is_empty(), "too young");
    let page = store.held_by(owner, Duration::ZERO, 0, 2).await.expect("held");
    let rest = store.held_by(owner, Duration::ZERO, page[1].place, 2).await.expect("held");
    let listed: Vec<_> = page.iter().chain(&rest).map(|held| held.id).collect();
    assert_eq!(listed, ids);
    assert!(page.iter().all(|held| held.age_ms >= 0 && held.partition == place(store)));
    store.let_go_of_held(&[(place(store), ids[1])]).await.expect("let go");
    assert_eq!(store.take_over(&look::all(store), TTL, 100).await.expect("take over"), 1);
    assert_eq!(logged(store).await, [ids[1]]);
    assert_eq!(still_held(store, &commands).await.len(), 2);
}

pub async fn a_strict_command_does_not_enter_before_those_of_the_log(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let strict = |version| {
        let mut commit = new(store, version, add("a", 1));
        commit.entering.strict = vec![(place(store), stream("a"))];
        commit
    };
    store.commit_commands(strict(1)).await.expect("nothing is before it");
    let queued = add("a", 1);
    store.accept(vec![queued.clone()]).await.expect("accept");
    assert_fenced(store.commit_commands(strict(2)).await, Fence::Before);
    let (from, to) = (Offset(0), Offset(1));
    let group = adjutant::message::GroupName::commands();
    let finished = CheckpointMove { group, partition: place(store), from, to };
    let hold = Hold {
        partition: place(store),
        stream: stream("a"),
        first_offset: Offset(1),
        command_id: queued.id,
        state: HoldState::Holds,
        attempt: adjutant::message::Attempt(2),
        edit: 0,
    };
    let commit = CommandCommit {
        checkpoints: vec![finished],
        holds: vec![hold],
        ..CommandCommit::default()
    };
    store.commit_commands(commit).await.expect("set aside");
    assert_fenced(store.commit_commands(strict(2)).await, Fence::Before);
    let let_go = adjutant::store::LetGo {
        partition: place(store),
        stream: stream("a"),
        first_offset: Offset(1),
    };
    let commit = CommandCommit { let_go: vec![let_go], ..CommandCommit::default() };
    store.commit_commands(commit).await.expect("let go");
    store.commit_commands(strict(2)).await.expect("nothing is before it any more");
}
