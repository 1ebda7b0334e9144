//! What all parts of a simulated history share: the store, the road, the time, the dice, the trace.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Dice, Fault, FaultCounts,
    trace::{Noted, Trace},
};
use crate::{
    broker::{OutboundMessage, local::LocalBroker},
    immediate::AsyncCommandProcessor,
    ingress::GroupCommit,
    message::Timestamp,
    store::sqlite::SqliteStore,
};

/// When every history begins.
const BEGINNING: Timestamp = time::macros::datetime!(2026-01-01 00:00 UTC);

pub(super) struct World {
    pub(super) store: Arc<SqliteStore>,
    pub(super) broker: LocalBroker,
    pub(super) clock: Arc<Clock>,
    /// Whether things go wrong at present.
    armed: AtomicBool,
    dice: Mutex<Dice>,
    trace: Mutex<Trace>,
    faults: Mutex<FaultCounts>,
    /// The doors for commands of the processes that have an ingress and are up.
    doors: Mutex<Vec<Door>>,
    /// Counts what clients do, to tell what came before what.
    moments: AtomicU64,
    pub(super) road: Road,
}

/// The store's time: what tokio's paused clock counts, and the jumps.
pub(super) struct Clock {
    started: Instant,
    jumped_ms: AtomicI64,
    /// From when to when, by the store's time.
    jumps: Mutex<Vec<(Timestamp, Timestamp)>>,
}

impl Clock {
    pub(super) fn starting_now() -> Self {
        Self { started: Instant::now(), jumped_ms: AtomicI64::new(0), jumps: Mutex::default() }
    }

    /// The time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        let jumped = self.jumped_ms.load(Ordering::Relaxed).unsigned_abs();
        self.started.elapsed() + Duration::from_millis(jumped)
    }

    pub(super) fn now(&self) -> Timestamp {
        BEGINNING + self.elapsed()
    }

    pub(super) fn jump(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let from = self.now();
        self.jumped_ms.fetch_add(by, Ordering::Relaxed);
        self.jumps.lock().unwrap_or_else(PoisonError::into_inner).push((from, self.now()));
    }

    /// How much time passed between two times of the store, in microseconds, without the jumps: as
    /// long as anybody had to notice.
    pub(super) fn passed(&self, from: i64, to: i64) -> i64 {
        let micros = |time: Timestamp| {
            i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
        };
        let jumps = self.jumps.lock().unwrap_or_else(PoisonError::into_inner);
        let jumped = jumps
            .iter()
            .map(|(before, after)| (micros(*after).min(to) - micros(*before).max(from)).max(0));
        to - from - jumped.sum::<i64>()
    }
}

/// What is special about the road.
#[derive(Default)]
pub(super) struct Road {
    /// Nobody can use it at present.
    pub(super) away: AtomicBool,
    /// How often all connections broke.
    pub(super) breaks: AtomicU64,
    /// Messages with log entries that were on it lately, for whoever makes foreign ones of them.
    pub(super) lately: Mutex<Vec<OutboundMessage>>,
}

/// Where commands go in.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) gate: Arc<Gate>,
    /// The queued lane.
    pub(super) commit: GroupCommit,
    pub(super) immediate: AsyncCommandProcessor,
}

impl World {
    pub(super) fn new(
        store: Arc<SqliteStore>,
        broker: LocalBroker,
        clock: Arc<Clock>,
        dice: Dice,
        prints: bool,
    ) -> Self {
        Self {
            store,
            broker,
            clock,
            armed: AtomicBool::new(true),
            dice: Mutex::new(dice),
            trace: Mutex::new(Trace::new(prints)),
            faults: Mutex::default(),
            doors: Mutex::default(),
            moments: AtomicU64::new(0),
            road: Road::default(),
        }
    }

    pub(super) fn dice(&self) -> MutexGuard<'_, Dice> {
        lock(&self.dice)
    }

    pub(super) fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    pub(super) fn faults(&self) -> FaultCounts {
        lock(&self.faults).clone()
    }

    pub(super) fn doors(&self) -> MutexGuard<'_, Vec<Door>> {
        lock(&self.doors)
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Whether a fault that occurs so often in 10,000 times occurs now; counts it.
    pub(super) fn strikes(&self, fault: Fault, in_ten_thousand: u64) -> bool {
        let strikes = self.is_armed() && self.dice().happens(in_ten_thousand);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    pub(super) fn count(&self, fault: Fault) {
        *lock(&self.faults).entry(fault).or_default() += 1;
        self.remark(format_args!("fault: {}", fault.name()));
    }

    /// What clients do has an order.
    pub(super) fn next_moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn step(&self, node: &str, what: &str, asked: &Noted, came: &dyn fmt::Debug) {
        self.trace().step(self.clock.elapsed().as_micros(), node, what, asked, came);
    }

    pub(super) fn remark(&self, text: fmt::Arguments<'_>) {
        self.trace().remark(self.clock.elapsed().as_micros(), text);
    }

    /// Lets others go first, for a while that the dice decide: most often none.
    pub(super) async fn dawdle(&self) {
        let wait = {
            let mut dice = self.dice();
            match dice.below(100) {
                0..70 => None,
                70..94 => Some(dice.millis(0, 2)),
                94..99 => Some(dice.millis(2, 20)),
                _ => Some(dice.millis(20, 400)),
            }
        };
        match wait {
            None => tokio::task::yield_now().await,
            Some(wait) => tokio::time::sleep(wait).await,
        }
    }
}

/// Between one incarnation of a process and the world. A dead process passes no more: whatever of it
/// still runs stops at its next call, for ever.
pub(super) struct Gate {
    /// As traces name the process.
    pub(super) name: String,
    dead: CancellationToken,
    paused: AtomicBool,
    resumed: Notify,
    cut_off: AtomicBool,
}

impl Gate {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            dead: CancellationToken::new(),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            cut_off: AtomicBool::new(false),
        }
    }

    /// Passes when the process is alive and not paused.
    pub(super) async fn pass(&self) {
        loop {
            if self.dead.is_cancelled() {
                std::future::pending::<()>().await;
            }
            let resumed = self.resumed.notified();
            if !self.paused.load(Ordering::Relaxed) {
                return;
            }
            resumed.await;
        }
    }

    pub(super) fn kill(&self) {
        self.dead.cancel();
        self.resumed.notify_waiters();
    }

    pub(super) async fn died(&self) {
        self.dead.cancelled().await;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub(super) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    pub(super) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        self.resumed.notify_waiters();
    }

    pub(super) fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }
}

/// A time as callers write it.
pub(super) fn rfc3339(time: Timestamp) -> String {
    // Every time of a history has four digits for its year.
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_of_the_clock_are_no_time_that_passed() {
        let clock = Clock::starting_now();
        let now = || i64::try_from(clock.now().unix_timestamp_nanos() / 1_000).unwrap();
        let hour = 3_600_000_000;
        let before = now();
        clock.jump(Duration::from_hours(1));
        let after = now();
        clock.jump(Duration::from_hours(2));
        let (second, minute) = (1_000_000, 60_000_000);
        assert!(now() - before >= 3 * hour);
        assert!((0..second).contains(&clock.passed(before, now())));
        assert!((0..second).contains(&clock.passed(before + minute, after + hour)));
        assert!((0..second).contains(&(clock.passed(before - minute, after) - minute)));
    }
}
