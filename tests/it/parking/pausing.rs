//! A projection that fails at every key pauses, instead of parking them all; one that fails at one
//! key does not.

use std::time::{Duration, Instant};

use adjutant::{
    execute::{BreakerSettings, BreakerState},
    ingress::IngressSettings,
    message::{GroupName, Partition},
    observe::{
        BreakersCheck, HealthCheck as _, install_metrics,
        notify::{ConditionSource as _, OpenBreakers},
    },
    service::Process,
    store::Replay,
    worker::BreakerOf,
};

use super::{
    Bed,
    moody::{self, Harm, POISON},
    streams,
};
use crate::support::{eventually, http::Api};

const MIN_CALLS: usize = 4;
const GROUP: &str = "projection.counters";

/// A bed whose breakers open soon, and stay open for so long at first.
async fn bed(open_for: Duration) -> Bed {
    let mut bed = Bed::new().await;
    bed.parking.breaker = BreakerSettings {
        min_calls: MIN_CALLS,
        open_for,
        open_at_most: open_for * 2,
        ..BreakerSettings::default()
    };
    bed
}

const SHORT: Duration = Duration::from_millis(100);

fn is_paused(process: &Process) -> bool {
    let open = process.breakers().open();
    open.iter().any(|(of, _)| *of == BreakerOf::Group(GroupName::projection("counters")))
}

async fn until_paused(process: &Process) {
    eventually("the group pauses", async || is_paused(process).then_some(())).await;
}

/// Amounts that harm, for many streams of every partition.
fn poison_for_all() -> Vec<(String, i64)> {
    (0..32).map(|n| (format!("c{n}"), POISON)).collect()
}

fn borrowed(amounts: &[(String, i64)]) -> Vec<(&str, i64)> {
    amounts.iter().map(|(counter, amount)| (counter.as_str(), *amount)).collect()
}

/// For each partition the stream whose event stands behind the checkpoint.
async fn streams_in_front(bed: &Bed) -> Vec<(Partition, String)> {
    let rows: Vec<(i16, String)> = sqlx::query_as(
        "SELECT DISTINCT ON (e.partition) e.partition, e.stream FROM adjutant.events e
          WHERE e.\"offset\" > coalesce((SELECT max(c.reached) FROM adjutant.checkpoints c
                WHERE c.group_name = $1 AND c.partition = e.partition), 0)
          ORDER BY e.partition, e.\"offset\"",
    )
    .bind(GROUP)
    .fetch_all(&bed.site.database.pool().await)
    .await
    .expect("streams");
    rows.into_iter().map(|(partition, stream)| (Partition(partition), stream)).collect()
}

/// Broken by parking while it is open, by replaying while it is open, and by a probe that closes
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projection_that_fails_at_every_stream_pauses_and_parks_few_keys() {
    install_metrics().expect("metrics");
    let bed = bed(SHORT).await;
    bed.moods.set("counters", Harm::Fails);
    let process = bed.start().await;
    let poison = poison_for_all();
    bed.send(&process, &borrowed(&poison)).await;
    until_paused(&process).await;

    // Probes fail, other groups go on, and nothing more is parked.
    let before = bed.moods.failures();
    eventually("it is probed again and again", async || {
        (bed.moods.failures() >= before + 100).then_some(())
    })
    .await;
    let all = eventually("another view has all", async || {
        let sum = bed.sum("totals", "all").await;
        (sum.0 == 32).then_some(sum)
    })
    .await;
    assert_eq!(all, (32, 32 * POISON));
    let parked = bed.parked(&streams()).await;
    assert_eq!(parked.len(), MIN_CALLS - 1, "those that failed before it opened");
    is_shown(&bed, &process).await;

    // A replay that is asked for waits, and burns nothing.
    bed.ask(parked[0].dead_letter, Replay::Retry).await;
    let before = bed.moods.failures();
    eventually("it is probed again and again", async || {
        (bed.moods.failures() >= before + 100).then_some(())
    })
    .await;
    assert!(is_paused(&process));
    let now = bed.parked(&streams()).await;
    assert_eq!(now.len(), parked.len());
    assert!(now.iter().all(|key| key.attempts == 3 && key.begun == 0), "{now:?}");

    bed.moods.heal();
    bed.site.until_applied().await;
    eventually("it goes on", async || (!is_paused(&process)).then_some(())).await;
    for key in &parked[1..] {
        bed.ask(key.dead_letter, Replay::Retry).await;
    }
    bed.until_unparked().await;
    bed.send(&process, &borrowed(&poison)).await;
    bed.site.until_applied().await;
    bed.assert_folds().await;
    let closed = format!("adjutant_breaker_state{{group=\"{GROUP}\"}} 0");
    let metrics = install_metrics().expect("metrics").render();
    assert!(metrics.lines().any(|line| line == closed), "{metrics}");
    process.stop(Duration::from_secs(10)).await;
}

/// Everywhere where a person may look.
async fn is_shown(bed: &Bed, process: &Process) {
    let check = BreakersCheck::default();
    check.watch(process.breakers().clone());
    let told = OpenBreakers { breakers: process.breakers().clone(), process: "here".into() };
    let api = Api::start(
        moody::service(&bed.moods),
        bed.site.store.clone(),
        process.signals(),
        IngressSettings::default(),
    );
    eventually("the probe for readiness says so", async || {
        check.check().await.err().filter(|said| said.starts_with(GROUP))
    })
    .await;
    let seen = told.look().await.expect("look");
    let subjects: Vec<&str> = seen.iter().map(|seen| seen.subject.as_str()).collect();
    assert_eq!(subjects, ["projection.counters in here"]);
    let projections = eventually("the heartbeat says so", async || {
        let body = api.get("/v1/projections").await.json();
        let counters = body["items"].as_array()?.iter().find(|it| it["name"] == "counters")?;
        (counters["state"] == "suspended").then(|| counters.clone())
    })
    .await;
    let suspended = projections["suspended_in"].as_array().expect("a list");
    assert_eq!((suspended.len(), &suspended[0]["process"]), (1, &"test".into()));
    let metrics = install_metrics().expect("metrics").render();
    let opened = format!("adjutant_breaker_opened_total{{group=\"{GROUP}\"}}");
    assert!(metrics.lines().any(|line| line.starts_with(&opened)), "{metrics}");
}

/// Broken by counting tries instead of keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_key_pauses_nothing() {
    let mut bed = bed(Duration::from_hours(1)).await;
    bed.parking.tries = 3 * MIN_CALLS as u32;
    bed.moods.set("counters", Harm::Fails);
    let process = bed.start().await;
    bed.send(&process, &[("bad", POISON), ("bad", 1), ("a", 1)]).await;
    // It fails again with each replay, and nothing else happens meanwhile.
    let mut letter = bed.until_parked(&streams(), 1).await.remove(0).dead_letter;
    for _ in 0..MIN_CALLS {
        bed.ask(letter, Replay::Retry).await;
        letter = eventually("it failed again", async || {
            let key = bed.parked(&streams()).await.pop()?;
            (key.dead_letter != letter).then_some(key.dead_letter)
        })
        .await;
    }
    assert!(!is_paused(&process));
    bed.send(&process, &[("a", 2), ("b", 3), ("bad", 4)]).await;
    bed.site.until_applied().await;
    assert_eq!(bed.sum("counters", "a").await, (2, 3));
    assert_eq!(bed.sum("counters", "b").await, (1, 3));
    assert!(!is_paused(&process));
    process.stop(Duration::from_secs(10)).await;
}

/// The cause is gone, but for the very events that the probes begin with. Broken by not looking
/// behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_event_in_front_of_every_probe_does_not_hold_up_the_rest() {
    let bed = bed(SHORT).await;
    bed.moods.set("counters", Harm::Fatal);
    let process = bed.start().await;
    bed.send(&process, &borrowed(&poison_for_all())).await;
    until_paused(&process).await;
    let before = bed.parked(&streams()).await.len();
    let front = streams_in_front(&bed).await;
    assert!(front.len() > 1, "several partitions wait");
    bed.moods.only(front.iter().map(|(_, stream)| stream.clone()));
    bed.site.until_applied().await;
    let parked = bed.until_parked(&streams(), before + front.len()).await;
    for (_, stream) in &front {
        assert!(parked.iter().any(|key| key.name.key == *stream), "{stream} is parked after all");
    }
    bed.moods.heal();
    for key in &parked {
        bed.ask(key.dead_letter, Replay::Retry).await;
    }
    bed.until_unparked().await;
    bed.assert_folds().await;
    process.stop(Duration::from_secs(10)).await;
}

/// A pause is long; whoever is to stop does not wait for its end. Another process, here with mended
/// code, takes over where the first one was. Broken by a wait that hears nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_pauses_stops_at_once_and_loses_nothing() {
    let bed = bed(Duration::from_hours(1)).await;
    bed.moods.set("counters", Harm::Fatal);
    let process = bed.start().await;
    bed.send(&process, &borrowed(&poison_for_all())).await;
    until_paused(&process).await;
    assert_eq!(process.breakers().open()[0].1, BreakerState::Open);
    let began = Instant::now();
    process.stop(Duration::from_secs(30)).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let parked = bed.parked(&streams()).await;
    assert_eq!(parked.len(), MIN_CALLS - 1);

    bed.moods.heal();
    let other = bed.start().await;
    bed.site.until_applied().await;
    for key in &parked {
        bed.ask(key.dead_letter, Replay::Retry).await;
    }
    bed.until_unparked().await;
    bed.assert_folds().await;
    other.stop(Duration::from_secs(10)).await;
}
