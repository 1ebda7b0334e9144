//! Sends commands over many connections: as fast as answers come, or at a rate. A command without a
//! final answer is sent again with the same id.

mod batch;
mod single;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub(super) use batch::{NDJSON, batch_uri, line_results};
use uuid::Uuid;

use super::{AnswersFile, Connection, Followers, Kind, Latency, Target, Workload};

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many commands.
    Commands(u64),
    /// After so long.
    Elapsed(Duration),
}

/// What is sent, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The API.
    pub target: Target,
    /// The commands.
    pub workload: Workload,
    /// When it ends.
    pub until: Until,
    /// How many connections send.
    pub connections: u32,
    /// How many commands a request carries; 1: the endpoint for single commands.
    pub batch: u32,
    /// For how many seconds a request waits for the end of its command: an answer is an outcome then.
    pub wait: Option<u32>,
    /// Commands a second. Then latency counts from the moment a command was due, sent late or not
    /// (otherwise a slow service would slow down the question, and hide its slowness).
    pub rate: Option<f64>,
    /// How many accepted commands may be unfinished; further ones wait. Without it a load that is
    /// accepted faster than executed grows a backlog.
    pub max_unfinished: Option<u64>,
    /// Who follows a sample of the commands.
    pub followers: Option<Followers>,
    /// Where answers are recorded.
    pub answers: Option<Arc<AnswersFile>>,
}

/// A load that runs.
#[derive(Clone, Debug)]
pub struct Load(Arc<State>);

#[derive(Debug)]
struct State {
    plan: Plan,
    started: Instant,
    next: AtomicU64,
    accepted: AtomicU64,
    ended: AtomicU64,
    finished: AtomicU64,
    must_be_rejected: AtomicU64,
    refused: AtomicU64,
    repeated: AtomicU64,
    first_refusal: Mutex<Option<String>>,
    answered: Latency,
    /// Microseconds from the start to the last answer.
    last_answer: AtomicU64,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Commands that were accepted.
    pub accepted: u64,
    /// Of those, commands that had ended when they were answered.
    pub ended: u64,
    /// Of those, commands that the domain must reject.
    pub must_be_rejected: u64,
    /// Commands that were refused for good, which should not happen.
    pub refused: u64,
    /// What the first refusal said.
    pub first_refusal: Option<String>,
    /// Requests that were sent again.
    pub repeated: u64,
    /// From the start to the last answer.
    pub took: Duration,
}

impl Load {
    /// Starts sending.
    pub fn start(plan: Plan) -> (Self, impl Future<Output = Sent>) {
        let load = Self(Arc::new(State {
            plan,
            started: Instant::now(),
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            must_be_rejected: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            first_refusal: Mutex::default(),
            answered: Latency::default(),
            last_answer: AtomicU64::new(0),
        }));
        let senders: Vec<_> = (0..load.0.plan.connections)
            .map(|_| {
                let state = load.0.clone();
                let connection = Connection::new(&state.plan.target);
                let connection = match state.plan.wait {
                    Some(seconds) => connection.that_waits(seconds),
                    None => connection,
                };
                tokio::spawn(async move {
                    if state.plan.batch > 1 {
                        batch::send_all(&state, connection).await;
                    } else {
                        single::send_all(&state, connection).await;
                    }
                })
            })
            .collect();
        let running = load.clone();
        let ended = async move {
            for sender in senders {
                // A sender that panicked shows itself by commands that are missing.
                let _ = sender.await;
            }
            running.sent()
        };
        (load, ended)
    }

    /// How many commands have been accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Tells how many commands are finished, for a load that keeps its backlog small.
    pub fn finished(&self, commands: u64) {
        self.0.finished.store(commands, Ordering::Relaxed);
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// From when a command was (to be) sent to its answer.
    pub fn answered(&self) -> &Latency {
        &self.0.answered
    }

    /// What has come of it so far.
    pub fn sent(&self) -> Sent {
        let state = &self.0;
        let first_refusal = state.first_refusal.lock().unwrap_or_else(PoisonError::into_inner);
        Sent {
            accepted: self.accepted(),
            ended: state.ended.load(Ordering::Relaxed),
            must_be_rejected: state.must_be_rejected.load(Ordering::Relaxed),
            refused: state.refused.load(Ordering::Relaxed),
            first_refusal: first_refusal.clone(),
            repeated: state.repeated.load(Ordering::Relaxed),
            took: Duration::from_micros(state.last_answer.load(Ordering::Relaxed)),
        }
    }
}

impl State {
    /// Takes the next commands: their numbers, and when the first of them is due.
    async fn take(&self, count: u64) -> Option<(std::ops::Range<u64>, Instant)> {
        while self.is_backlogged() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let last = match self.plan.until {
            Until::Commands(all) if first >= all => return None,
            Until::Commands(all) => all.min(first + count),
            Until::Elapsed(limit) if self.started.elapsed() >= limit => return None,
            Until::Elapsed(_) => first + count,
        };
        let Some(rate) = self.plan.rate else { return Some((first..last, Instant::now())) };
        let due = self.started + Duration::from_secs_f64(first as f64 / rate);
        if let Until::Elapsed(limit) = self.plan.until
            && due >= self.started + limit
        {
            return None;
        }
        tokio::time::sleep_until(due.into()).await;
        Some((first..last, due))
    }

    fn is_backlogged(&self) -> bool {
        let unfinished = || {
            let finished = self.finished.load(Ordering::Relaxed);
            self.accepted.load(Ordering::Relaxed).saturating_sub(finished)
        };
        self.plan.max_unfinished.is_some_and(|most| unfinished() > most)
    }

    fn accepted(&self, id: Uuid, kind: Kind, account: u32, code: u16, submitted: Instant) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if code == 200 {
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        if kind == Kind::MustBeRejected {
            self.must_be_rejected.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(answers) = &self.plan.answers {
            answers.record(id, code);
        }
        if let Some(followers) = &self.plan.followers {
            followers.follow(id, || self.plan.workload.account_id(account), submitted);
        }
    }

    fn answered(&self, submitted: Instant) {
        self.answered.record(submitted.elapsed());
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_answer.fetch_max(now, Ordering::Relaxed);
    }

    fn refused(&self, words: impl FnOnce() -> String) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_refusal.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(words);
    }

    fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pauses between repetitions: 10 ms, doubling to 1 s, or what the server asks for if that is less.
#[derive(Default)]
pub(super) struct Pause {
    made: u32,
}

impl Pause {
    pub(super) async fn wait(&mut self, asked: Option<Duration>) {
        let pause = Duration::from_millis(10 << self.made.min(7)).min(Duration::from_secs(1));
        self.made += 1;
        tokio::time::sleep(asked.map_or(pause, |asked| asked.min(pause))).await;
    }

    /// Whether it has been trying for about 10 s.
    pub(super) fn is_long(&self) -> bool {
        self.made > 15
    }
}
