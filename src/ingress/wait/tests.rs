use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    ingress::testing::{MemoryStore, bank},
    ingress::{Origin, Validator},
    message::{CommandId, GroupName, Offset, OutcomeStatus, Partition, Position},
    signals::{Applied, Signals},
    store::{CommandProgress, CommandRecord, Intake as _},
};

const P: Partition = Partition(1);

fn tell(record: &CommandRecord) -> Result<Told, serde_json::Error> {
    let mark = record.status().as_str().to_owned();
    Ok(Told { mark, text: "told".into(), last: record.outcome.is_some() })
}

struct Fixture {
    store: Arc<MemoryStore>,
    signals: Signals,
    stop: CancellationToken,
}

impl Fixture {
    fn new() -> Self {
        Self { store: Arc::default(), signals: Signals::default(), stop: CancellationToken::new() }
    }

    fn commands(&self, max_waiters: usize) -> CommandWatcher {
        let (signals, stop) = (self.signals.clone(), self.stop.clone());
        let settings = WatchSettings { max_waiters, tell };
        CommandWatcher::start(self.store.clone(), signals, settings, stop)
    }

    fn positions(&self) -> PositionWatcher {
        let (signals, stop) = (self.signals.clone(), self.stop.clone());
        PositionWatcher::start(self.store.clone(), signals, 10, stop)
    }

    async fn accepted(&self) -> CommandId {
        let json = r#"{"type":"account.deposit","stream":"account/a","payload":{"amount":1}}"#;
        let validator = Validator::new(bank().registry().clone());
        let command = validator.check(json.as_bytes(), &Origin::default()).unwrap();
        let id = command.id;
        self.store.accept(vec![command]).await.unwrap();
        id
    }
}

fn at(offset: i64) -> Position {
    Position { partition: P, offset: Offset(offset) }
}

fn balances() -> GroupName {
    GroupName::projection("balances")
}

#[tokio::test(start_paused = true)]
async fn a_hint_ends_the_wait_at_once() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    let wait = tokio::spawn(watcher.expect(P, id).within(Duration::from_secs(9)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    it.store.end(id, OutcomeStatus::Succeeded);
    it.signals.commands_ended(vec![CommandId::generate(), id]);
    assert_eq!(wait.await.unwrap().unwrap().status, OutcomeStatus::Succeeded);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn polling_finds_what_no_hint_announced() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    let two = [watcher.expect(P, id), watcher.watch(P, id)];
    let [one, two] = two.map(|wait| tokio::spawn(wait.within(Duration::from_secs(9))));
    tokio::time::sleep(Duration::from_secs(2)).await;
    it.store.end(id, OutcomeStatus::Rejected);
    let started = Instant::now();
    assert_eq!(one.await.unwrap().unwrap().status, OutcomeStatus::Rejected);
    assert!(two.await.unwrap().is_some());
    assert!(started.elapsed() <= Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn what_ended_before_is_found_at_once() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    it.store.end(id, OutcomeStatus::Succeeded);
    // The watcher is busy with another one, whose polls have grown rare.
    let _busy =
        tokio::spawn(watcher.expect(P, CommandId::generate()).within(Duration::from_secs(9)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let started = Instant::now();
    assert!(watcher.watch(P, id).within(Duration::from_secs(9)).await.is_some());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_without_an_outcome_when_time_is_up_or_the_process_stops() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    assert!(watcher.expect(P, id).within(Duration::from_secs(2)).await.is_none());
    let started = Instant::now();
    let wait = tokio::spawn(watcher.expect(P, id).within(Duration::from_mins(1)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    it.stop.cancel();
    assert!(wait.await.unwrap().is_none());
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    assert!(watcher.expect(P, id).within(Duration::from_mins(1)).await.is_none());
    assert_eq!(started.elapsed(), Duration::from_secs(1), "nor does a later one wait");
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_allowed_and_who_leaves_makes_room() {
    let it = Fixture::new();
    let watcher = it.commands(1);
    let id = it.accepted().await;
    let first = watcher.expect(P, id);
    let started = Instant::now();
    assert!(watcher.expect(P, id).within(Duration::from_secs(9)).await.is_none());
    assert_eq!(started.elapsed(), Duration::ZERO, "answered at once");
    drop(first);
    let wait = tokio::spawn(watcher.expect(P, id).within(Duration::from_secs(9)));
    it.store.end(id, OutcomeStatus::Succeeded);
    assert!(wait.await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn nobody_waiting_asks_nothing() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    assert!(watcher.watch(P, id).within(Duration::from_secs(1)).await.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = it.store.inside().questions;
    it.signals.commands_ended(vec![id]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(it.store.inside().questions, asked);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_only_delays() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    it.store.end(id, OutcomeStatus::Succeeded);
    it.store.inside().down = true;
    let wait = tokio::spawn(watcher.watch(P, id).within(Duration::from_secs(9)));
    tokio::time::sleep(Duration::from_secs(3)).await;
    it.store.inside().down = false;
    assert!(wait.await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_position_is_reached_by_hint_or_by_poll() {
    let it = Fixture::new();
    let watcher = it.positions();
    let nine = Duration::from_secs(9);
    it.store.inside().checkpoints.insert(balances(), vec![Offset(5); 8]);
    assert!(watcher.reached(&balances(), at(5), Duration::ZERO).await.unwrap());
    assert!(!watcher.reached(&balances(), at(6), Duration::ZERO).await.unwrap());
    assert!(watcher.reached(&balances(), at(5), nine).await.unwrap());

    let reached = |offset| {
        let watcher = watcher.clone();
        tokio::spawn(async move { watcher.reached(&balances(), at(offset), nine).await.unwrap() })
    };
    let (six, seven) = (reached(6), reached(7));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let started = Instant::now();
    let moved = |group, partition| Applied { group, partition, offset: Offset(6) };
    it.signals.checkpoints_moved(vec![
        moved(GroupName::projection("other"), P),
        moved(balances(), Partition(2)),
        moved(balances(), P),
    ]);
    assert!(six.await.unwrap());
    assert_eq!(started.elapsed(), Duration::ZERO);

    it.store.inside().checkpoints.insert(balances(), vec![Offset(7); 8]);
    assert!(seven.await.unwrap(), "found by polling");
    assert!(started.elapsed() <= Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn a_position_that_is_not_reached_in_time_is_not_reached() {
    let it = Fixture::new();
    let watcher = it.positions();
    let started = Instant::now();
    assert!(!watcher.reached(&balances(), at(1), Duration::from_secs(2)).await.unwrap());
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    it.store.inside().down = true;
    assert!(watcher.reached(&balances(), at(1), Duration::ZERO).await.is_err());
}

/// What a watcher hears next, by the test's clock.
async fn next(watch: &mut StatusChanges) -> Option<Arc<Told>> {
    let next = tokio::time::timeout(Duration::from_mins(10), watch.next()).await;
    next.expect("something is heard, or an end")
}

fn nothing_yet() -> CommandProgress {
    CommandProgress::default()
}

#[tokio::test(start_paused = true)]
async fn every_change_is_told_and_the_newest_only_to_who_is_slow() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    let mut watch = watcher.changes(P, id, nothing_yet()).unwrap();
    let mut slow = watcher.changes(P, id, nothing_yet()).unwrap();
    for attempt in 1..=3 {
        it.store.inside().failed_attempts.insert(id, attempt);
        assert_eq!(next(&mut watch).await.unwrap().mark, "accepted");
    }
    it.store.end(id, OutcomeStatus::Dead);
    it.signals.commands_ended(vec![id]);
    let end = next(&mut watch).await.unwrap();
    assert_eq!((end.mark.as_str(), end.last), ("dead", true));
    assert_eq!(next(&mut slow).await.unwrap(), end);
    let asked = it.store.inside().statuses_asked.len();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(it.store.inside().statuses_asked.len(), asked, "an end that was told is the end");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_knows_other_than_what_was_told_is_told_anew() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    let _first = watcher.changes(P, id, nothing_yet()).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // It read the command when it was scheduled; meanwhile it has become due.
    let scheduled = CommandProgress { scheduled: true, ..nothing_yet() };
    let mut late = watcher.changes(P, id, scheduled).unwrap();
    let started = Instant::now();
    assert_eq!(next(&mut late).await.unwrap().mark, "accepted");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn waits_and_watches_of_one_command_end_together_and_share_the_places() {
    let it = Fixture::new();
    let watcher = it.commands(2);
    let id = it.accepted().await;
    let mut watch = watcher.changes(P, id, nothing_yet()).unwrap();
    let wait = watcher.expect(P, id);
    assert_eq!(watcher.changes(P, id, nothing_yet()).err(), Some(NoRoom::Full));
    it.store.end(id, OutcomeStatus::Succeeded);
    assert!(wait.within(Duration::from_secs(9)).await.is_some());
    assert!(next(&mut watch).await.unwrap().last);
    drop(watch);
    let mut again = watcher.changes(P, id, nothing_yet()).unwrap();
    assert!(next(&mut again).await.unwrap().last);
    it.stop.cancel();
    assert!(next(&mut again).await.is_none());
    assert_eq!(watcher.changes(P, id, nothing_yet()).err(), Some(NoRoom::Stopping));
}

#[tokio::test(start_paused = true)]
async fn many_are_asked_about_in_parts_and_seldom_while_nothing_moves() {
    let it = Fixture::new();
    let watcher = it.commands(5_000);
    let ids: Vec<_> = (0..3_000).map(|_| CommandId::generate()).collect();
    let watches: Vec<_> =
        ids.iter().map(|id| watcher.changes(P, *id, nothing_yet()).unwrap()).collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    it.store.inside().statuses_asked.clear();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = std::mem::take(&mut it.store.inside().statuses_asked);
    assert!(asked.iter().all(|about| *about <= 500), "{asked:?}");
    let asked: usize = asked.iter().sum();
    assert!((30_000..=60_000).contains(&asked), "all, at most 6,000 a second: {asked}");
    drop(watches);
}

#[tokio::test(start_paused = true)]
async fn of_many_those_whose_partition_moved_are_looked_at_soon() {
    let it = Fixture::new();
    let watcher = it.commands(50_000);
    let id = it.accepted().await;
    let mut watch = watcher.changes(P, id, nothing_yet()).unwrap();
    let far = Partition(2);
    let _others: Vec<_> = (0..40_000)
        .map(|_| watcher.changes(far, CommandId::generate(), nothing_yet()).unwrap())
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let started = Instant::now();
    it.store.end(id, OutcomeStatus::Succeeded);
    let mut moved = vec![Offset(0); 8];
    moved[P.index()] = Offset(1);
    it.store.inside().checkpoints.insert(GroupName::commands(), moved);
    it.store.inside().statuses_asked.clear();
    assert!(next(&mut watch).await.unwrap().last);
    // Two things are possible: this look, or one about all that happened to come in between.
    let asked: usize = it.store.inside().statuses_asked.iter().sum();
    assert!(started.elapsed() <= Duration::from_secs(1), "{:?} {asked}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_any_more_is_watched_no_longer() {
    let it = Fixture::new();
    let watcher = it.commands(10);
    let id = it.accepted().await;
    let mut watch = watcher.changes(P, id, nothing_yet()).unwrap();
    it.store.inside().failed_attempts.insert(id, 1);
    it.store.inside().commands.remove(&id);
    assert!(next(&mut watch).await.is_none());
    // A later watcher of the same id is one of its own.
    let mut later = watcher.changes(P, id, nothing_yet()).unwrap();
    drop(watch);
    assert!(next(&mut later).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_hundred_are_asked_about_as_often_as_one() {
    let it = Fixture::new();
    let watcher = it.commands(100);
    let asked = async |count: usize| {
        let new = |_| watcher.changes(P, CommandId::generate(), nothing_yet()).unwrap();
        let watches: Vec<_> = (0..count).map(new).collect();
        tokio::time::sleep(Duration::from_secs(2)).await;
        it.store.inside().questions = 0;
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(watches);
        it.store.inside().questions
    };
    let (one, hundred) = (asked(1).await, asked(100).await);
    assert_eq!(one, hundred);
    assert!(one <= 60 * 4 + 1, "{one} questions in a minute");
}
