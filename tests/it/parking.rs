//! An event that a projection cannot apply parks its key, and everything else goes on; a replay
//! brings the key back in order. Here on PostgreSQL and RabbitMQ; what a store must do for it is in
//! the conformance suite.

mod jobs;
mod moody;
mod pausing;

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::DeadLetterId,
    ingress::IngressSettings,
    message::{CommandId, GroupName, Offset},
    service::{Process, ProcessParts, groups_of},
    store::{ActedBy, KeyScope, Logs, ParkedKey, ParkedKeys, Queries, Replay, ReplayAsked, Views},
    worker::ParkingSettings,
};

use crate::{
    main_path::accept,
    support::{
        commands::{add, stream},
        eventually,
        http::Api,
        process::{ALL, Site},
    },
};
use moody::{Harm, Moods, POISON};

fn streams() -> GroupName {
    GroupName::projection("counters")
}

fn shared() -> GroupName {
    GroupName::projection("totals")
}

/// A service whose projections can be told to fail.
struct Bed {
    site: Site,
    moods: Moods,
    parking: ParkingSettings,
}

impl Bed {
    async fn new() -> Self {
        let mut site = Site::new().await;
        let moods = Moods::default();
        site.road.groups = groups_of(&moody::service(&moods));
        // One event a step: a replay has a middle.
        let parking = ParkingSettings {
            replay_batch: 1,
            poll: Duration::from_millis(50),
            ..ParkingSettings::default()
        };
        Self { site, moods, parking }
    }

    async fn parts(&self) -> ProcessParts {
        let broker = Arc::new(self.site.road.broker());
        let mut parts = self.site.parts(&ALL, broker).await;
        parts.service = moody::service(&self.moods);
        parts.settings.parking = self.parking;
        parts
    }

    async fn start(&self) -> Process {
        Process::start(self.parts().await).await.expect("start")
    }

    /// Sends amounts to counters, and waits until all are executed.
    async fn send(&self, process: &Process, amounts: &[(&str, i64)]) -> Vec<CommandId> {
        let commands = amounts.iter().map(|(counter, amount)| add(counter, *amount)).collect();
        let ids = accept(&self.site, process, commands).await;
        self.site.until_ended(&ids).await;
        ids
    }

    async fn parked(&self, group: &GroupName) -> Vec<ParkedKey> {
        self.site.store.parked_keys(group, None, 1_000).await.expect("parked keys")
    }

    /// Waits until a key is parked that has this dead letter or a newer one.
    async fn until_parked(&self, group: &GroupName, keys: usize) -> Vec<ParkedKey> {
        eventually("keys are parked", async || {
            let parked = self.parked(group).await;
            (parked.len() == keys).then_some(parked)
        })
        .await
    }

    async fn until_unparked(&self) {
        eventually("nothing is parked", async || {
            self.site.store.parked_counts().await.ok()?.is_empty().then_some(())
        })
        .await;
    }

    async fn ask(&self, letter: DeadLetterId, replay: Replay) {
        let by = ActedBy { who: "ada".into(), reason: Some("mended".into()), job: None };
        let asked = self.site.store.ask_for_replay(letter, replay, &by).await;
        assert_eq!(asked.expect("ask"), ReplayAsked::Accepted);
    }

    /// The count and sum of a document; zero if it is not there.
    async fn sum(&self, view: &str, key: &str) -> (i64, i64) {
        let document = self.site.store.view(view, key).await.expect("view");
        let Some(document) = document else { return (0, 0) };
        let value = document.value.expect("value").to_value();
        let field = |name: &str| value[name].as_i64().expect("a number");
        assert_eq!(field("count"), document.version, "each event once");
        (field("count"), field("amount"))
    }

    async fn letter(&self, id: DeadLetterId) -> (i16, String, String, i32) {
        sqlx::query_as(
            "SELECT state, error->>'code', type, attempts FROM adjutant.dead_letters WHERE id = $1",
        )
        .bind(id.0)
        .fetch_one(&self.site.database.pool().await)
        .await
        .expect("dead letter")
    }

    /// Each counter's document, and that of all of them, is the fold of all events.
    async fn assert_folds(&self) {
        let wrong: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM
              (SELECT 'counters' AS view, split_part(stream, '/', 2) AS key,
                      sum((data->>'amount')::bigint) AS amount, count(*) AS n
                 FROM adjutant.events GROUP BY 2
               UNION ALL
               SELECT 'totals', 'all', sum((data->>'amount')::bigint), count(*)
                 FROM adjutant.events) AS f
              LEFT JOIN adjutant.views v USING (view, key)
              WHERE (v.value->>'amount')::bigint IS DISTINCT FROM f.amount
                 OR v.version IS DISTINCT FROM f.n OR v.parked IS NOT NULL",
        )
        .fetch_one(&self.site.database.pool().await)
        .await
        .expect("look");
        assert_eq!(wrong, 0, "documents that are not the fold");
    }

    async fn references(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM adjutant.parked_references")
            .fetch_one(&self.site.database.pool().await)
            .await
            .expect("references")
    }
}

/// Broken by parking the partition, by applying later events of the stream, and by a replay that
/// forgets what arrived meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_event_parks_its_stream_and_others_go_on() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fails);
    let process = bed.start().await;
    let mut amounts = vec![("bad", 1), ("bad", POISON), ("bad", 2)];
    amounts.extend(["a", "b", "c", "d", "e", "f", "g", "h"].map(|counter| (counter, 5)));
    amounts.extend([("bad", 3), ("a", 7)]);
    bed.send(&process, &amounts).await;
    bed.site.until_applied().await;
    let parked = bed.until_parked(&streams(), 1).await.remove(0);
    assert_eq!((parked.name.scope, parked.name.key.as_str()), (KeyScope::Stream, "counter/bad"));
    assert_eq!(parked.attempts, 3, "it was tried before");
    assert_eq!(bed.sum("counters", "bad").await, (1, 1), "up to the event that failed");
    assert_eq!(bed.sum("counters", "a").await, (2, 12));
    assert_eq!(bed.sum("counters", "h").await, (1, 5));
    assert_eq!(bed.sum("totals", "all").await.0, 13, "another view is not concerned");
    let (state, code, event, attempts) = bed.letter(parked.dead_letter).await;
    assert_eq!(
        (state, code.as_str(), event.as_str(), attempts),
        (1, "projection_failed", "counter.added", 3)
    );

    // The fix. Events arrive while the replay is at it.
    bed.moods.set("counters", Harm::None);
    bed.send(&process, &[("bad", 4); 40]).await;
    bed.ask(parked.dead_letter, Replay::Retry).await;
    for _ in 0..10 {
        bed.send(&process, &[("bad", 1), ("a", 1)]).await;
    }
    bed.until_unparked().await;
    bed.send(&process, &[("bad", 9)]).await;
    bed.site.until_applied().await;
    bed.assert_folds().await;
    assert_eq!(bed.letter(parked.dead_letter).await.0, 3, "resolved");
    assert_eq!(bed.references().await, 0, "a stream needs none");
    process.stop(Duration::from_secs(10)).await;
}

/// The process that answers has the key's worker told, which does not look by itself here. Broken by
/// not telling it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_asked_for_by_http_starts_at_once() {
    let mut bed = Bed::new().await;
    bed.parking.poll = Duration::from_hours(1);
    bed.moods.set("counters", Harm::Fatal);
    let process = bed.start().await;
    let api = Api::start(
        moody::service(&bed.moods),
        bed.site.store.clone(),
        process.signals(),
        IngressSettings::default(),
    );
    for action in ["retry", "discard"] {
        bed.send(&process, &[(action, POISON), (action, 1)]).await;
        bed.site.until_applied().await;
        let letter = bed.until_parked(&streams(), 1).await[0].dead_letter;
        bed.moods.heal();
        let target = format!("/v1/dead-letters/{letter}/{action}");
        let mut client = api.client().await;
        let json = [("Content-Type", "application/json")];
        let answer = client.request("POST", &target, &json, br#"{"reason":"mended"}"#).await;
        assert!(answer.status == 202 || answer.status == 200, "{}", answer.body);
        bed.until_unparked().await;
        bed.moods.set("counters", Harm::Fatal);
    }
    assert_eq!(bed.sum("counters", "retry").await, (2, POISON + 1));
    assert_eq!(bed.sum("counters", "discard").await, (1, 1));
    process.stop(Duration::from_secs(10)).await;
}

/// What was remembered of a document before its stream was parked is void afterwards. Broken by
/// keeping it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_feeds_several_documents_is_parked_as_a_whole() {
    let bed = Bed::new().await;
    let group = GroupName::projection("parities");
    let applied = async |documents: &[(&str, (i64, i64))]| {
        eventually("every event is applied", async || {
            let heads = bed.site.store.heads().await.ok()?;
            (heads.events == bed.site.store.checkpoints(&group).await.ok()?).then_some(())
        })
        .await;
        for (key, sum) in documents {
            assert_eq!(bed.sum("parities", key).await, *sum, "{key}");
        }
    };
    bed.moods.set("parities", Harm::Fatal);
    let process = bed.start().await;
    bed.send(&process, &[("two", 1), ("two", 2)]).await;
    applied(&[("two/odd", (1, 1)), ("two/even", (1, 2))]).await;
    // Alone, so that nothing but the document that fails is forgotten.
    bed.send(&process, &[("two", POISON)]).await;
    let parked = bed.until_parked(&group, 1).await.remove(0);
    bed.send(&process, &[("two", 3), ("one", 4)]).await;
    applied(&[("two/odd", (1, 1)), ("two/even", (1, 2)), ("one/even", (1, 4))]).await;
    bed.moods.heal();
    bed.ask(parked.dead_letter, Replay::Retry).await;
    bed.until_unparked().await;
    bed.send(&process, &[("two", 5), ("two", 6)]).await;
    applied(&[("two/odd", (3, 9)), ("two/even", (3, 8 + POISON)), ("one/even", (1, 4))]).await;
    process.stop(Duration::from_secs(10)).await;
}

/// The fence of a shared document is its own row: every partition's loop sees that it is parked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_document_is_parked_for_every_partition_that_feeds_it() {
    let bed = Bed::new().await;
    bed.moods.set("totals", Harm::Panics);
    let process = bed.start().await;
    let counters: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    let each = |amount: i64| counters.iter().map(|it| (it.as_str(), amount)).collect::<Vec<_>>();
    bed.send(&process, &each(1)).await;
    bed.site.until_applied().await;
    bed.send(&process, &[("c3", POISON)]).await;
    let parked = bed.until_parked(&shared(), 1).await.remove(0);
    assert_eq!((parked.name.scope, parked.name.key.as_str()), (KeyScope::Document, "all"));
    assert_eq!(bed.letter(parked.dead_letter).await.1, "projection_panicked");
    bed.send(&process, &each(2)).await;
    bed.site.until_applied().await;
    assert_eq!(bed.sum("totals", "all").await, (12, 12));
    assert_eq!(bed.sum("totals", "even").await, (13, 24 + POISON), "its neighbour goes on");
    assert_eq!(bed.sum("totals", "odd").await, (12, 12));
    assert_eq!(bed.references().await, 13, "one an event that waits");
    assert!(bed.parked(&streams()).await.is_empty());

    bed.moods.set("totals", Harm::None);
    bed.ask(parked.dead_letter, Replay::Retry).await;
    for _ in 0..5 {
        bed.send(&process, &each(1)).await;
    }
    bed.until_unparked().await;
    bed.send(&process, &each(4)).await;
    bed.site.until_applied().await;
    let sum = 12 + POISON + 12 * 2 + 5 * 12 + 12 * 4;
    assert_eq!(bed.sum("totals", "all").await, (12 + 1 + 12 + 60 + 12, sum));
    assert_eq!(bed.references().await, 0);
    process.stop(Duration::from_secs(10)).await;
}

/// Where keys cannot be computed, nobody knows which documents wait: the stream does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_without_keys_parks_its_stream_where_documents_are_shared() {
    let bed = Bed::new().await;
    bed.moods.set("totals", Harm::KeysPanic);
    let process = bed.start().await;
    bed.send(&process, &[("x", 1), ("x", POISON), ("x", 2), ("y", 4), ("z", 8)]).await;
    bed.site.until_applied().await;
    let parked = bed.until_parked(&shared(), 1).await.remove(0);
    assert_eq!((parked.name.scope, parked.name.key.as_str()), (KeyScope::Stream, "counter/x"));
    assert_eq!(bed.sum("totals", "all").await, (3, 13));
    // Now its keys are known, and one of its documents cannot take it: that one is parked, and the
    // stream comes back.
    bed.moods.set("totals", Harm::Fails);
    bed.ask(parked.dead_letter, Replay::Retry).await;
    let document = eventually("the document is parked instead", async || {
        let keys = bed.parked(&shared()).await;
        keys.into_iter().find(|key| key.name.scope == KeyScope::Document)
    })
    .await;
    eventually("the stream is back", async || {
        (bed.parked(&shared()).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(bed.sum("totals", "all").await, (3, 13));
    assert_eq!(bed.sum("totals", "even").await, (4, 14 + POISON));
    bed.moods.set("totals", Harm::None);
    bed.ask(document.dead_letter, Replay::Retry).await;
    bed.until_unparked().await;
    assert_eq!(bed.sum("totals", "all").await, (5, 15 + POISON));
    process.stop(Duration::from_secs(10)).await;
}

/// A crash in the middle of a replay: another process goes on where the cursor stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_survives_the_death_of_its_process() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fatal);
    bed.moods.set("totals", Harm::Fatal);
    let process = bed.start().await;
    let mut amounts = vec![("bad", 1), ("bad", POISON)];
    amounts.extend([("bad", 1); 150]);
    bed.send(&process, &amounts).await;
    bed.site.until_applied().await;
    let stream = bed.until_parked(&streams(), 1).await.remove(0);
    let document = bed.until_parked(&shared(), 1).await.remove(0);
    assert_eq!(stream.attempts, 1, "what is fatal is tried once");
    bed.moods.heal();
    bed.ask(stream.dead_letter, Replay::Retry).await;
    bed.ask(document.dead_letter, Replay::Retry).await;
    eventually("both replays are at it", async || {
        let keys = [bed.parked(&streams()).await, bed.parked(&shared()).await].concat();
        let in_the_middle = |key: &ParkedKey| key.cursor >= cursor_at_park(key) + 5;
        (keys.len() == 2 && keys.iter().all(in_the_middle)).then_some(())
    })
    .await;
    drop(process);
    assert_eq!(bed.site.store.parked_counts().await.expect("counts").len(), 2, "in the middle");
    let other = bed.start().await;
    bed.send(&other, &[("bad", 2), ("good", 3)]).await;
    bed.until_unparked().await;
    bed.site.until_applied().await;
    assert_eq!(bed.sum("counters", "bad").await, (153, 153 + POISON));
    assert_eq!(bed.sum("totals", "all").await, (154, 156 + POISON));
    bed.send(&other, &[("bad", 5)]).await;
    bed.site.until_applied().await;
    assert_eq!(bed.sum("counters", "bad").await, (154, 158 + POISON));
    other.stop(Duration::from_secs(10)).await;
}

fn cursor_at_park(key: &ParkedKey) -> i64 {
    match key.name.scope {
        KeyScope::Stream => key.failed.offset.0 - 1,
        _ => 0,
    }
}

/// Two owners: one dies, and events go on arriving all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_replay_together_and_one_may_die() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fails);
    bed.moods.set("totals", Harm::Fails);
    let (one, other) = (bed.start().await, bed.start().await);
    let counters: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let each = |amount: i64| counters.iter().map(|it| (it.as_str(), amount)).collect::<Vec<_>>();
    bed.send(&one, &each(1)).await;
    bed.send(&one, &each(POISON)).await;
    for _ in 0..4 {
        bed.send(&one, &each(1)).await;
    }
    bed.site.until_applied().await;
    let keys = bed.until_parked(&streams(), 8).await;
    let all = bed.until_parked(&shared(), 1).await;
    bed.moods.heal();
    for key in keys.iter().chain(&all) {
        bed.ask(key.dead_letter, Replay::Retry).await;
    }
    bed.send(&one, &each(1)).await;
    drop(one);
    for _ in 0..4 {
        bed.send(&other, &each(1)).await;
    }
    bed.until_unparked().await;
    bed.send(&other, &each(1)).await;
    bed.site.until_applied().await;
    for counter in &counters {
        assert_eq!(bed.sum("counters", counter).await, (12, 11 + POISON), "{counter}");
    }
    assert_eq!(bed.sum("totals", "all").await, (96, 8 * (11 + POISON)));
    other.stop(Duration::from_secs(10)).await;
}

/// A discard skips one event of one key, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_event_is_skipped_and_the_rest_is_replayed() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fatal);
    bed.moods.set("totals", Harm::Fatal);
    let process = bed.start().await;
    bed.send(&process, &[("bad", 1), ("bad", POISON), ("bad", 2), ("bad", POISON), ("bad", 4)])
        .await;
    bed.site.until_applied().await;
    // Both keys fail again at their second poison event.
    for group in [streams(), shared()] {
        let first = bed.until_parked(&group, 1).await.remove(0);
        bed.ask(first.dead_letter, Replay::Discard).await;
        let second = eventually("it failed again", async || {
            let key = bed.parked(&group).await.pop()?;
            (key.dead_letter != first.dead_letter).then_some(key)
        })
        .await;
        assert_eq!(
            (second.replay, second.failed.offset),
            (None, Offset(first.failed.offset.0 + 2))
        );
        assert_eq!(bed.letter(first.dead_letter).await.0, 4, "discarded");
        assert_eq!(bed.letter(second.dead_letter).await.0, 1, "open");
        bed.ask(second.dead_letter, Replay::Discard).await;
    }
    bed.until_unparked().await;
    bed.send(&process, &[("bad", 8)]).await;
    bed.site.until_applied().await;
    assert_eq!(bed.sum("counters", "bad").await, (4, 15));
    assert_eq!(bed.sum("totals", "all").await, (4, 15));
    assert_eq!(bed.sum("totals", "even").await, (4 + 1, 14 + 2 * POISON), "of other documents not");
    process.stop(Duration::from_secs(10)).await;
}

/// A replay that fails leaves the key where it got to, and asks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_fails_opens_another_dead_letter() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fails);
    let process = bed.start().await;
    bed.send(&process, &[("bad", POISON), ("bad", 1)]).await;
    let first = bed.until_parked(&streams(), 1).await.remove(0);
    bed.ask(first.dead_letter, Replay::Retry).await;
    let second = eventually("it failed again", async || {
        let key = bed.parked(&streams()).await.pop()?;
        (key.dead_letter != first.dead_letter).then_some(key)
    })
    .await;
    assert_eq!((second.failed, second.attempts), (first.failed, 6));
    assert_eq!(bed.letter(first.dead_letter).await.0, 3);
    bed.moods.heal();
    bed.ask(second.dead_letter, Replay::Retry).await;
    bed.until_unparked().await;
    bed.site.until_applied().await;
    bed.assert_folds().await;
    process.stop(Duration::from_secs(10)).await;
}

/// A value that cannot be stored is the event's doing, a failure that passes is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stored_is_parked_and_what_passes_by_itself_is_not() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Unstorable);
    bed.moods.set("totals", Harm::FailsTwice);
    let process = bed.start().await;
    let mut amounts: Vec<(&str, i64)> = vec![("a", 1); 30];
    amounts.push(("bad", POISON));
    amounts.extend([("a", 1); 30]);
    bed.send(&process, &amounts).await;
    bed.site.until_applied().await;
    let parked = bed.until_parked(&streams(), 1).await.remove(0);
    assert_eq!(parked.name.key, "counter/bad");
    assert_eq!(bed.letter(parked.dead_letter).await.1, "document_unstorable");
    assert_eq!(bed.sum("counters", "a").await, (60, 60));
    assert_eq!(bed.sum("totals", "all").await, (61, 60 + POISON));
    assert!(bed.parked(&shared()).await.is_empty());
    process.stop(Duration::from_secs(10)).await;
}

/// More streams are parked than are remembered: each batch asks for its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_parked_streams_than_are_remembered_are_looked_up() {
    let mut bed = Bed::new().await;
    bed.parking.remembered = 0;
    bed.moods.set("counters", Harm::Fatal);
    let process = bed.start().await;
    let counters: Vec<String> = (0..6).map(|n| format!("c{n}")).collect();
    let each = |amount: i64| counters.iter().map(|it| (it.as_str(), amount)).collect::<Vec<_>>();
    for amount in [1, POISON, 2] {
        bed.send(&process, &each(amount)).await;
    }
    bed.site.until_applied().await;
    let keys = bed.until_parked(&streams(), 6).await;
    assert_eq!(bed.sum("counters", "c0").await, (1, 1));
    bed.moods.heal();
    for key in &keys {
        bed.ask(key.dead_letter, Replay::Retry).await;
        bed.send(&process, &each(1)).await;
    }
    bed.until_unparked().await;
    bed.send(&process, &each(1)).await;
    bed.site.until_applied().await;
    bed.assert_folds().await;
    process.stop(Duration::from_secs(10)).await;
}

/// The stream waits at the position that its outcome named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_its_own_writes_is_told_that_they_wait() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fatal);
    let process = bed.start().await;
    let ids = bed.send(&process, &[("bad", 1), ("bad", POISON), ("bad", 2)]).await;
    bed.site.until_applied().await;
    let mut told = Vec::new();
    for id in &ids {
        let command = bed.site.store.command(*id).await.expect("command").expect("is there");
        let position = command.outcome.expect("ended").positions[0];
        told.push(bed.site.store.view_at("counters", "bad", position).await.expect("view").parked);
    }
    assert_eq!(told, [false, true, true]);
    let rows = bed.site.store.load_documents("counters", &["bad".into()]).await.expect("load");
    assert_eq!(rows[0].parked.as_deref(), Some(stream("bad").as_str()));
    let checkpoints = bed.site.store.checkpoints(&streams()).await.expect("checkpoints");
    assert_eq!(checkpoints.iter().map(|it| it.0).sum::<i64>(), 3, "the partition goes on");
    process.stop(Duration::from_secs(10)).await;
}
