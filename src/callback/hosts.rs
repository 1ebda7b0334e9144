//! How many requests a host may have at a time. One that works gets its share; one that was never
//! seen to work, or failed last, gets one at a time, and all of those together half of what there
//! is; one that fails again and again is left alone for a while. So hosts that hang or fail cannot
//! take the room of those that work.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::settings::HostBreaker;

/// How many hosts are remembered that have nothing in flight.
const MOST_REMEMBERED: usize = 10_000;

/// What this process knows of hosts.
pub(super) struct Hosts {
    per_host: usize,
    most_doubtful: usize,
    breaker: HostBreaker,
    known: BTreeMap<String, Host>,
}

#[derive(Default)]
struct Host {
    in_flight: usize,
    /// Whether it worked last.
    works: bool,
    /// Tries in a row that it failed.
    failures: u32,
    /// It is left alone until then.
    rests_until: Option<Instant>,
}

impl Hosts {
    pub(super) fn new(concurrency: usize, per_host: usize, breaker: HostBreaker) -> Self {
        let most_doubtful = (concurrency / 2).max(1);
        Self { per_host: per_host.max(1), most_doubtful, breaker, known: BTreeMap::new() }
    }

    /// How many more requests a host may have, if `doubtful` more are planned for hosts that are
    /// not known to work; and whether it is one of those.
    pub(super) fn room(&self, host: &str, doubtful: usize, now: Instant) -> (usize, bool) {
        let (in_flight, works, rests) = match self.known.get(host) {
            None => (0, false, false),
            Some(it) => (it.in_flight, it.works, it.rests_until.is_some_and(|until| now < until)),
        };
        if works {
            return (self.per_host.saturating_sub(in_flight), false);
        }
        let others = self.known.values().filter(|it| !it.works && it.in_flight > 0).count();
        let has_room = !rests && in_flight == 0 && others + doubtful < self.most_doubtful;
        (usize::from(has_room), true)
    }

    pub(super) fn begin(&mut self, host: &str) {
        self.known.entry(host.to_owned()).or_default().in_flight += 1;
    }

    /// A request has ended; `worked`: `None` says nothing about the host.
    pub(super) fn end(&mut self, host: &str, worked: Option<bool>, now: Instant) {
        let breaker = self.breaker;
        let Some(it) = self.known.get_mut(host) else { return };
        it.in_flight = it.in_flight.saturating_sub(1);
        match worked {
            None => {}
            Some(true) => {
                if it.failures >= breaker.failures {
                    tracing::info!(host, "a host takes callbacks again");
                }
                *it = Host { in_flight: it.in_flight, works: true, ..Host::default() };
            }
            Some(false) => {
                it.works = false;
                it.failures = it.failures.saturating_add(1);
                if let Some(again) = it.failures.checked_sub(breaker.failures) {
                    if again == 0 {
                        tracing::warn!(
                            host,
                            "a host takes no callbacks; it is left alone for a while"
                        );
                    }
                    let rest = breaker.rest.saturating_mul(1 << again.min(20));
                    it.rests_until = Some(now + rest.min(breaker.longest_rest));
                }
            }
        }
        self.forget_some();
    }

    /// The hosts that failed again and again.
    pub(super) fn failing(&self) -> Vec<String> {
        let is_failing = |it: &Host| it.failures >= self.breaker.failures;
        let failing = self.known.iter().filter(|(_, it)| is_failing(it));
        failing.map(|(host, _)| host.clone()).collect()
    }

    /// One that is forgotten is tried as if it had never been seen.
    fn forget_some(&mut self) {
        if self.known.len() > MOST_REMEMBERED {
            self.known.retain(|_, it| it.in_flight > 0 || it.failures > 0);
        }
        if self.known.len() > MOST_REMEMBERED {
            self.known.retain(|_, it| it.in_flight > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hosts() -> Hosts {
        let breaker = HostBreaker {
            failures: 3,
            rest: Duration::from_secs(10),
            longest_rest: Duration::from_secs(25),
        };
        Hosts::new(8, 4, breaker)
    }

    fn room(hosts: &Hosts, host: &str) -> usize {
        hosts.room(host, 0, Instant::now()).0
    }

    fn tried(hosts: &mut Hosts, host: &str, worked: bool) {
        hosts.begin(host);
        hosts.end(host, Some(worked), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_works_has_its_share_and_no_more() {
        let mut hosts = hosts();
        assert_eq!(room(&hosts, "a"), 1, "it was never seen to work");
        tried(&mut hosts, "a", true);
        assert_eq!(room(&hosts, "a"), 4);
        for left in [3, 2, 1, 0] {
            hosts.begin("a");
            assert_eq!(room(&hosts, "a"), left);
        }
        hosts.end("a", None, Instant::now());
        assert_eq!(room(&hosts, "a"), 1);
        hosts.end("a", Some(false), Instant::now());
        assert_eq!(room(&hosts, "a"), 0, "it failed, and has two in flight");
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_hang_take_half_of_the_room() {
        let mut hosts = hosts();
        for host in ["a", "b", "c", "d"] {
            assert_eq!(room(&hosts, host), 1);
            hosts.begin(host);
        }
        assert_eq!(room(&hosts, "e"), 0, "half of eight are in flight");
        let works = Host { works: true, ..Host::default() };
        hosts.known.insert("f".to_owned(), works);
        assert_eq!(room(&hosts, "f"), 4);
        hosts.end("a", Some(true), Instant::now());
        assert_eq!(room(&hosts, "e"), 1);
        assert_eq!(hosts.room("e", 1, Instant::now()), (0, true), "another one is planned");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_fails_again_and_again_rests_longer_each_time() {
        let mut hosts = hosts();
        for _ in 0..2 {
            tried(&mut hosts, "a", false);
        }
        assert_eq!((room(&hosts, "a"), hosts.failing().len()), (1, 0));
        for rest in [10, 20, 25, 25] {
            tried(&mut hosts, "a", false);
            assert_eq!(hosts.failing(), ["a"]);
            tokio::time::advance(Duration::from_secs(rest - 1)).await;
            assert_eq!(room(&hosts, "a"), 0, "it rests for {rest} s");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(room(&hosts, "a"), 1, "one says whether it is back");
        }
        tried(&mut hosts, "a", true);
        assert_eq!((room(&hosts, "a"), hosts.failing().len()), (4, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_hosts_are_remembered() {
        let mut hosts = hosts();
        hosts.begin("busy");
        for i in 0..=MOST_REMEMBERED {
            tried(&mut hosts, &format!("host{i}"), i % 2 == 0);
        }
        assert!(hosts.known.len() <= MOST_REMEMBERED);
        assert_eq!(room(&hosts, "busy"), 0, "what is in flight is counted on");
    }
}
