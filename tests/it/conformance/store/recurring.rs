//! Recurring commands: what is kept of them, what is due, and who decides.

use std::time::Duration;

use adjutant::{
    message::{CommandId, Lane, Metadata, RawJson, Timestamp, Version},
    store::{
        CommandTemplate, DecidedRuns, MissedRuns, NextDue, RecurringCommand, RecurringName,
        RecurringState, RecurringTerms, SettledRuns, Store,
    },
};

use super::{Open, Truth};
use crate::support::commands::stream;

fn name(text: &str) -> RecurringName {
    text.parse().expect("a name")
}

fn terms(amount: i64) -> RecurringTerms {
    RecurringTerms {
        cron: "0 3 * * *".into(),
        time_zone: "Europe/Berlin".into(),
        missed_runs: MissedRuns::Once,
        command: CommandTemplate {
            command_type: "counter.add".into(),
            stream: stream("a"),
            payload: RawJson::encode(&serde_json::json!({ "amount": amount })).expect("JSON"),
            metadata: Metadata { actor: Some("ann".into()), ..Metadata::default() },
            lane: Lane::Queued,
            expected_version: Some(Version(7)),
        },
        state: RecurringState::Active,
    }
}

fn payload(recurring: &RecurringCommand) -> serde_json::Value {
    recurring.terms.command.payload.to_value()
}

/// Makes one that is due so many seconds ago (or will be).
async fn make(store: &dyn Store, text: &str, ago: i64) -> RecurringCommand {
    let due = whole_second(store.now().await.expect("now")) - time::Duration::seconds(ago);
    let due = NextDue::At(Some(due));
    let made = store.put_recurring(&name(text), &terms(1), due, None, "ann").await;
    made.expect("put").expect("there was none")
}

fn whole_second(time: Timestamp) -> Timestamp {
    time.replace_nanosecond(0).expect("a time")
}

async fn look(store: &dyn Store, text: &str) -> RecurringCommand {
    store.recurring(&name(text)).await.expect("look").expect("is there")
}

async fn due(store: &dyn Store) -> Vec<String> {
    let found = store.due_recurring(&[], 10).await.expect("due");
    found.due.iter().map(|it| it.name().to_string()).collect()
}

fn decided(recurring: &RecurringCommand, owed: &[Timestamp], next: Timestamp) -> DecidedRuns {
    DecidedRuns {
        turn: recurring.turn.clone(),
        owed: owed.to_vec(),
        missed: 2,
        next_due_at: Some(next),
    }
}

pub async fn a_recurring_command_is_kept_as_it_was_set(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    assert_eq!(store.recurring(&name("a")).await.expect("look"), None);
    let next = whole_second(store.now().await.expect("now")) + Duration::from_secs(3_600);
    let due = NextDue::At(Some(next));
    let put = store.put_recurring(&name("a"), &terms(5), due, None, "ann").await;
    let made = put.expect("put").expect("there was none");
    assert_eq!((made.name().as_str(), made.revision, made.turn.turn), ("a", 1, 1));
    assert_eq!(payload(&made), serde_json::json!({ "amount": 5 }));
    let command =
        CommandTemplate { payload: made.terms.command.payload.clone(), ..terms(5).command };
    assert_eq!(made.terms, RecurringTerms { command, ..terms(5) });
    assert_eq!((made.next_due_at, made.owed.as_slice()), (Some(next), &[][..]));
    assert_eq!(
        (made.runs, made.missed, made.last_due_at, made.last_command_id),
        (0, 0, None, None)
    );
    assert_eq!((made.created_by.as_str(), made.changed_by.as_str()), ("ann", "ann"));
    assert_eq!(made.turn.created_at, made.changed_at);
    assert_eq!(look(truth.other.as_ref(), "a").await, made);

    // Changed, with its due time as it was.
    let changed = RecurringTerms { missed_runs: MissedRuns::All, ..terms(6) };
    let put = store.put_recurring(&name("a"), &changed, NextDue::Keep, Some(1), "bob").await;
    let changed = put.expect("put").expect("nobody was faster");
    assert_eq!((changed.revision, changed.next_due_at), (2, Some(next)));
    assert_eq!((changed.created_by.as_str(), changed.changed_by.as_str()), ("ann", "bob"));
    assert_eq!(changed.terms.missed_runs, MissedRuns::All);
    assert_eq!(payload(&changed), serde_json::json!({ "amount": 6 }));

    for (text, ago) in [("c", -60), ("b", -60)] {
        make(store.as_ref(), text, ago).await;
    }
    let page = store.all_recurring(None, 2).await.expect("list");
    let names = |items: &[RecurringCommand]| -> Vec<String> {
        items.iter().map(|it| it.name().to_string()).collect()
    };
    assert_eq!(
        (names(&page.items), page.next.as_deref()),
        (vec!["a".into(), "b".into()], Some("b"))
    );
    let page = store.all_recurring(page.next.as_deref(), 2).await.expect("list");
    assert_eq!((names(&page.items), page.next), (vec!["c".to_owned()], None));

    let removed = store.remove_recurring(&name("a"), None).await.expect("remove");
    assert_eq!(removed.map(|it| it.revision), Some(2));
    assert_eq!(store.recurring(&name("a")).await.expect("look"), None);
    assert_eq!(store.remove_recurring(&name("a"), None).await.expect("remove"), None);
}

pub async fn a_change_of_what_somebody_else_has_changed_has_no_effect(open: Open) {
    let Truth { store, other, .. } = &open(4).await;
    let made = make(store.as_ref(), "a", -60).await;
    // There is one already.
    let again = other.put_recurring(&name("a"), &terms(2), NextDue::At(None), None, "bob").await;
    assert_eq!(again.expect("put"), None);
    let by_two = async |store: &dyn Store, amount| {
        store.put_recurring(&name("a"), &terms(amount), NextDue::Keep, Some(1), "bob").await
    };
    let (one, two) = tokio::join!(by_two(store.as_ref(), 2), by_two(other.as_ref(), 3));
    let won = [one.expect("put"), two.expect("put")].into_iter().flatten().count();
    assert_eq!(won, 1, "one of two changes of the same takes place");
    assert_eq!(look(store.as_ref(), "a").await.revision, 2);
    assert_eq!(store.remove_recurring(&name("a"), Some(1)).await.expect("remove"), None);
    let nowhere = store.put_recurring(&name("b"), &terms(2), NextDue::Keep, Some(1), "bob").await;
    assert_eq!(nowhere.expect("put"), None, "what is not there is not changed");
    assert_eq!(look(store.as_ref(), "a").await.turn.created_at, made.turn.created_at);
    assert!(store.remove_recurring(&name("a"), Some(2)).await.expect("remove").is_some());
}

pub async fn what_is_due_is_found_longest_due_first_and_nothing_else(open: Open) {
    let Truth { store, .. } = &open(4).await;
    let nothing = store.due_recurring(&[], 10).await.expect("due");
    assert_eq!((nothing.due.len(), nothing.next), (0, None));
    for (text, ago) in [("late", 60), ("later", 120), ("soon", -60), ("much-later", 180)] {
        make(store.as_ref(), text, ago).await;
    }
    let soon = look(store.as_ref(), "soon").await.next_due_at;
    let ended =
        store.put_recurring(&name("ended"), &terms(1), NextDue::At(None), None, "ann").await;
    ended.expect("put").expect("there was none");
    assert_eq!(due(store.as_ref()).await, ["much-later", "later", "late"]);

    let paused = RecurringTerms { state: RecurringState::Paused, ..terms(1) };
    let put = store.put_recurring(&name("later"), &paused, NextDue::Keep, Some(1), "ann").await;
    put.expect("put").expect("paused");
    let found = store.due_recurring(&[], 1).await.expect("due");
    assert_eq!((found.due.len(), found.next), (1, soon), "a page is bounded");
    let passed_over = [name("much-later")];
    let found = store.due_recurring(&passed_over, 10).await.expect("due");
    let names: Vec<_> = found.due.iter().map(|it| it.name().as_str()).collect();
    assert_eq!(names, ["late"]);
    let now = store.now().await.expect("now");
    assert!((now - found.now).abs() < Duration::from_secs(10), "it is the store's time");
}

pub async fn what_is_owed_is_decided_once_and_settled_once(open: Open) {
    let Truth { store, other, .. } = &open(4).await;
    let made = make(store.as_ref(), "a", 60).await;
    let other_one = make(store.as_ref(), "b", 60).await;
    let first = made.next_due_at.expect("is due");
    let (second, next) = (first + Duration::from_secs(30), first + Duration::from_secs(7_200));
    let decision = [decided(&made, &[first, second], next)];
    let (one, two) = tokio::join!(store.decide_runs(&decision), other.decide_runs(&decision));
    let both = [one.expect("decide")[0], two.expect("decide")[0]];
    assert_eq!(both.into_iter().filter(|was_first| *was_first).count(), 1);

    // It is due as long as it owes, with what was decided.
    let owing = look(store.as_ref(), "a").await;
    assert_eq!((owing.owed.as_slice(), owing.missed), (&[first, second][..], 2));
    assert_eq!((owing.next_due_at, owing.revision), (Some(next), 1));
    assert_eq!(owing.turn, made.turn.clone().next());
    assert_eq!(due(store.as_ref()).await, ["a", "b"]);
    // Of several, each is answered for itself.
    let mixed = [decided(&made, &[], next), decided(&other_one, &[], next)];
    assert_eq!(store.decide_runs(&mixed).await.expect("decide"), [false, true]);
    assert_eq!(due(store.as_ref()).await, ["a"]);

    let id = CommandId::generate();
    let settled =
        [SettledRuns { turn: owing.turn.clone(), runs: 2, missed: 1, last: Some((second, id)) }];
    let (one, two) = tokio::join!(store.settle_runs(&settled), other.settle_runs(&settled));
    let both = [one.expect("settle")[0], two.expect("settle")[0]];
    assert_eq!(both.into_iter().filter(|was_first| *was_first).count(), 1);
    let done = look(store.as_ref(), "a").await;
    assert_eq!((done.runs, done.missed, done.owed.len()), (2, 3, 0));
    assert_eq!((done.last_due_at, done.last_command_id), (Some(second), Some(id)));
    assert!(due(store.as_ref()).await.is_empty());
    assert_eq!(store.due_recurring(&[], 10).await.expect("due").next, Some(next));

    // Runs of which none could be sent leave the last one as it is.
    let again = [decided(&done, &[next], next)];
    assert_eq!(store.decide_runs(&again).await.expect("decide"), [true]);
    let turn = done.turn.next();
    let failed = [SettledRuns { turn, runs: 0, missed: 1, last: None }];
    assert_eq!(store.settle_runs(&failed).await.expect("settle"), [true]);
    assert_eq!(look(store.as_ref(), "a").await.last_command_id, Some(id));
}

pub async fn what_was_changed_removed_or_paused_meanwhile_is_not_decided(open: Open) {
    let Truth { store, .. } = &open(4).await;
    let store = store.as_ref();
    // Changed.
    let seen = make(store, "a", 60).await;
    let first = seen.next_due_at.expect("is due");
    let next = first + Duration::from_secs(7_200);
    let put = store.put_recurring(&name("a"), &terms(2), NextDue::Keep, Some(1), "bob").await;
    put.expect("put").expect("changed");
    let decision = [decided(&seen, &[first], next)];
    assert_eq!(store.decide_runs(&decision).await.expect("decide"), [false]);

    // What is changed while it owes goes on owing; what is paused does not.
    let seen = look(store, "a").await;
    assert_eq!(store.decide_runs(&[decided(&seen, &[first], next)]).await.expect("decide"), [true]);
    let put = store.put_recurring(&name("a"), &terms(3), NextDue::Keep, Some(2), "bob").await;
    assert_eq!(put.expect("put").expect("changed").owed, [first]);
    let stale = [SettledRuns { turn: seen.turn.next(), runs: 1, missed: 0, last: None }];
    assert_eq!(store.settle_runs(&stale).await.expect("settle"), [false]);
    let paused = RecurringTerms { state: RecurringState::Paused, ..terms(3) };
    let put = store.put_recurring(&name("a"), &paused, NextDue::At(None), Some(3), "bob").await;
    let paused = put.expect("put").expect("paused");
    assert_eq!((paused.owed.len(), paused.next_due_at), (0, None));
    let decision = [decided(&paused, &[first], next)];
    assert_eq!(store.decide_runs(&decision).await.expect("decide"), [false]);

    // Removed and made again: another one, though it was written as often.
    let seen = make(store, "b", 60).await;
    store.remove_recurring(&name("b"), None).await.expect("remove").expect("was there");
    let made_again = loop {
        let made = make(store, "b", 60).await;
        if made.turn.created_at != seen.turn.created_at {
            break made;
        }
        store.remove_recurring(&name("b"), None).await.expect("remove");
    };
    assert_eq!(made_again.turn.turn, seen.turn.turn);
    let decision = [decided(&seen, &[first], next)];
    assert_eq!(store.decide_runs(&decision).await.expect("decide"), [false]);
}

pub async fn a_recurring_command_that_cannot_be_stored_leaves_nothing_behind(open: Open) {
    let Truth { store, .. } = &open(4).await;
    let mut bad = terms(1);
    bad.command.payload = RawJson::from_trusted(r#"{"text":"\u0000"}"#.into());
    let put = store.put_recurring(&name("a"), &bad, NextDue::At(None), None, "ann").await;
    assert!(matches!(put, Err(adjutant::store::StoreError::Unstorable(_))), "{put:?}");
    assert_eq!(store.recurring(&name("a")).await.expect("look"), None);
    let put = store.put_recurring(&name("a"), &terms(1), NextDue::At(None), None, "a\0b").await;
    assert!(matches!(put, Err(adjutant::store::StoreError::Unstorable(_))), "{put:?}");
}
