//! Parked keys.

use std::sync::Arc;

use adjutant::{
    dead_letter::DeadLetterId,
    message::{CommandId, Failure, GroupName, MemberId, Offset, Partition, Position, Version},
    store::{
        ActedBy, CheckpointMove, DocumentRow, EventFailure, Fence, FoldDocuments, FoldRequest,
        Folded, KeyScope, NewParkedKey, ParkedKey, ParkedReference, Replay, ReplayAsked,
        ReplayProgress, ReplayStep, Store, StoreError, ViewCommit, WaitingEvent,
    },
};

use super::{
    Open,
    look::{appended, assert_fenced, document},
};
use crate::support::commands::stream;

const HERE: Partition = Partition(0);

fn group() -> GroupName {
    GroupName::projection("v")
}

fn at(offset: i64) -> Position {
    Position { partition: HERE, offset: Offset(offset) }
}

fn moved(from: i64, to: i64) -> Vec<CheckpointMove> {
    vec![CheckpointMove { group: group(), partition: HERE, from: Offset(from), to: Offset(to) }]
}

/// Events of these counters, in this order.
async fn append(store: &Arc<dyn Store>, counters: &[&str]) {
    for (i, counter) in counters.iter().enumerate() {
        let version = counters[..=i].iter().filter(|other| other == &counter).count();
        store.commit_commands(appended(store, counter, version as i64)).await.expect("append");
    }
}

fn failure(offset: i64, version: i64) -> EventFailure {
    EventFailure {
        dead_letter: DeadLetterId::generate(),
        position: at(offset),
        version: Version(version),
        event_type: "counter.added".into(),
        command_id: CommandId::generate(),
        error: Failure::new("projection_failed", "told to"),
        attempts: 3,
    }
}

/// Parks a counter's stream at an event.
fn parks(counter: &str, offset: i64, version: i64) -> NewParkedKey {
    NewParkedKey {
        scope: KeyScope::Stream,
        key: stream(counter).to_string(),
        documents: vec![counter.into()],
        failure: failure(offset, version),
    }
}

fn parking(from: i64, to: i64, parked: Vec<NewParkedKey>) -> ViewCommit {
    ViewCommit { view: "v".into(), checkpoints: moved(from, to), parked, ..ViewCommit::default() }
}

fn passing(from: i64, to: i64, counter: &str) -> ViewCommit {
    let passed = vec![stream(counter)];
    ViewCommit { view: "v".into(), checkpoints: moved(from, to), passed, ..ViewCommit::default() }
}

async fn parked(store: &Arc<dyn Store>) -> Vec<ParkedKey> {
    store.parked_keys(&group(), None, 100).await.expect("parked keys")
}

async fn ask(store: &Arc<dyn Store>, letter: DeadLetterId, replay: Replay) -> ReplayAsked {
    let by = ActedBy { who: "test".into(), reason: Some("to see".into()), job: None };
    store.ask_for_replay(letter, replay, &by).await.expect("ask")
}

async fn checkpoint(store: &Arc<dyn Store>) -> Offset {
    store.checkpoints(&group()).await.expect("checkpoints")[HERE.index()]
}

/// Asks for the replay of the only key that is parked; answers it.
async fn asked(store: &Arc<dyn Store>) -> ParkedKey {
    let letter = parked(store).await[0].dead_letter;
    assert_eq!(ask(store, letter, Replay::Retry).await, ReplayAsked::Accepted);
    parked(store).await.remove(0)
}

/// A step of a stream's replay.
fn step(key: &ParkedKey, events: &[WaitingEvent], documents: &[&str]) -> ReplayStep {
    ReplayStep {
        key: key.clone(),
        view: "v".into(),
        documents: documents.iter().map(|&key| key.to_owned()).collect(),
        fed_by: (key.name.scope == KeyScope::Stream).then_some(HERE),
        finished: events
            .iter()
            .map(|it| Position { partition: it.partition, offset: it.entry.offset })
            .collect(),
        reached: match key.name.scope {
            KeyScope::Stream => {
                events.last().map_or(key.cursor_version, |last| last.entry.event.version)
            }
            _ => key.cursor_version,
        },
    }
}

/// Counts the document's events.
fn counting(events: usize, fed_by: Option<Partition>) -> FoldDocuments<'static> {
    Box::new(move |rows: Vec<DocumentRow>| {
        let write = |row: &DocumentRow| adjutant::store::DocumentWrite {
            partition: fed_by,
            ..document(&row.key, HERE, row.version + events as i64)
        };
        Ok(rows.iter().map(write).collect::<Vec<_>>().into())
    })
}

async fn replay(
    store: &Arc<dyn Store>,
    key: &ParkedKey,
    events: &[WaitingEvent],
    documents: &[&str],
) -> Result<ReplayProgress, StoreError> {
    let step = step(key, events, documents);
    let fold = counting(events.len(), step.fed_by);
    store.replay(step, fold).await
}

async fn version(store: &Arc<dyn Store>, key: &str) -> i64 {
    store.load_documents("v", &[key.to_owned()]).await.expect("load")[0].version
}

/// Law 3. Broken by parking in a transaction of its own.
pub async fn a_key_is_parked_together_with_the_checkpoint_that_passes_its_event(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b"]).await;
    let refused = parks("a", 1, 1);
    let letter = refused.failure.dead_letter;
    assert_fenced(store.commit_view(parking(1, 2, vec![refused])).await, Fence::Checkpoint);
    assert!(parked(store).await.is_empty());
    assert_eq!(ask(store, letter, Replay::Retry).await, ReplayAsked::NotFound);
    assert!(store.load_documents("v", &["a".into()]).await.expect("load")[0].parked.is_none());

    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    assert_eq!(checkpoint(store).await, Offset(1));
    let keys = parked(store).await;
    assert_eq!((keys.len(), keys[0].failed, keys[0].cursor), (1, at(1), 0));
    assert_eq!((keys[0].attempts, keys[0].replay, keys[0].cursor_version), (3, None, Version(0)));
    let streams = store.parked_streams(&group(), HERE, 10).await.expect("streams");
    assert_eq!(streams, [stream("a")]);
    let marked = store.load_documents("v", &["a".into()]).await.expect("load");
    assert_eq!(marked[0].parked.as_deref(), Some("counter/a"));
    assert!(store.view("v", "a").await.expect("view").is_none(), "it is not there yet");
}

/// A commit that rests on an old idea of what is parked has no effect.
pub async fn a_commit_that_is_wrong_about_parked_keys_is_refused(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "a", "a"]).await;
    assert_fenced(store.commit_view(passing(0, 1, "a")).await, Fence::Parked);
    assert_eq!(checkpoint(store).await, Offset(0), "nothing is passed that is not parked");
    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    assert_fenced(store.commit_view(parking(1, 2, vec![parks("a", 2, 2)])).await, Fence::Parked);
    assert_eq!(checkpoint(store).await, Offset(1), "nothing is parked twice");
    store.commit_view(passing(1, 2, "a")).await.expect("pass");
    // The same where documents are shared.
    let request = |passed: &str| FoldRequest {
        view: "v".into(),
        keys: vec!["all".into()],
        checkpoints: moved(2, 3),
        passed: vec![stream(passed)],
    };
    assert_fenced(store.fold_shared(request("b"), counting(1, None)).await, Fence::Parked);
    assert_eq!((checkpoint(store).await, version(store, "all").await), (Offset(2), 0));
    store.fold_shared(request("a"), counting(1, None)).await.expect("pass and fold");
    assert_eq!((checkpoint(store).await, version(store, "all").await), (Offset(3), 1));
}

fn refers(offset: i64) -> ParkedReference {
    ParkedReference { key: "all".into(), position: at(offset) }
}

/// Parks the shared document `all` at the first event, and has another wait.
async fn park_shared(store: &Arc<dyn Store>) {
    for offset in 1..=2 {
        let request = FoldRequest {
            view: "v".into(),
            keys: vec!["all".into()],
            checkpoints: moved(offset - 1, offset),
            ..FoldRequest::default()
        };
        let fold: FoldDocuments<'_> = Box::new(move |rows| {
            assert_eq!(rows[0].parked.is_some(), offset > 1, "its row tells who folds it");
            let parked = NewParkedKey {
                scope: KeyScope::Document,
                key: "all".into(),
                documents: vec!["all".into()],
                failure: failure(1, 1),
            };
            let parked = if offset == 1 { vec![parked] } else { Vec::new() };
            Ok(Folded { references: vec![refers(offset)], parked, ..Folded::default() })
        });
        store.fold_shared(request, fold).await.expect("park");
    }
}

/// Bounded: one row a key, and one reference an event.
pub async fn events_that_wait_for_a_document_are_references_one_each(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b", "c"]).await;
    park_shared(store).await;
    let twice = FoldRequest {
        view: "v".into(),
        keys: vec!["all".into()],
        checkpoints: moved(2, 3),
        ..FoldRequest::default()
    };
    let again: FoldDocuments<'_> =
        Box::new(|_| Ok(Folded { references: vec![refers(2)], ..Folded::default() }));
    assert!(store.fold_shared(twice, again).await.is_err(), "an event waits once");
    assert_eq!(checkpoint(store).await, Offset(2));
    let key = asked(store).await;
    assert_eq!((key.name.scope, key.cursor), (KeyScope::Document, 0));
    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    let offsets: Vec<i64> = waiting.iter().map(|event| event.entry.offset.0).collect();
    assert_eq!(offsets, [1, 2]);
    assert_eq!(waiting[1].entry.event.stream, stream("b"));
    assert_eq!(store.waiting_events(&key, 1).await.expect("waiting").len(), 1);

    let (first, second) = waiting.split_at(1);
    let progress = replay(store, &key, first, &["all"]).await.expect("replay");
    assert_eq!((progress, version(store, "all").await), (ReplayProgress::Waiting, 1));
    assert_fenced(replay(store, &key, first, &["all"]).await, Fence::Parked);
    let key = parked(store).await.remove(0);
    assert_eq!(key.cursor, 1);
    assert_fenced(replay(store, &key, first, &["all"]).await, Fence::Parked);
    assert_eq!(version(store, "all").await, 1, "an event is finished once");
    let progress = replay(store, &key, second, &["all"]).await.expect("replay");
    assert_eq!((progress, version(store, "all").await), (ReplayProgress::Unparked, 2));
    assert!(parked(store).await.is_empty());
    assert!(store.load_documents("v", &["all".into()]).await.expect("load")[0].parked.is_none());
}

/// The cursor is the dedupe mark of a replay. Broken by moving it without compare.
pub async fn a_step_of_a_replay_takes_place_once(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "a", "a"]).await;
    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    store.commit_view(passing(1, 3, "a")).await.expect("pass");
    let unasked = parked(store).await.remove(0);
    let waiting = store.waiting_events(&unasked, 10).await.expect("waiting");
    assert_fenced(replay(store, &unasked, &waiting, &["a"]).await, Fence::Parked);
    let key = asked(store).await;
    let fails: FoldDocuments<'_> = Box::new(|_| Err(StoreError::Corrupt("no".into())));
    let refused = store.replay(step(&key, &waiting[..1], &["a"]), fails).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    assert_eq!(parked(store).await[0].cursor, 0, "a fold that fails moves nothing");
    let owners: Vec<_> = (0..4)
        .map(|owner| {
            let store = if owner % 2 == 0 { truth.store.clone() } else { truth.other.clone() };
            let (key, events) = (key.clone(), waiting[..2].to_vec());
            tokio::spawn(async move { replay(&store, &key, &events, &["a"]).await })
        })
        .collect();
    let mut won = 0;
    for owner in owners {
        match owner.await.expect("owner") {
            Ok(progress) => {
                assert_eq!(progress, ReplayProgress::Waiting);
                won += 1;
            }
            lost => assert_fenced(lost, Fence::Parked),
        }
    }
    assert_eq!((won, version(store, "a").await), (1, 2));
    let key = parked(store).await.remove(0);
    assert_eq!((key.cursor, key.cursor_version), (2, Version(2)));
    let rest = store.waiting_events(&key, 10).await.expect("waiting");
    assert_eq!((rest.len(), rest[0].entry.offset), (1, Offset(3)));
}

pub async fn a_key_is_unparked_when_nothing_waits_before_the_checkpoint(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b", "a", "a"]).await;
    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    store.commit_view(passing(1, 3, "a")).await.expect("pass");
    let key = asked(store).await;
    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    let offsets: Vec<i64> = waiting.iter().map(|event| event.entry.offset.0).collect();
    assert_eq!(offsets, [1, 3], "its own events, as far as the group is");
    let progress = replay(store, &key, &waiting[..1], &["a"]).await.expect("replay");
    assert_eq!(progress, ReplayProgress::Waiting);
    // One more arrives before the last step.
    store.commit_view(passing(3, 4, "a")).await.expect("pass");
    let key = parked(store).await.remove(0);
    let progress = replay(store, &key, &waiting[1..], &["a"]).await.expect("replay");
    assert_eq!(progress, ReplayProgress::Waiting, "it waits for a step of its own");
    let key = parked(store).await.remove(0);
    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    let progress = replay(store, &key, &waiting, &["a"]).await.expect("replay");
    assert_eq!((progress, version(store, "a").await), (ReplayProgress::Unparked, 3));
    assert!(store.parked_streams(&group(), HERE, 10).await.expect("streams").is_empty());
    let document = store.view("v", "a").await.expect("view").expect("is there");
    assert_eq!((document.version, document.parked), (3, None));
    assert_eq!(ask(store, key.dead_letter, Replay::Retry).await, ReplayAsked::AlreadyAsked);
    assert_fenced(store.commit_view(passing(4, 4, "a")).await, Fence::Parked);
}

/// What the row locks are for: an event is passed before the last look, or not at all.
pub async fn no_event_is_lost_between_the_last_look_and_the_unparking(open: Open) {
    const EVENTS: usize = 60;
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a"; EVENTS]).await;
    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    asked(store).await;
    let passes = {
        let store = truth.other.clone();
        tokio::spawn(async move {
            for offset in 1..EVENTS as i64 {
                match store.commit_view(passing(offset, offset + 1, "a")).await {
                    Ok(()) => tokio::task::yield_now().await,
                    refused => {
                        assert_fenced(refused, Fence::Parked);
                        return offset;
                    }
                }
            }
            EVENTS as i64
        })
    };
    let mut replayed = 0;
    loop {
        let key = parked(store).await.remove(0);
        let waiting = store.waiting_events(&key, 3).await.expect("waiting");
        replayed += waiting.len() as i64;
        let progress = replay(store, &key, &waiting, &["a"]).await.expect("replay");
        if progress == ReplayProgress::Unparked {
            break;
        }
    }
    // It is unparked: whoever comes now is refused, and applies the event itself.
    let passed = passes.await.expect("loop");
    assert_eq!((replayed, version(store, "a").await), (passed, passed));
    assert_eq!(checkpoint(store).await, Offset(passed));
}

pub async fn a_replay_is_asked_for_once_by_however_many(open: Open) {
    let truth = open(2).await;
    let store = &truth.store;
    let counter = (0..)
        .map(|n| format!("c{n}"))
        .find(|counter| store.identity().partitions.of(&stream(counter)) == HERE);
    let counter = counter.expect("a counter");
    append(store, &[counter.as_str()]).await;
    store.commit_view(parking(0, 1, vec![parks(&counter, 1, 1)])).await.expect("park");
    let letter = parked(store).await[0].dead_letter;
    let people: Vec<_> = (0..50)
        .map(|n| {
            let store = if n % 2 == 0 { truth.store.clone() } else { truth.other.clone() };
            let replay = if n % 3 == 0 { Replay::Discard } else { Replay::Retry };
            tokio::spawn(async move { (ask(&store, letter, replay).await, replay) })
        })
        .collect();
    let mut accepted = Vec::new();
    for person in people {
        match person.await.expect("person") {
            (ReplayAsked::Accepted, replay) => accepted.push(replay),
            (refused, _) => assert_eq!(refused, ReplayAsked::AlreadyAsked),
        }
    }
    assert_eq!(accepted.len(), 1);
    let to_replay = async |partition| {
        let owned = [(group(), partition)];
        store.keys_to_replay(&owned, 10).await.expect("keys to replay")
    };
    let keys = to_replay(HERE).await;
    assert_eq!((keys.len(), keys[0].replay), (1, Some(accepted[0])));
    assert!(to_replay(Partition(1)).await.is_empty(), "another owner's");
}

pub async fn a_replay_that_fails_waits_for_a_person_again(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "a"]).await;
    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    store.commit_view(passing(1, 2, "a")).await.expect("pass");
    let key = asked(store).await;
    store.park_again(&key, failure(1, 1)).await.expect("park again");
    assert_fenced(store.park_again(&key, failure(1, 1)).await, Fence::Parked);
    let again = parked(store).await.remove(0);
    assert_eq!((again.replay, again.failed, again.attempts), (None, at(1), 6));
    assert_ne!(again.dead_letter, key.dead_letter);
    assert_eq!(ask(store, key.dead_letter, Replay::Retry).await, ReplayAsked::AlreadyAsked);
    // The second time, the event that failed is given up; the next one fails.
    assert_eq!(ask(store, again.dead_letter, Replay::Discard).await, ReplayAsked::Accepted);
    let key = parked(store).await.remove(0);
    assert_eq!((key.replay, key.cursor), (Some(Replay::Discard), 1), "it waits no longer");
    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    assert_eq!((waiting.len(), waiting[0].entry.offset), (1, Offset(2)));
    store.park_again(&key, failure(2, 2)).await.expect("park again");
    let last = parked(store).await.remove(0);
    assert_eq!((last.failed, last.attempts, last.cursor), (at(2), 3, 1));
    assert_eq!(version(store, "a").await, 0);
}

/// Who replays what makes processes vanish must be able to tell.
pub async fn a_step_of_a_replay_is_counted_until_one_takes_place(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "a"]).await;
    store.commit_view(parking(0, 1, vec![parks("a", 1, 1)])).await.expect("park");
    store.commit_view(passing(1, 2, "a")).await.expect("pass");
    let (one, other) = (MemberId::generate(), MemberId::generate());
    let unasked = parked(store).await.remove(0);
    assert_fenced(store.begin_replay(&unasked, one).await, Fence::Parked);
    let key = asked(store).await;
    assert_eq!(key.begun, 0);
    let begin =
        async |key: &ParkedKey, member| store.begin_replay(key, member).await.expect("begin");
    assert_eq!(begin(&key, one).await, 0);
    assert_eq!(begin(&key, one).await, 0, "it did not vanish");
    assert_eq!(begin(&key, other).await, 1);
    assert_eq!(begin(&key, MemberId::generate()).await, 2);
    assert_eq!(parked(store).await[0].begun, 3);

    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    replay(store, &key, &waiting[..1], &["a"]).await.expect("replay");
    assert_fenced(store.begin_replay(&key, one).await, Fence::Parked);
    let key = parked(store).await.remove(0);
    assert_eq!(begin(&key, one).await, 0, "the next step is another one");
    assert_eq!(begin(&key, other).await, 1);
    store.park_again(&key, failure(2, 2)).await.expect("park again");
    assert_fenced(store.begin_replay(&key, one).await, Fence::Parked);
    let key = asked(store).await;
    assert_eq!((key.begun, begin(&key, other).await), (0, 0), "asked for again");
}

pub async fn a_discarded_event_of_a_document_waits_no_longer(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b", "c"]).await;
    park_shared(store).await;
    let letter = parked(store).await[0].dead_letter;
    assert_eq!(ask(store, letter, Replay::Discard).await, ReplayAsked::Accepted);
    let key = parked(store).await.remove(0);
    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    assert_eq!((waiting.len(), waiting[0].entry.offset, key.cursor), (1, Offset(2), 1));
    let progress = replay(store, &key, &waiting, &["all"]).await.expect("replay");
    assert_eq!((progress, version(store, "all").await), (ReplayProgress::Unparked, 1));
}

/// Read your own writes.
pub async fn a_position_in_a_parked_part_is_told(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b", "a", "b", "a"]).await;
    let commit = ViewCommit {
        view: "v".into(),
        documents: ["a", "b"].map(|key| document(key, HERE, 1)).to_vec(),
        checkpoints: moved(0, 2),
        ..ViewCommit::default()
    };
    store.commit_view(commit).await.expect("commit");
    store.commit_view(parking(2, 3, vec![parks("a", 3, 2)])).await.expect("park");
    store.commit_view(passing(3, 5, "a")).await.expect("pass");
    let waits = async |view: &str, key: &str, offset| {
        let found = store.view_at(view, key, at(offset)).await.expect("view");
        (found.parked, found.record.is_some())
    };
    for (key, offset, parked) in [
        ("a", 1, false),
        ("a", 2, false),
        ("a", 3, true),
        ("a", 4, true),
        ("a", 5, true),
        ("b", 4, false),
        ("b", 2, false),
        ("b", 5, true), // the position is that of an event which waits
    ] {
        assert_eq!(waits("v", key, offset).await, (parked, true), "{key} at {offset}");
    }
    assert_eq!(waits("w", "a", 5).await, (false, false), "another view");
    let key = asked(store).await;
    let waiting = store.waiting_events(&key, 10).await.expect("waiting");
    replay(store, &key, &waiting[..1], &["a"]).await.expect("replay");
    assert_eq!(waits("v", "a", 4).await, (false, true), "it has come that far");
    assert_eq!(waits("v", "a", 5).await, (true, true));
    let key = parked(store).await.remove(0);
    replay(store, &key, &waiting[1..], &["a"]).await.expect("replay");
    assert_eq!(waits("v", "a", 5).await, (false, true));
}

pub async fn a_position_that_waits_for_a_shared_document_is_told(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b", "c"]).await;
    park_shared(store).await;
    let waits =
        async |key: &str, offset| store.view_at("v", key, at(offset)).await.expect("view").parked;
    assert!(waits("all", 1).await && waits("all", 2).await);
    assert!(!waits("other", 2).await);
    let key = asked(store).await;
    let waiting = store.waiting_events(&key, 1).await.expect("waiting");
    replay(store, &key, &waiting, &["all"]).await.expect("replay");
    assert!(!waits("all", 1).await && waits("all", 2).await);
}

pub async fn what_is_parked_is_counted_and_listed(open: Open) {
    let truth = open(1).await;
    let store = &truth.store;
    append(store, &["a", "b", "c", "d"]).await;
    assert!(store.parked_counts().await.expect("counts").is_empty());
    let three = ["c", "a", "b"].map(|counter| {
        let offset = i64::from(counter.as_bytes()[0] - b'a') + 1;
        parks(counter, offset, 1)
    });
    store.commit_view(parking(0, 3, three.to_vec())).await.expect("park");
    let counts = store.parked_counts().await.expect("counts");
    assert_eq!((counts.len(), &counts[0].group, counts[0].keys), (1, &group(), 3));
    let streams = store.parked_streams(&group(), HERE, 2).await.expect("streams");
    assert_eq!(streams, [stream("a"), stream("b")], "at most so many");
    let which = [stream("d"), stream("b"), stream("a")];
    let mut found = store.which_are_parked(&group(), &which).await.expect("which");
    found.sort();
    assert_eq!(found, [stream("a"), stream("b")]);
    let page = store.parked_keys(&group(), None, 2).await.expect("page");
    let next = store.parked_keys(&group(), page.last().map(|it| &it.name), 2).await.expect("page");
    let keys: Vec<&str> = page.iter().chain(&next).map(|it| it.name.key.as_str()).collect();
    assert_eq!(keys, ["counter/a", "counter/b", "counter/c"]);
    let other = GroupName::projection("w");
    assert!(store.parked_keys(&other, None, 9).await.expect("other").is_empty());
    let (now, progress) = store.event_progress(&group()).await.expect("progress");
    assert_eq!((progress[0].checkpoint, progress[0].head), (Offset(3), Offset(4)));
    assert!(progress[0].waiting_since.expect("one waits") <= now);
    let (_, progress) = store.event_progress(&other).await.expect("progress");
    assert_eq!(progress[0].checkpoint, Offset(0));
    store
        .commit_view(ViewCommit {
            view: "v".into(),
            checkpoints: moved(3, 4),
            ..ViewCommit::default()
        })
        .await
        .expect("commit");
    let (_, progress) = store.event_progress(&group()).await.expect("progress");
    assert_eq!(progress[0].waiting_since, None);
}
