//! Callbacks: owed with the outcome, in one hand at a time, and gone when they were delivered.

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState},
    message::{Failure, GroupName, Offset, OutcomeStatus, Partition, Version},
    store::{
        Acted, CallbackAction, CallbackEnd, CallbackHost, ClaimedCallback, CommandCommit,
        DeadCallback, DeadLetter, DeadLetterFilter, DecideAgain, Entering, Fence, NewSnapshot,
        OwedCallback, RetryRequest, Store,
    },
};
use futures_util::future::join_all;

use super::{
    Open,
    letters::{by, dead},
    look::{self, appended, assert_fenced},
};
use crate::support::{
    commands::{add, stream},
    eventually,
};

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3_600);
const ONLY: Partition = Partition(0);
const URL: &str = "https://hooks.example/a?b=c";

fn owed(url: &str) -> Option<OwedCallback> {
    Some(OwedCallback { url: url.into(), command_type: "counter.add".into() })
}

/// An end of a command that somebody is to be told of.
fn told(store: &Arc<dyn Store>, counter: &str, version: i64, url: &str) -> CommandCommit {
    let mut commit = appended(store, counter, version);
    commit.outcomes[0].callback = owed(url);
    commit
}

async fn owe(store: &Arc<dyn Store>, url: &str) {
    let counter = uuid::Uuid::new_v4().to_string();
    store.commit_commands(told(store, &counter, 1, url)).await.expect("commit");
}

async fn hosts(store: &Arc<dyn Store>) -> Vec<CallbackHost> {
    store.callback_hosts(ONLY, None, 100).await.expect("hosts")
}

async fn claim(store: &Arc<dyn Store>, host: &str, room: i64) -> Vec<ClaimedCallback> {
    store.claim_callbacks(ONLY, &[(host.to_owned(), room)], HOUR).await.expect("claim")
}

async fn claim_one(store: &Arc<dyn Store>) -> ClaimedCallback {
    claim(store, "hooks.example", 1).await.pop().expect("one that is due")
}

async fn end(store: &Arc<dyn Store>, claimed: &ClaimedCallback, end: CallbackEnd) -> bool {
    store.end_callback(claimed, end).await.expect("end")
}

fn died(letter: DeadLetterId) -> CallbackEnd {
    let error = Failure::new("callback_failed", "it answered 500");
    CallbackEnd::Dead(DeadCallback { letter, error, fingerprint: "f00d".into() })
}

async fn state(store: &Arc<dyn Store>, letter: DeadLetterId) -> DeadLetterState {
    store.dead_letter(letter).await.expect("look").expect("is there").letter.state
}

/// A callback that is dead, and its dead letter.
async fn buried(store: &Arc<dyn Store>) -> (ClaimedCallback, DeadLetterId) {
    owe(store, URL).await;
    let (claimed, letter) = (claim_one(store).await, DeadLetterId::generate());
    assert!(end(store, &claimed, died(letter)).await);
    (claimed, letter)
}

async fn act(store: &Arc<dyn Store>, letter: DeadLetterId, action: CallbackAction) -> Acted {
    store.act_on_callback(letter, action, &by("ann")).await.expect("act")
}

pub async fn a_callback_is_owed_with_the_outcome_or_not_at_all(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let with = async || store.partitions_with_callbacks(&[ONLY]).await.expect("partitions");
    store.commit_commands(appended(store, "a", 1)).await.expect("commit");
    assert_eq!(with().await, [], "nobody asked for one");
    assert_fenced(store.commit_commands(told(store, "a", 1, URL)).await, Fence::StreamVersion);
    assert_eq!(
        (with().await, hosts(store).await),
        (vec![], vec![]),
        "what did not end owes nothing"
    );

    let commit = told(store, "a", 2, URL);
    let command = commit.outcomes[0].command_id;
    store.commit_commands(commit).await.expect("commit");
    assert_eq!(with().await, [ONLY]);
    let claimed = claim_one(store).await;
    assert_eq!((claimed.command_id, claimed.ended_after), (command, 1));
    assert_eq!((claimed.url.as_str(), claimed.command_type.as_str()), (URL, "counter.add"));
    assert_eq!((claimed.attempts, claimed.tries, claimed.error), (1, 1, None));
    assert!(claimed.owed_at <= claimed.now);

    // The other ways by which an outcome is written.
    let mut with_snapshot = told(store, "b", 1, URL);
    with_snapshot.snapshots = vec![NewSnapshot {
        stream: stream("b"),
        partition: ONLY,
        version: Version(1),
        state_version: 1,
        state: b"state".to_vec(),
    }];
    store.commit_commands(with_snapshot).await.expect("commit");
    let decide: DecideAgain<'_> = Box::new(|_| Ok(told(store, "c", 1, URL)));
    store
        .commit_exclusively(&[ONLY].into(), &[(stream("c"), 1)], &Entering::default(), decide)
        .await
        .expect("commit");
    let mut immediate = told(store, "d", 1, URL);
    let new = add("d", 1);
    immediate.outcomes[0].command_id = new.id;
    immediate.events[0].command_id = new.id;
    immediate.entering.new = vec![new];
    immediate.outcomes.push(look::rejected(store, "e", 0).outcomes[0].clone());
    store.commit_commands(immediate).await.expect("commit");
    assert_eq!(claim(store, "hooks.example", 9).await.len(), 3);
}

pub async fn hosts_are_walked_through_in_order_and_have_what_room_they_are_given(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    for url in [
        "https://b.example/1",
        "https://b.example:8443/2",
        "http://b.example?3",
        "https://a.example/@b.example/",
        "https://[2606:4700::1111]:8443/",
        "https://8.8.8.8/",
    ] {
        owe(store, url).await;
    }
    let due = |host: &str, due| CallbackHost { host: host.into(), due };
    let all = hosts(store).await;
    let expected = ["8.8.8.8", "[2606:4700::1111]", "a.example", "b.example"];
    assert_eq!(all, expected.map(|host| due(host, true)));
    let page = store.callback_hosts(ONLY, None, 2).await.expect("hosts");
    assert_eq!(page, all[..2]);
    let page = store.callback_hosts(ONLY, Some("[2606:4700::1111]"), 9).await.expect("hosts");
    assert_eq!(page, all[2..]);

    let wanted = [("b.example".to_owned(), 2), ("a.example".to_owned(), 5)];
    let claimed = store.claim_callbacks(ONLY, &wanted, HOUR).await.expect("claim");
    let mut urls: Vec<_> = claimed.iter().map(|it| (it.host.as_str(), it.url.as_str())).collect();
    urls.sort_unstable();
    let first_two =
        [("b.example", "https://b.example/1"), ("b.example", "https://b.example:8443/2")];
    assert_eq!(urls[..1], [("a.example", "https://a.example/@b.example/")]);
    assert_eq!(urls[1..], first_two, "the longest due");
    let all = hosts(store).await;
    assert_eq!(all[2..], [due("a.example", false), due("b.example", true)]);
    assert_eq!(claim(store, "b.example", 9).await.len(), 1);
    assert_eq!(claim(store, "b.example", 9).await, [], "all of them are in hand");
}

pub async fn a_callback_is_in_one_hand_and_in_another_when_its_lease_ends(open: Open) {
    let truth = open(1).await;
    let (store, other) = (&truth.store, &truth.other);
    for _ in 0..20 {
        owe(store, URL).await;
    }
    let claims = (0..8).map(|i| {
        let store = if i % 2 == 0 { store.clone() } else { other.clone() };
        tokio::spawn(async move { claim(&store, "hooks.example", 5).await })
    });
    let mut ids: Vec<_> = join_all(claims)
        .await
        .into_iter()
        .flat_map(|claimed| claimed.expect("task"))
        .map(|claimed| claimed.id)
        .collect();
    let claimed = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), claimed, "nobody has what another one has");
    for left in claim(store, "hooks.example", 20).await {
        assert!(!ids.contains(&left.id));
        ids.push(left.id);
    }
    assert_eq!(ids.len(), 20);

    owe(store, "https://b.example/").await;
    let short = Duration::from_millis(50);
    let wanted = [("b.example".to_owned(), 1)];
    let first = store.claim_callbacks(ONLY, &wanted, short).await.expect("claim").remove(0);
    // Its process crashes: another one takes over, under the same id.
    let second = eventually("the lease ends", async || {
        other.claim_callbacks(ONLY, &wanted, HOUR).await.expect("claim").pop()
    })
    .await;
    assert_eq!((second.id, second.attempts, second.owed_at), (first.id, 2, first.owed_at));
    for late in [CallbackEnd::Delivered, died(DeadLetterId::generate())] {
        assert!(!end(store, &first, late).await, "whoever lost the lease decides nothing");
    }
    let again = CallbackEnd::Again(Duration::from_millis(1), "it answered 500".into());
    assert!(end(other, &second, again).await);
    let third =
        eventually("it is due again", async || claim(store, "b.example", 1).await.pop()).await;
    assert_eq!((third.id, third.attempts, third.tries), (first.id, 3, 3));
    assert_eq!(third.error.as_deref(), Some("it answered 500"));
    assert!(end(store, &third, CallbackEnd::Delivered).await);
    assert!(!end(store, &third, CallbackEnd::Delivered).await, "it is gone");
    assert!(!hosts(store).await.iter().any(|host| host.host == "b.example"));
    let page = store.dead_letters(&DeadLetterFilter::default(), None, 9).await.expect("list");
    assert_eq!(page.items, [], "nobody died");
}

pub async fn a_dead_callback_is_a_dead_letter_and_a_retry_ends_it(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let (claimed, letter) = buried(store).await;
    assert_eq!(hosts(store).await, [], "it is not tried any more");
    let found = store.dead_letter(letter).await.expect("look").expect("is there");
    let DeadLetter { kind, group, key, type_name, command_id, attempts, .. } = &found.letter;
    assert_eq!((*kind, group.as_str()), (DeadLetterKind::Callback, "callbacks"));
    assert_eq!((key.as_str(), type_name.as_str()), ("hooks.example", "counter.add"));
    assert_eq!((*command_id, *attempts, found.letter.offset), (claimed.command_id, 1, None));
    let callback = found.callback.expect("what was not taken");
    assert_eq!((callback.id, callback.ended_after, callback.attempts), (claimed.id, 1, 1));
    assert_eq!(callback.error.as_deref(), Some("it answered 500"));
    let of_host = DeadLetterFilter {
        kind: Some(DeadLetterKind::Callback),
        key: Some("hooks.example".into()),
        state: Some(DeadLetterState::Open),
        ..DeadLetterFilter::default()
    };
    assert_eq!(store.dead_letters(&of_host, None, 9).await.expect("list").items.len(), 1);
    let open = store.open_dead_letters().await.expect("count");
    assert_eq!(open, [(DeadLetterKind::Callback, 1)]);

    // What is asked for of commands is not done to it.
    let request = RetryRequest { id: letter, payload: None };
    let asked = store.retry_dead_commands(&[request], &by("ann")).await.expect("retry");
    assert_eq!(asked, [Acted::Callback]);
    let asked = store.discard_dead_letters(&[letter], &by("ann")).await.expect("discard");
    assert_eq!(asked, [Acted::Callback]);

    assert_eq!(act(store, letter, CallbackAction::Retry).await, Acted::Done);
    assert_eq!(state(store, letter).await, DeadLetterState::Retrying);
    let retried = claim_one(store).await;
    assert_eq!((retried.id, retried.attempts, retried.tries), (claimed.id, 2, 1), "it counts anew");
    assert!(retried.owed_at > claimed.owed_at);
    let next = DeadLetterId::generate();
    assert!(end(store, &retried, died(next)).await);
    assert_eq!(state(store, letter).await, DeadLetterState::Resolved, "another one says so");
    assert_eq!(state(store, next).await, DeadLetterState::Open);
    let gone = store.dead_letter(letter).await.expect("look").expect("is there");
    assert_eq!((gone.callback, gone.audit.len()), (None, 1));

    assert_eq!(act(store, next, CallbackAction::Retry).await, Acted::Done);
    assert!(end(store, &claim_one(store).await, CallbackEnd::Delivered).await);
    assert_eq!(state(store, next).await, DeadLetterState::Resolved);
    let resolved = Acted::NotOpen(DeadLetterState::Resolved);
    assert_eq!(act(store, next, CallbackAction::Retry).await, resolved);
}

pub async fn a_dead_callback_is_acted_on_once_by_fifty_at_once(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let (_, letter) = buried(store).await;
    let asked = (0..50).map(|n| {
        let store = if n % 2 == 0 { truth.store.clone() } else { truth.other.clone() };
        let action = if n % 5 == 0 { CallbackAction::Discard } else { CallbackAction::Retry };
        tokio::spawn(async move { act(&store, letter, action).await })
    });
    let answers: Vec<Acted> =
        join_all(asked).await.into_iter().map(|answer| answer.expect("joined")).collect();
    let state = state(store, letter).await;
    assert_eq!(answers.iter().filter(|it| **it == Acted::Done).count(), 1);
    assert_eq!(answers.iter().filter(|it| **it == Acted::NotOpen(state)).count(), 49);
    let found = store.dead_letter(letter).await.expect("look").expect("is there");
    assert_eq!(found.audit.len(), 1);
    let due = claim(store, "hooks.example", 9).await.len();
    assert_eq!(due, usize::from(state == DeadLetterState::Retrying));
}

pub async fn a_callback_that_is_given_up_is_gone(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let (_, letter) = buried(store).await;
    assert_eq!(act(store, letter, CallbackAction::Discard).await, Acted::Done);
    assert_eq!(state(store, letter).await, DeadLetterState::Discarded);
    let found = store.dead_letter(letter).await.expect("look").expect("is there");
    assert_eq!((found.callback, found.audit[0].action.as_str()), (None, "discard"));
    let discarded = Acted::NotOpen(DeadLetterState::Discarded);
    assert_eq!(act(store, letter, CallbackAction::Retry).await, discarded);

    let none = act(store, DeadLetterId::generate(), CallbackAction::Retry).await;
    assert_eq!(none, Acted::NotFound);
    let of_command = dead(&truth, add("a", 1)).await;
    assert_eq!(act(store, of_command.id, CallbackAction::Discard).await, Acted::NotFound);
    assert_eq!(state(store, of_command.id).await, DeadLetterState::Open);
}

pub async fn what_failing_hosts_are_owed_for_too_long_is_taken_in_hand(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    for url in [URL, URL, "https://b.example/"] {
        owe(store, url).await;
    }
    let aged = async |age, limit| {
        let hosts = ["hooks.example".to_owned(), "c.example".to_owned()];
        store.claim_aged_callbacks(ONLY, &hosts, age, limit, HOUR).await.expect("claim")
    };
    assert_eq!(aged(HOUR, 9).await, [], "they are young");
    let in_hand = claim_one(store).await;
    let one = eventually("they are old", async || aged(Duration::from_millis(1), 9).await.pop());
    let one = one.await;
    assert_ne!(one.id, in_hand.id);
    assert_eq!((one.host.as_str(), one.attempts, one.tries), ("hooks.example", 0, 0), "no try");
    assert_eq!(aged(NOW, 9).await, [], "all of them are in hand");
    assert!(end(store, &one, died(DeadLetterId::generate())).await);
}

pub async fn an_end_that_was_taken_back_can_still_be_told(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let letter = dead(&truth, add("a", 7)).await;
    let past =
        async |attempts| store.past_outcome(ONLY, letter.command_id, attempts).await.expect("look");
    assert_eq!(past(1).await, None, "it is the outcome");
    let request = RetryRequest { id: letter.id, payload: None };
    store.retry_dead_commands(&[request], &by("ann")).await.expect("retry");
    let found = past(1).await.expect("history");
    assert_eq!((found.attempts, found.error), (1, Some(letter.error.clone())));
    assert_eq!(past(2).await, None);
}

pub async fn what_waits_is_counted(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let all: Vec<_> = store.identity().partitions.all().collect();
    let nothing = store.callback_backlog(&all).await.expect("backlog");
    assert_eq!((nothing.pending, nothing.oldest), (0, NOW));
    for _ in 0..40 {
        owe(store, URL).await;
    }
    let with = store.partitions_with_callbacks(&all).await.expect("partitions");
    assert_eq!(with, all, "40 ends of streams in four partitions");
    let backlog = eventually("it grows old", async || {
        let backlog = store.callback_backlog(&all).await.expect("backlog");
        (backlog.oldest >= Duration::from_millis(5)).then_some(backlog)
    })
    .await;
    assert_eq!(backlog.pending, 40);
    let some = store.callback_backlog(&all[..1]).await.expect("backlog").pending;
    assert!(some > 0 && some < 40);
    assert_eq!(store.callback_backlog(&[]).await.expect("backlog").pending, 0);
}

pub async fn a_command_whose_callback_waits_for_a_person_is_kept(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    let commands = [add("a", 1), add("b", 1)];
    store.accept(commands.to_vec()).await.expect("accept");
    let mut commit = told(store, "a", 1, URL);
    commit.events[0].command_id = commands[0].id;
    commit.outcomes[0].command_id = commands[0].id;
    commit.outcomes[0].log_offset = Some(Offset(1));
    store.commit_commands(commit).await.expect("commit");
    let mut commit = look::rejected(store, "b", 0);
    commit.outcomes[0].command_id = commands[1].id;
    commit.outcomes[0].log_offset = Some(Offset(2));
    commit.outcomes[0].status = OutcomeStatus::Rejected;
    commit.checkpoints = vec![adjutant::store::CheckpointMove {
        group: GroupName::commands(),
        partition: ONLY,
        from: Offset(0),
        to: Offset(2),
    }];
    store.commit_commands(commit).await.expect("commit");
    let (claimed, letter) = (claim_one(store).await, DeadLetterId::generate());
    assert!(end(store, &claimed, died(letter)).await);
    eventually("the first entry is gone", async || {
        (store.remove_log_entries(ONLY, NOW, 9).await.expect("remove") == 1).then_some(())
    })
    .await;
    let remove = async || store.remove_ended_commands(NOW, None, 9).await.expect("remove").removed;
    assert_eq!(remove().await, 0, "what the person retries must be there");
    assert_eq!(act(store, letter, CallbackAction::Discard).await, Acted::Done);
    eventually("it may go", async || (remove().await == 1).then_some(())).await;
    assert!(store.command(commands[0].id).await.expect("look").is_none());
}
