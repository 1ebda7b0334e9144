//! Circuit breakers. When most recent tries fail for the same reason, trying is suspended for a
//! while, then one probe at a time is let through; one that succeeds ends it. A breaker is one
//! process's knowledge: another process finds out by itself.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;
use xxhash_rust::xxh64::xxh64;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// How many recent tries count.
    pub window: usize,
    /// At least so many of them failed for the same reason.
    pub min_calls: usize,
    /// The share of the tries that failed (0 to 1) from which on it opens; over 1: never.
    pub threshold: f64,
    /// How long it stays open at first; each probe that fails doubles it.
    pub open_for: Duration,
    /// The longest it stays open without a probe.
    pub open_at_most: Duration,
}

impl Default for BreakerSettings {
    /// 20 of 40 for the same reason, 90 % failed; 5 s up to 60 s.
    fn default() -> Self {
        Self {
            window: 40,
            min_calls: 20,
            threshold: 0.9,
            open_for: Duration::from_secs(5),
            open_at_most: Duration::from_mins(1),
        }
    }
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything is tried.
    Closed,
    /// One probe at a time is tried.
    HalfOpen,
    /// Nothing is tried.
    Open,
}

impl BreakerState {
    /// The word used in HTTP and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// The number used in metrics: 0 closed, 1 half open, 2 open.
    pub fn code(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Whether something may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Yes, and what comes of it decides.
    Probe,
    /// Not before this time has passed.
    Wait(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Closed,
    Open {
        until: Instant,
        lasts: Duration,
    },
    /// A probe that was let through counts as lost after a while.
    HalfOpen {
        lasts: Duration,
        probe_until: Option<Instant>,
    },
}

/// The breaker of one command type, or of one group.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    /// Recent tries, oldest first.
    tries: VecDeque<Try>,
    state: State,
}

/// What came of a try.
#[derive(Clone, Debug)]
struct Try {
    /// What it was made for, as a hash; only the newest of one key counts. `None`: it counts.
    key: Option<u64>,
    /// Why it failed; `None`: it succeeded.
    reason: Option<String>,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, tries: VecDeque::new(), state: State::Closed }
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether it has nothing to remember: closed, and no recent try failed.
    pub fn is_idle(&self) -> bool {
        self.state == State::Closed && self.tries.iter().all(|it| it.reason.is_none())
    }

    /// Asks to try something.
    pub fn ask(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed => Admission::Go,
            State::Open { until, .. } if now < until => Admission::Wait(until - now),
            State::HalfOpen { probe_until: Some(until), lasts } if now < until => {
                Admission::Wait(lasts.min(self.settings.open_for))
            }
            State::Open { lasts, .. } | State::HalfOpen { lasts, .. } => {
                self.state = State::HalfOpen { lasts, probe_until: Some(now + lasts) };
                Admission::Probe
            }
        }
    }

    /// How long nothing is tried from now on; zero: something may be.
    pub fn rests(&self, now: Instant) -> Duration {
        match self.state {
            State::Open { until, .. } => until.saturating_duration_since(now),
            State::Closed | State::HalfOpen { .. } => Duration::ZERO,
        }
    }

    /// A try succeeded (or was no failure of the kind that counts).
    pub fn succeeded(&mut self) {
        self.went_well(None);
    }

    /// The same for a key of which only the newest try counts.
    pub fn succeeded_for(&mut self, key: &str) {
        self.went_well(Some(key));
    }

    /// A try failed for this reason.
    pub fn failed(&mut self, fingerprint: &str, now: Instant) {
        self.went_wrong(None, fingerprint, now);
    }

    /// The same for a key of which only the newest try counts: however often it is tried, it is one.
    pub fn failed_for(&mut self, key: &str, fingerprint: &str, now: Instant) {
        self.went_wrong(Some(key), fingerprint, now);
    }

    /// The probe told nothing: another one may follow at once.
    pub fn probe_told_nothing(&mut self) {
        if let State::HalfOpen { probe_until, .. } = &mut self.state {
            *probe_until = None;
        }
    }

    fn went_well(&mut self, key: Option<&str>) {
        match self.state {
            State::Closed => self.remember(key, None),
            State::HalfOpen { .. } => {
                self.state = State::Closed;
                self.tries.clear();
            }
            // It was begun before the breaker opened.
            State::Open { .. } => {}
        }
    }

    fn went_wrong(&mut self, key: Option<&str>, fingerprint: &str, now: Instant) {
        match self.state {
            State::Closed => {
                self.remember(key, Some(fingerprint.to_owned()));
                if self.must_open(fingerprint) {
                    self.open(self.settings.open_for, now);
                }
            }
            State::HalfOpen { lasts, .. } => {
                self.open((lasts * 2).min(self.settings.open_at_most), now);
            }
            State::Open { .. } => {}
        }
    }

    fn remember(&mut self, key: Option<&str>, reason: Option<String>) {
        let key = key.map(|key| xxh64(key.as_bytes(), 0));
        if key.is_some() {
            self.tries.retain(|other| other.key != key);
        }
        while self.tries.len() >= self.settings.window.max(1) {
            self.tries.pop_front();
        }
        self.tries.push_back(Try { key, reason });
    }

    fn must_open(&self, fingerprint: &str) -> bool {
        let same = |other: &&Try| other.reason.as_deref() == Some(fingerprint);
        let failed = self.tries.iter().filter(|other| other.reason.is_some()).count();
        let share = failed as f64 / self.tries.len().max(1) as f64;
        self.tries.iter().filter(same).count() >= self.settings.min_calls.max(1)
            && share >= self.settings.threshold
    }

    fn open(&mut self, lasts: Duration, now: Instant) {
        self.state = State::Open { until: now + lasts, lasts };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn small() -> Breaker {
        Breaker::new(BreakerSettings {
            window: 10,
            min_calls: 4,
            threshold: 0.8,
            open_for: SECOND,
            open_at_most: 3 * SECOND,
        })
    }

    fn fail(breaker: &mut Breaker, times: usize, now: Instant) {
        for _ in 0..times {
            breaker.failed("same", now);
        }
    }

    #[tokio::test]
    async fn it_opens_when_most_recent_tries_fail_for_the_same_reason() {
        let now = Instant::now();
        let mut breaker = small();
        fail(&mut breaker, 3, now);
        assert_eq!(breaker.ask(now), Admission::Go, "not enough of them");
        fail(&mut breaker, 1, now);
        assert_eq!(breaker.ask(now), Admission::Wait(SECOND));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test]
    async fn it_stays_closed_when_the_reasons_differ_or_most_tries_succeed() {
        let now = Instant::now();
        let mut breaker = small();
        for reason in ["a", "b", "c", "a", "b", "c", "a", "b", "c"] {
            breaker.failed(reason, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "three at most have one reason");
        let mut breaker = small();
        for _ in 0..20 {
            breaker.succeeded();
            breaker.failed("same", now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "half of them succeed");
    }

    #[tokio::test]
    async fn one_probe_at_a_time_decides_how_it_goes_on() {
        let start = Instant::now();
        let mut breaker = small();
        fail(&mut breaker, 4, start);
        let half_open = start + SECOND;
        assert_eq!(breaker.ask(half_open), Admission::Probe);
        assert_eq!(breaker.ask(half_open), Admission::Wait(SECOND), "one at a time");
        breaker.failed("same", half_open);
        assert_eq!(breaker.ask(half_open), Admission::Wait(2 * SECOND), "twice as long");
        let again = half_open + 2 * SECOND;
        assert_eq!(breaker.ask(again), Admission::Probe);
        breaker.failed("same", again);
        assert_eq!(breaker.ask(again), Admission::Wait(3 * SECOND), "bounded");
        assert_eq!(breaker.ask(again + 3 * SECOND), Admission::Probe);
        breaker.succeeded();
        assert_eq!(breaker.ask(again + 3 * SECOND), Admission::Go);
        assert!(breaker.is_idle());
        fail(&mut breaker, 3, again);
        assert_eq!(breaker.state(), BreakerState::Closed, "what was before is forgotten");
    }

    #[tokio::test]
    async fn of_a_key_only_the_newest_try_counts() {
        let now = Instant::now();
        let mut breaker = small();
        for _ in 0..20 {
            breaker.failed_for("bad", "same", now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "one key is one failure");
        // Each of these went well, and then not any more.
        for key in ["a", "b", "c"] {
            breaker.succeeded_for(key);
        }
        for key in ["a", "b"] {
            breaker.failed_for(key, "same", now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "three of four");
        breaker.failed_for("c", "same", now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.rests(now), SECOND);
        assert_eq!(breaker.rests(now + 2 * SECOND), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_probe_that_told_nothing_is_followed_at_once() {
        let start = Instant::now();
        let mut breaker = small();
        fail(&mut breaker, 4, start);
        assert_eq!(breaker.ask(start + SECOND), Admission::Probe);
        breaker.probe_told_nothing();
        assert_eq!(breaker.ask(start + SECOND), Admission::Probe);
    }

    #[tokio::test]
    async fn a_probe_that_nobody_hears_of_is_replaced() {
        let start = Instant::now();
        let mut breaker = small();
        fail(&mut breaker, 4, start);
        assert_eq!(breaker.ask(start + SECOND), Admission::Probe);
        assert_eq!(breaker.ask(start + 2 * SECOND), Admission::Probe);
    }
}
