//! Dead letters: looking, retrying, discarding.

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState, fingerprint},
    message::{CommandId, Failure, GroupName, Offset, OutcomeStatus, RawJson, Timestamp},
    store::{
        Acted, ActedBy, DeadLetter, DeadLetterFilter, Entry, LogKind, NewCommand, RetryRequest,
        Store, StoreError,
    },
};
use futures_util::future::join_all;
use serde_json::json;

use super::{Open, Truth, look};
use crate::support::{commands::add, letters::letter};

/// A command that is dead, and its dead letter.
pub async fn dead(truth: &Truth, command: NewCommand) -> DeadLetter {
    crate::support::letters::dead(&truth.store, &truth.sql, command).await
}

pub fn by(who: &str) -> ActedBy {
    ActedBy { who: who.into(), reason: Some("because".into()), job: None }
}

fn again(letter: &DeadLetter) -> RetryRequest {
    RetryRequest { id: letter.id, payload: None }
}

async fn state(store: &Arc<dyn Store>, letter: &DeadLetter) -> DeadLetterState {
    store.dead_letter(letter.id).await.expect("look").expect("is there").letter.state
}

/// The commands of a log, in order.
async fn logged(store: &Arc<dyn Store>, letter: &DeadLetter) -> Vec<CommandId> {
    let log = look::log(store, LogKind::Commands).await;
    let entries = log[letter.partition.index()].iter().map(|entry| match entry {
        Entry::Command(entry) => entry.command.id,
        Entry::Event(_) => panic!("a command"),
    });
    entries.collect()
}

async fn promote(store: &Arc<dyn Store>) -> usize {
    store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote")
}

pub async fn dead_letters_are_listed_newest_first_by_every_filter(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    // Read once: what is compared with it must not move.
    let now = Timestamp::now_utc().replace_nanosecond(0).expect("a time");
    let hours_ago = move |hours| now - time::Duration::hours(hours);
    let mut letters = Vec::new();
    for i in 0..40_i64 {
        let error = Failure::new(if i % 2 == 0 { "even" } else { "odd" }, "no answer");
        let mut it = letter(store, &format!("c{}", i % 4), error);
        it.died_at = hours_ago(40 - i);
        if i % 5 == 0 {
            it.kind = DeadLetterKind::ParkedKey;
            it.group = GroupName::projection("totals");
        }
        if i % 8 == 0 {
            it.type_name = "counter.other".into();
        }
        it.state = match i % 10 {
            7 => DeadLetterState::Retrying,
            8 => DeadLetterState::Resolved,
            9 => DeadLetterState::Discarded,
            _ => DeadLetterState::Open,
        };
        letters.push(it);
    }
    truth.sql.bury(&letters).await;
    letters.reverse();
    let all = DeadLetterFilter::default;
    let list = async |filter: &DeadLetterFilter, limit: i64| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.dead_letters(filter, after.as_deref(), limit).await.expect("list");
            assert!(page.items.len() as i64 <= limit);
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    assert_eq!(list(&all(), 100).await, letters);
    assert_eq!(list(&all(), 7).await, letters, "in pages");
    assert_eq!(list(&all(), 40).await, letters, "a page that ends with the list");
    let open_ones = || DeadLetterFilter { state: Some(DeadLetterState::Open), ..all() };
    let odd = fingerprint("counter.add", "odd", "no answer");
    type Fits = Box<dyn Fn(&DeadLetter) -> bool>;
    let cases: Vec<(DeadLetterFilter, Fits)> = vec![
        (open_ones(), Box::new(|it| it.state == DeadLetterState::Open)),
        (
            DeadLetterFilter { state: Some(DeadLetterState::Discarded), ..all() },
            Box::new(|it| it.state == DeadLetterState::Discarded),
        ),
        (
            DeadLetterFilter { kind: Some(DeadLetterKind::ParkedKey), ..open_ones() },
            Box::new(|it| {
                it.kind == DeadLetterKind::ParkedKey && it.state == DeadLetterState::Open
            }),
        ),
        (
            DeadLetterFilter { group: Some("projection.totals".into()), ..all() },
            Box::new(|it| it.group.as_str() == "projection.totals"),
        ),
        (
            DeadLetterFilter { type_name: Some("counter.other".into()), ..all() },
            Box::new(|it| it.type_name == "counter.other"),
        ),
        (
            DeadLetterFilter { key: Some("counter/c3".into()), ..open_ones() },
            Box::new(|it| it.key == "counter/c3" && it.state == DeadLetterState::Open),
        ),
        (
            DeadLetterFilter { code: Some("even".into()), ..all() },
            Box::new(|it| it.error.code == "even"),
        ),
        (
            DeadLetterFilter { fingerprint: Some(odd.clone()), ..all() },
            Box::new(move |it| it.fingerprint == odd),
        ),
        (
            DeadLetterFilter { died_before: Some(hours_ago(30)), ..all() },
            Box::new(move |it| it.died_at < hours_ago(30)),
        ),
        (
            DeadLetterFilter { died_after: Some(hours_ago(5)), ..all() },
            Box::new(move |it| it.died_at > hours_ago(5)),
        ),
        (
            DeadLetterFilter {
                key: Some("counter/c1".into()),
                code: Some("odd".into()),
                died_after: Some(hours_ago(20)),
                ..open_ones()
            },
            Box::new(move |it| {
                it.key == "counter/c1"
                    && it.state == DeadLetterState::Open
                    && it.died_at > hours_ago(20)
            }),
        ),
    ];
    for (filter, fits) in cases {
        let expected: Vec<_> = letters.iter().filter(|it| fits(it)).cloned().collect();
        assert!(!expected.is_empty() && expected.len() < 40, "{filter:?}");
        assert_eq!(list(&filter, 500).await, expected, "{filter:?}");
        assert_eq!(list(&filter, 3).await, expected, "{filter:?} in pages");
    }
    let nobody = DeadLetterFilter { code: Some("none".into()), ..all() };
    assert!(list(&nobody, 10).await.is_empty());
    for nonsense in ["", "x", "1_x", "00000000-0000-0000-0000-00000000000g"] {
        let refused = store.dead_letters(&all(), Some(nonsense), 10).await;
        assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{nonsense}");
    }
    let mut counts = store.open_dead_letters().await.expect("count");
    counts.sort_by_key(|(kind, _)| kind.code());
    let of = |kind| {
        letters.iter().filter(|it| it.kind == kind && it.state == DeadLetterState::Open).count()
    };
    let kinds = [DeadLetterKind::Command, DeadLetterKind::ParkedKey];
    assert_eq!(counts, kinds.map(|kind| (kind, of(kind) as i64)));
}

pub async fn dead_letters_are_counted_by_their_cause(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let mut letters = Vec::new();
    for i in 0..30 {
        let error = match i % 6 {
            0 => Failure::new("broken", format!("row {i} is locked")),
            1 => Failure::new("broken", "no answer"),
            _ => Failure::new("timed_out", format!("no answer after {i} ms")),
        };
        let mut it = letter(store, "a", error);
        it.died_at += time::Duration::seconds(i);
        letters.push(it);
    }
    letters[29].state = DeadLetterState::Discarded;
    truth.sql.bury(&letters).await;
    let filter = DeadLetterFilter { state: Some(DeadLetterState::Open), ..Default::default() };
    let groups = store.dead_letter_groups(&filter).await.expect("groups");
    let counts: Vec<i64> = groups.iter().map(|group| group.letters).collect();
    assert_eq!(counts, [19, 5, 5]);
    let largest = &groups[0];
    assert_eq!(largest.example, letters[28].id, "the newest one that fits");
    assert_eq!((&largest.error, &largest.type_name), (&letters[28].error, &letters[28].type_name));
    assert_eq!(largest.fingerprint, letters[28].fingerprint);
    assert_eq!(largest.first_died_at, letters[2].died_at);
    assert_eq!(largest.last_died_at, letters[28].died_at);
    let one = DeadLetterFilter { fingerprint: Some(letters[0].fingerprint.clone()), ..filter };
    let groups = store.dead_letter_groups(&one).await.expect("groups");
    assert_eq!((groups.len(), groups[0].letters, groups[0].example), (1, 5, letters[24].id));
    let nobody = DeadLetterFilter { code: Some("none".into()), ..one };
    assert!(store.dead_letter_groups(&nobody).await.expect("groups").is_empty());
}

pub async fn a_dead_letter_shows_everything_that_is_known(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    assert!(store.dead_letter(DeadLetterId::generate()).await.expect("look").is_none());
    let mut command = add("a", 7);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    command.metadata.traceparent = Some(trace.into());
    let buried = dead(&truth, command.clone()).await;
    truth.sql.attempt(&buried, 1).await;
    truth.sql.attempt(&buried, 2).await;
    let found = store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(found.letter, buried);
    let kept = found.command.expect("is kept");
    assert_eq!((kept.id, kept.payload.to_value()), (command.id, json!({ "amount": 7 })));
    assert_eq!(kept.metadata.trace_id(), Some("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(kept.outcome.map(|outcome| outcome.status), Some(OutcomeStatus::Dead));
    let attempts: Vec<_> = found.attempts.iter().map(|it| (it.attempt.0, &it.error)).collect();
    assert_eq!(attempts, [(1, &buried.error), (2, &buried.error)]);
    assert!(found.attempts.iter().all(|it| it.next_due_at.is_none()));
    assert!(found.edit.is_none() && found.event.is_none());
    assert!(found.past_outcomes.is_empty() && found.audit.is_empty());

    // A parked key shows the event that could not be applied.
    store.commit_commands(look::appended(store, "a", 1)).await.expect("commit");
    let mut parked = letter(store, "a", Failure::new("broken", "no"));
    parked.kind = DeadLetterKind::ParkedKey;
    parked.type_name = "counter.added".into();
    truth.sql.bury(std::slice::from_ref(&parked)).await;
    let found = store.dead_letter(parked.id).await.expect("look").expect("is there");
    assert!(found.command.is_none(), "it is not kept");
    let event = found.event.expect("the event");
    assert_eq!(event.data.to_value(), json!({ "amount": 1, "total": 1 }));
}

pub async fn a_retry_takes_the_outcome_back_and_is_due_at_once(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let buried = dead(&truth, add("a", 7)).await;
    let done = store.retry_dead_commands(&[again(&buried)], &by("ann")).await.expect("retry");
    assert_eq!(done, [Acted::Done]);
    let found = store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(found.letter.state, DeadLetterState::Retrying);
    assert!(found.letter.state_at > buried.state_at);
    let command = found.command.expect("is kept");
    assert_eq!(command.outcome, None, "it will end once more");
    let [past] = &found.past_outcomes[..] else { panic!("{:?}", found.past_outcomes) };
    assert_eq!((past.attempts, past.error.as_ref()), (1, Some(&buried.error)));
    assert!(past.taken_back_at > past.completed_at);
    let [audit] = &found.audit[..] else { panic!("{:?}", found.audit) };
    assert_eq!((audit.action.as_str(), audit.who.as_str()), ("retry", "ann"));
    assert_eq!((audit.reason.as_deref(), audit.job), (Some("because"), None));
    assert_eq!(promote(store).await, 1);
    assert_eq!(logged(store, &buried).await, [buried.command_id, buried.command_id]);
    assert_eq!(promote(store).await, 0, "once");

    // It dies again: that is another dead letter, and a retry of its own.
    let mut commit = look::rejected(store, "a", 0);
    commit.outcomes[0].command_id = buried.command_id;
    commit.outcomes[0].log_offset = Some(Offset(2));
    commit.outcomes[0].status = OutcomeStatus::Dead;
    store.commit_commands(commit).await.expect("commit");
    let next =
        DeadLetter { id: DeadLetterId::generate(), offset: Some(Offset(2)), ..buried.clone() };
    truth.sql.set_state(&buried, DeadLetterState::Resolved).await;
    truth.sql.bury(std::slice::from_ref(&next)).await;
    let resolved = store.retry_dead_commands(&[again(&buried)], &by("bob")).await.expect("retry");
    assert_eq!(resolved, [Acted::NotOpen(DeadLetterState::Resolved)]);
    let done = store.retry_dead_commands(&[again(&next)], &by("bob")).await.expect("retry");
    assert_eq!(done, [Acted::Done]);
    let found = store.dead_letter(next.id).await.expect("look").expect("is there");
    let attempts: Vec<_> = found.past_outcomes.iter().map(|past| past.attempts).collect();
    assert_eq!(attempts, [1, 2], "both ends are history");
    assert_eq!(found.audit.len(), 1, "of this one");
    assert_eq!(promote(store).await, 1);
}

pub async fn a_retry_asked_for_by_fifty_at_once_is_one(open: Open) {
    let truth = open(8).await;
    let buried = dead(&truth, add("a", 7)).await;
    let asked = (0..50).map(|n| {
        let store = if n % 2 == 0 { truth.store.clone() } else { truth.other.clone() };
        let request = again(&buried);
        tokio::spawn(async move {
            store.retry_dead_commands(&[request], &by(&format!("caller {n}"))).await
        })
    });
    let answers: Vec<Acted> = join_all(asked)
        .await
        .into_iter()
        .map(|answer| answer.expect("joined").expect("retry")[0])
        .collect();
    assert_eq!(answers.iter().filter(|it| **it == Acted::Done).count(), 1);
    let taken = Acted::NotOpen(DeadLetterState::Retrying);
    assert_eq!(answers.iter().filter(|it| **it == taken).count(), 49);
    let found = truth.store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!((found.audit.len(), found.past_outcomes.len()), (1, 1));
    assert_eq!(promote(&truth.store).await, 1);
    assert_eq!(logged(&truth.store, &buried).await.len(), 2);
}

pub async fn a_batch_answers_each_and_does_what_can_be_done(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let (one, two) = (dead(&truth, add("a", 1)).await, dead(&truth, add("b", 2)).await);
    let gone = letter(store, "c", Failure::new("broken", "no"));
    let mut parked = letter(store, "d", Failure::new("broken", "no"));
    parked.kind = DeadLetterKind::ParkedKey;
    let mut discarded = letter(store, "e", Failure::new("broken", "no"));
    discarded.state = DeadLetterState::Discarded;
    // A second letter of one command: its outcome can be taken back once.
    let twin = DeadLetter { id: DeadLetterId::generate(), ..two.clone() };
    truth.sql.bury(&[gone.clone(), parked.clone(), discarded.clone(), twin.clone()]).await;
    let unknown = RetryRequest { id: DeadLetterId::generate(), payload: None };
    let asked = [
        again(&parked),
        again(&one),
        unknown.clone(),
        again(&gone),
        again(&one),
        again(&two),
        again(&discarded),
    ];
    let answers = store.retry_dead_commands(&asked, &by("ann")).await.expect("retry");
    let expected = [
        Acted::ParkedKey,
        Acted::Done,
        Acted::NotFound,
        Acted::NothingToRetry,
        Acted::NotOpen(DeadLetterState::Retrying),
        Acted::Done,
        Acted::NotOpen(DeadLetterState::Discarded),
    ];
    assert_eq!(answers, expected);
    let answers = store.retry_dead_commands(&[again(&twin)], &by("ann")).await.expect("retry");
    assert_eq!(answers, [Acted::NothingToRetry]);
    assert_eq!(promote(store).await, 2);
    let ids = [parked.id, unknown.id, one.id, gone.id, gone.id];
    let answers = store.discard_dead_letters(&ids, &by("ann")).await.expect("discard");
    let expected = [
        Acted::ParkedKey,
        Acted::NotFound,
        Acted::NotOpen(DeadLetterState::Retrying),
        Acted::Done,
        Acted::NotOpen(DeadLetterState::Discarded),
    ];
    assert_eq!(answers, expected);
    assert_eq!(state(store, &parked).await, DeadLetterState::Open, "nothing was done to it");
    assert!(store.retry_dead_commands(&[], &by("ann")).await.expect("nothing").is_empty());
    assert!(store.discard_dead_letters(&[], &by("ann")).await.expect("nothing").is_empty());
    let too_many = vec![again(&one); adjutant::store::MOST_ACTED_ON + 1];
    assert!(store.retry_dead_commands(&too_many, &by("ann")).await.is_err());
}

pub async fn a_corrected_payload_is_kept_beside_the_original(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let command = add("a", 7);
    let mut buried = dead(&truth, command.clone()).await;
    for edit in 1..=2 {
        let payload = json!({ "amount": 7 + edit, "note": "9007199254740993" });
        let payload = RawJson::encode(&payload).expect("JSON");
        let request = RetryRequest { id: buried.id, payload: Some(payload.clone()) };
        let done = store.retry_dead_commands(&[request], &by("ann")).await.expect("retry");
        assert_eq!(done, [Acted::Done]);
        let found = store.dead_letter(buried.id).await.expect("look").expect("is there");
        let kept = found.command.expect("is kept");
        assert_eq!(kept.payload.to_value(), json!({ "amount": 7 }), "the original");
        let newest = found.edit.expect("an edit");
        assert_eq!((newest.edit, newest.edited_by.as_str()), (edit, "ann"));
        assert_eq!(newest.payload.to_value(), payload.to_value());
        assert_eq!(found.audit.last().expect("audit").action, "retry_edited");
        assert_eq!(promote(store).await, 1);
        let mut commit = look::rejected(store, "a", 0);
        commit.outcomes[0].command_id = command.id;
        commit.outcomes[0].log_offset = Some(Offset(i64::from(edit) + 1));
        commit.outcomes[0].status = OutcomeStatus::Dead;
        commit.outcomes[0].attempts = edit + 1;
        store.commit_commands(commit).await.expect("commit");
        buried = DeadLetter { id: DeadLetterId::generate(), ..buried };
        truth.sql.bury(std::slice::from_ref(&buried)).await;
    }
    let bad = RetryRequest { id: buried.id, payload: Some(look::unstorable()) };
    let refused = store.retry_dead_commands(&[bad], &by("ann")).await;
    assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
    let found = store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(found.letter.state, DeadLetterState::Open, "nothing took place");
    assert_eq!(found.past_outcomes.len(), 2);
    assert_eq!(found.edit.map(|edit| edit.edit), Some(2));
}

/// Holds of a stream: the dead command first, one that waits behind it.
async fn held(truth: &Truth) -> (DeadLetter, NewCommand) {
    let store = &truth.store;
    let buried = dead(truth, add("a", 1)).await;
    let behind = add("a", 2);
    store.accept(vec![behind.clone()]).await.expect("accept");
    let partitions = store.identity().partitions;
    for (command, first, state) in [(buried.command_id, 1, 1), (behind.id, 2, 2)] {
        let bucket = partitions.of_bytes(command.0.as_bytes()).0;
        truth.sql.hold(buried.partition.0, bucket, &buried.key, first, command.0, state).await;
    }
    (buried, behind)
}

pub async fn a_held_command_keeps_its_place_when_it_is_retried(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let (buried, behind) = held(&truth).await;
    let done = store.retry_dead_commands(&[again(&buried)], &by("ann")).await.expect("retry");
    assert_eq!(done, [Acted::Done]);
    assert_eq!(promote(store).await, 1, "what is behind it goes on waiting");
    let expected = [buried.command_id, behind.id, buried.command_id];
    assert_eq!(logged(store, &buried).await, expected);
}

pub async fn a_discard_lets_go_on_what_waits(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let (buried, behind) = held(&truth).await;
    let done = store.discard_dead_letters(&[buried.id], &by("ann")).await.expect("discard");
    assert_eq!(done, [Acted::Done]);
    let found = store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(found.letter.state, DeadLetterState::Discarded);
    let outcome = found.command.and_then(|command| command.outcome).expect("an outcome");
    assert_eq!(outcome.status, OutcomeStatus::Dead, "it stays dead");
    let [audit] = &found.audit[..] else { panic!("{:?}", found.audit) };
    assert_eq!((audit.action.as_str(), audit.reason.as_deref()), ("discard", Some("because")));
    assert_eq!(promote(store).await, 1, "what waited is due");
    let expected = [buried.command_id, behind.id, behind.id];
    assert_eq!(logged(store, &buried).await, expected);
    let again = store.retry_dead_commands(&[again(&buried)], &by("bob")).await.expect("retry");
    assert_eq!(again, [Acted::NotOpen(DeadLetterState::Discarded)]);
}

pub async fn retrying_and_discarding_at_once_is_one_of_them(open: Open) {
    let truth = open(8).await;
    let mut letters = Vec::new();
    for n in 0..40 {
        letters.push(dead(&truth, add(&format!("c{}", n % 5), 1)).await);
    }
    let requests: Vec<_> = letters.iter().map(again).collect();
    let ids: Vec<_> = letters.iter().rev().map(|letter| letter.id).collect();
    let (retrying, discarding) = (truth.store.clone(), truth.other.clone());
    let retry = tokio::spawn(async move {
        let mut done = 0;
        for chunk in requests.chunks(7) {
            let acted = retrying.retry_dead_commands(chunk, &by("ann")).await.expect("retry");
            done += acted.iter().filter(|it| **it == Acted::Done).count();
        }
        done
    });
    let discard = tokio::spawn(async move {
        let mut done = 0;
        for chunk in ids.chunks(9) {
            let acted = discarding.discard_dead_letters(chunk, &by("bob")).await.expect("discard");
            done += acted.iter().filter(|it| **it == Acted::Done).count();
        }
        done
    });
    let both = async { (retry.await.expect("joined"), discard.await.expect("joined")) };
    let (retried, discarded) =
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("no deadlock");
    assert_eq!(retried + discarded, 40);
    assert_eq!(promote(&truth.store).await, retried);
}

pub async fn the_audit_is_append_only(open: Open) {
    let truth = open(8).await;
    let buried = dead(&truth, add("a", 7)).await;
    truth.store.discard_dead_letters(&[buried.id], &by("ann")).await.expect("discard");
    let table = truth.sql.table("dead_letter_audit");
    let refused = truth.sql.run(format!("UPDATE {table} SET who = 'somebody else'")).await;
    assert!(refused.is_err_and(|error| error.contains("append-only")));
    let found = truth.store.dead_letter(buried.id).await.expect("look").expect("is there");
    assert_eq!(found.audit[0].who, "ann");
}
