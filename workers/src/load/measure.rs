//! One measured load: sends, watches every stage, and puts the figures together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    BatchSizes, CpuMeter, CpuSeconds, Entries, Load, LoadError, MemoryMeter, Percentiles, Plan,
    Reached, Sent, Sources, Watch, Watermarks, batch_sizes, clock,
};
use crate::database::Source;

/// How long commands that are still followed may take after everything is visible.
const LAST_FOLLOWED: Duration = Duration::from_secs(30);

/// What a measurement ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Every command is accepted.
    Accepted,
    /// Every command is executed and every event is visible.
    Visible,
}

/// A load and where to look while it runs.
pub struct Measurement<'a> {
    /// What is sent.
    pub plan: Plan,
    /// The database behind the API.
    pub database: &'a Source,
    /// The broker, for its CPU time; empty if unknown.
    pub amqp_url: &'a str,
    /// What it ends with.
    pub wait_for: WaitFor,
    /// Give up when nothing has moved for so long.
    pub patience: Duration,
}

/// How far every stage is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    /// Commands accepted.
    pub accepted: u64,
    /// Commands executed.
    pub executed: u64,
    /// Events in the log.
    pub events: u64,
    /// Events that every view shows.
    pub visible: u64,
}

impl Stages {
    /// Commands that are behind us, as far as backlog goes: executed, and their share of the events
    /// visible.
    fn unhindered(&self) -> u64 {
        self.executed.saturating_sub(self.events.saturating_sub(self.visible))
    }
}

/// The figures.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What came of sending.
    pub sent: Sent,
    /// Events that were caused.
    pub events: u64,
    /// Commands accepted a second.
    pub accepted_per_second: f64,
    /// Commands completed a second, from the first request to the last outcome.
    pub completed_per_second: f64,
    /// Commands a second, from the first request until every view showed everything.
    pub visible_per_second: f64,
    /// From when a command was (to be) sent to its answer.
    pub submit_to_accepted: Percentiles,
    /// … to its outcome, of those that were followed.
    pub submit_to_outcome: Percentiles,
    /// … until the view `balances` showed it, of those that were followed.
    pub submit_to_visible: Percentiles,
    /// Commands that were followed and lost from sight.
    pub lost_from_sight: u64,
    /// Mean batch sizes.
    pub batch_sizes: BatchSizes,
    /// The most memory, in MiB: of this process, or of the largest process of a service that runs
    /// elsewhere on this machine.
    pub rss_mb: f64,
    /// Memory of this process each second, in MiB.
    pub rss_mb_by_second: Vec<f64>,
    /// CPU time of all parts.
    pub cpu: CpuSeconds,
    /// How entries came to each group.
    pub entries: BTreeMap<String, Entries>,
}

impl Measured {
    /// Entries of all groups, by where they came from.
    pub fn all_entries(&self) -> Entries {
        self.entries.values().fold(Entries::default(), |sum, group| Entries {
            broker: sum.broker + group.broker,
            log: sum.log + group.log,
        })
    }

    /// CPU seconds of all parts for 1,000 commands.
    pub fn cpu_per_thousand(&self) -> f64 {
        self.cpu.all() * 1_000.0 / self.sent.accepted.max(1) as f64
    }
}

/// Measures. `show` is told of every stage while it runs.
pub async fn measure(
    measurement: Measurement<'_>,
    show: impl Fn(&Stages),
) -> Result<Measured, LoadError> {
    let Measurement { plan, database, amqp_url, wait_for, patience } = measurement;
    let followers = plan.followers.clone();
    let mut watch = Watch::new(database, patience);
    let sources = Sources::watch(&plan.target, clock(database).await?).await;
    let before = watch.look().await?;
    let since = clock(database).await?;
    let memory = MemoryMeter::start();
    let mut cpu = CpuMeter::start(database, amqp_url).await;
    let seconds = SecondBySecond::default();

    let (load, sending) = Load::start(plan);
    let all_sent = Arc::new(AtomicBool::new(false));
    let sent = async {
        let sent = sending.await;
        all_sent.store(true, Ordering::Release);
        Ok(sent)
    };
    let watching = async {
        let stages = |marks: &Watermarks| stages_since(&before, marks, load.accepted());
        let mut last_seen = Instant::now();
        watch
            .until(
                wait_for,
                || all_sent.load(Ordering::Acquire),
                |marks| {
                    if last_seen.elapsed() > Duration::from_millis(250) {
                        last_seen = Instant::now();
                        cpu.see(&sources.process_ids());
                    }
                    seconds.see(load.started());
                    let stages = stages(marks);
                    load.finished(stages.unhindered());
                    show(&stages);
                },
            )
            .await
    };
    let (sent, reached) = tokio::try_join!(sent, watching)?;
    cpu.see(&sources.process_ids());
    let used = cpu.used();
    if let Some(followers) = &followers {
        // What is not followed to its end by then is missing among the samples.
        let _ = tokio::time::timeout(LAST_FOLLOWED, followers.finish()).await;
    }
    let after = watch.look().await?;
    let stages = stages_since(&before, &after, sent.accepted);
    let entries = match wait_for {
        WaitFor::Visible => sources.finish(stages.executed, stages.events).await,
        WaitFor::Accepted => BTreeMap::new(),
    };
    let took = |end: Option<Instant>| {
        end.map_or(f64::INFINITY, |end| end.duration_since(load.started()).as_secs_f64())
    };
    let rate = |seconds: f64| sent.accepted as f64 / seconds.max(1e-6);
    let Reached { completed, visible } = reached;
    let percentiles = |which: fn(&super::Followers) -> &super::Latency| {
        followers.as_ref().map(|followers| which(followers).percentiles()).unwrap_or_default()
    };
    Ok(Measured {
        events: stages.events,
        accepted_per_second: rate(sent.took.as_secs_f64()),
        completed_per_second: rate(took(completed)),
        visible_per_second: rate(took(visible)),
        submit_to_accepted: load.answered().percentiles(),
        submit_to_outcome: percentiles(super::Followers::to_outcome),
        submit_to_visible: percentiles(super::Followers::to_visible),
        lost_from_sight: followers.map_or(0, |followers| followers.lost()),
        batch_sizes: batch_sizes(database, since).await?,
        rss_mb: if cpu.largest_process_mb() > 0.0 {
            cpu.largest_process_mb()
        } else {
            memory.peak_mb()
        },
        rss_mb_by_second: seconds.take(),
        cpu: used,
        entries,
        sent,
    })
}

fn stages_since(before: &Watermarks, now: &Watermarks, accepted: u64) -> Stages {
    let since = |before: i64, now: i64| u64::try_from(now - before).unwrap_or_default();
    Stages {
        accepted,
        executed: since(before.executed, now.executed),
        events: since(before.events, now.events),
        visible: since(before.visible(), now.visible()),
    }
}

/// Memory at the end of each second.
#[derive(Default)]
struct SecondBySecond(Mutex<Vec<f64>>);

impl SecondBySecond {
    fn see(&self, started: Instant) {
        let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if started.elapsed().as_secs() as usize >= seconds.len() {
            seconds.push(MemoryMeter::now() as f64 / 1_048_576.0);
        }
    }

    fn take(self) -> Vec<f64> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
