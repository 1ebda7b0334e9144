//! The circuit breaker of a group in this process. Parking is for one key that cannot go on; the
//! breaker is for a group in which nothing can, for one reason: a view whose code fails at every
//! stream, say. While it is open, nothing is parked and no attempt is burnt, until a probe shows that
//! something can be applied.
//!
//! It counts keys, not tries: a key that fails is one, however often its event is tried, so that one
//! poisonous event opens nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::HandlerRun;
use crate::{
    dead_letter::fingerprint,
    execute::{Breaker, BreakerSettings, BreakerState, breaker::Admission},
    message::{Failure, GroupName, Partition, StreamId},
    observe::names,
};

/// How much later than the others the partition comes again whose probe failed: the next probe is
/// another one's, if another one has something to do.
const BEHIND_THE_OTHERS: Duration = Duration::from_millis(250);

/// How long nobody has asked, besides the longest pauses, when nobody is there any more.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Whether a group's events are applied by this process.
pub struct GroupBreaker {
    group: GroupName,
    settings: BreakerSettings,
    inside: Mutex<Inside>,
    /// Closed, and nothing to remember: what goes well need not be told.
    calm: AtomicBool,
}

struct Inside {
    breaker: Breaker,
    /// Why it opened.
    reason: String,
    /// When each partition was probed last: a count of probes.
    probed: BTreeMap<Partition, u64>,
    probes: u64,
    /// When somebody had something to apply.
    asked_at: Instant,
}

impl GroupBreaker {
    pub(super) fn new(group: GroupName, settings: BreakerSettings) -> Self {
        let inside = Inside {
            breaker: Breaker::new(settings),
            reason: String::new(),
            probed: BTreeMap::new(),
            probes: 0,
            asked_at: Instant::now(),
        };
        Self { group, settings, inside: Mutex::new(inside), calm: AtomicBool::new(true) }
    }

    /// Whose it is.
    pub fn group(&self) -> &GroupName {
        &self.group
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        if self.is_calm() {
            return BreakerState::Closed;
        }
        let mut inside = self.lock();
        self.forget_if_gone(&mut inside);
        inside.breaker.state()
    }

    /// Whoever pauses asks again and again. If nobody does, its partitions are another process's by
    /// now, and nothing pauses here any more.
    fn forget_if_gone(&self, inside: &mut Inside) {
        let before = inside.breaker.state();
        let longest = self.settings.open_for.max(self.settings.open_at_most);
        if before == BreakerState::Open && inside.asked_at.elapsed() > 2 * longest + GONE_AFTER {
            inside.breaker = Breaker::new(self.settings);
            self.tell(before, inside, None);
        }
    }

    /// Whether it is closed and nothing failed lately.
    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Acquire)
    }

    /// Whether something may be applied now.
    pub(super) fn ask(&self) -> Admission {
        if self.is_calm() {
            return Admission::Go;
        }
        let mut inside = self.lock();
        let before = inside.breaker.state();
        let now = Instant::now();
        inside.asked_at = now;
        let admission = inside.breaker.ask(now);
        self.tell(before, &inside, None);
        admission
    }

    /// Which of these runs is the probe: that of the partition whose turn was the longest ago.
    pub(super) fn choose_probe(&self, runs: &[HandlerRun]) -> usize {
        let mut inside = self.lock();
        let last = |run: &HandlerRun| inside.probed.get(&run.partition).copied();
        let chosen = (0..runs.len()).min_by_key(|place| runs.get(*place).map(last));
        let chosen = chosen.unwrap_or_default();
        inside.probes += 1;
        let count = inside.probes;
        if let Some(run) = runs.get(chosen) {
            inside.probed.insert(run.partition, count);
        }
        chosen
    }

    /// Whether what is applied now is a probe: groups apply one batch at a time.
    pub(super) fn is_probing(&self) -> bool {
        self.state() == BreakerState::HalfOpen
    }

    /// How long nothing is to be applied, if it is open.
    pub(super) fn pause(&self) -> Option<Duration> {
        if self.is_calm() {
            return None;
        }
        let inside = self.lock();
        let open = inside.breaker.state() == BreakerState::Open;
        open.then(|| inside.breaker.rests(Instant::now()))
    }

    /// The same for the partition whose probe failed just now.
    pub(super) fn pause_of_the_probed(&self) -> Option<Duration> {
        self.pause().map(|pause| pause + BEHIND_THE_OTHERS.min(pause / 2))
    }

    /// Events of these streams were applied.
    pub(super) fn applied<'a>(&self, streams: impl Iterator<Item = &'a StreamId>) {
        let mut inside = self.lock();
        let before = inside.breaker.state();
        for stream in streams.take(self.settings.window.max(1)) {
            inside.breaker.succeeded_for(stream.as_str());
        }
        self.tell(before, &inside, None);
    }

    /// The events of a key cannot be applied, however often they are tried. Whether it is still
    /// closed: the key is to be parked.
    pub(super) fn failed(&self, key: &str, failure: &Failure) -> bool {
        let mut inside = self.lock();
        let before = inside.breaker.state();
        inside.asked_at = Instant::now();
        let reason = self.reason(failure);
        inside.breaker.failed_for(key, &reason, Instant::now());
        if before == BreakerState::Closed && inside.breaker.state() == BreakerState::Open {
            inside.reason = reason;
        }
        self.tell(before, &inside, Some(failure));
        inside.breaker.state() == BreakerState::Closed
    }

    /// Whether it is open for this reason.
    pub(super) fn is_open_for(&self, failure: &Failure) -> bool {
        self.lock().reason == self.reason(failure)
    }

    /// What a probe failed for has nothing to do with why it opened, or concerns one key only.
    pub(super) fn probe_succeeded(&self) {
        let mut inside = self.lock();
        let before = inside.breaker.state();
        inside.breaker.succeeded();
        self.tell(before, &inside, None);
    }

    /// A probe has ended. If nothing was applied and nothing failed, another one may follow at once.
    pub(super) fn probe_ended(&self) {
        self.lock().breaker.probe_told_nothing();
    }

    /// The event's type does not count: code that fails everywhere fails at every type.
    fn reason(&self, failure: &Failure) -> String {
        fingerprint(self.group.as_str(), &failure.code, &failure.message)
    }

    fn tell(&self, before: BreakerState, inside: &Inside, why: Option<&Failure>) {
        self.calm.store(inside.breaker.is_idle(), Ordering::Release);
        let (group, after) = (self.group.to_string(), inside.breaker.state());
        if before == after {
            return;
        }
        metrics::gauge!(names::BREAKER_STATE, "group" => group.clone())
            .set(f64::from(after.code()));
        if after != BreakerState::Open {
            tracing::info!(group, state = after.as_str(), "the group's breaker changed");
            return;
        }
        let error = why.map(|failure| failure.message.as_str()).unwrap_or_default();
        let pause = inside.breaker.rests(Instant::now());
        if before == BreakerState::Closed {
            metrics::counter!(names::BREAKER_OPENED_TOTAL, "group" => group.clone()).increment(1);
            tracing::error!(
                group,
                error,
                ?pause,
                "the events of most keys failed for one reason: the group pauses here"
            );
        } else {
            tracing::warn!(group, error, ?pause, "the probe failed: the group goes on pausing");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Offset;

    fn breaker() -> GroupBreaker {
        let settings = BreakerSettings { min_calls: 3, ..BreakerSettings::default() };
        GroupBreaker::new(GroupName::projection("balances"), settings)
    }

    fn failure(message: &str) -> Failure {
        Failure::new("projection_failed", message)
    }

    fn runs(partitions: &[i16]) -> Vec<HandlerRun> {
        let run = |it: &i16| HandlerRun::new(Partition(*it), Offset(0), Vec::new());
        partitions.iter().map(run).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_counted_and_not_their_tries() {
        let breaker = breaker();
        assert!(breaker.is_calm());
        for _ in 0..50 {
            assert!(breaker.failed("account/a", &failure("no rate 1")), "one key");
        }
        assert!(breaker.failed("account/b", &failure("no rate 2")));
        assert_eq!((breaker.pause(), breaker.is_calm()), (None, false));
        assert!(!breaker.failed("account/c", &failure("no rate 3")), "it opens");
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.pause(), Some(Duration::from_secs(5)));
        assert!(breaker.is_open_for(&failure("no rate 9")));
        assert!(!breaker.is_open_for(&failure("no account")));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_open_for_ever_where_nobody_has_anything_to_apply() {
        let breaker = breaker();
        for key in ["a", "b", "c"] {
            breaker.failed(key, &failure("no"));
        }
        for _ in 0..10 {
            tokio::time::advance(Duration::from_mins(1)).await;
            assert_eq!(breaker.ask(), Admission::Probe, "somebody waits");
            breaker.failed("d", &failure("no"));
            assert_eq!(breaker.state(), BreakerState::Open);
        }
        tokio::time::advance(Duration::from_mins(3)).await;
        assert_eq!((breaker.state(), breaker.is_calm()), (BreakerState::Closed, true));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_go_well_keep_it_closed() {
        let breaker = breaker();
        let healthy: Vec<StreamId> =
            (0..10).map(|n| format!("account/h{n}").parse().unwrap()).collect();
        for n in 0..10 {
            assert!(breaker.failed(&format!("account/{n}"), &failure("no")), "{n}");
            breaker.applied(healthy.iter());
            if n == 2 {
                assert_eq!(breaker.state(), BreakerState::Closed, "three of thirteen");
            }
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn each_partition_is_probed_in_turn_until_something_is_applied() {
        let breaker = breaker();
        for key in ["a", "b", "c"] {
            breaker.failed(key, &failure("no"));
        }
        assert!(matches!(breaker.ask(), Admission::Wait(_)));
        let mut probed = Vec::new();
        for _ in 0..3 {
            tokio::time::advance(Duration::from_mins(2)).await;
            assert_eq!(breaker.ask(), Admission::Probe);
            let runs = runs(&[0, 1, 2]);
            probed.push(runs[breaker.choose_probe(&runs)].partition.0);
            assert!(!breaker.failed("d", &failure("no")));
            assert!(breaker.pause_of_the_probed() > breaker.pause());
        }
        assert_eq!(probed, [0, 1, 2]);
        tokio::time::advance(Duration::from_mins(2)).await;
        assert_eq!(breaker.ask(), Admission::Probe);
        // Nothing was in it that the group wants.
        breaker.probe_ended();
        assert_eq!(breaker.ask(), Admission::Probe);
        breaker.applied(std::iter::once(&"account/a".parse().unwrap()));
        assert_eq!((breaker.ask(), breaker.is_calm()), (Admission::Go, true));
    }
}
