//! How commands come past a failpoint, and what must be found of those that got no answer.

use std::{fmt, time::Duration};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::case::Sent;
use crate::support::{api::Api, eventually, process::Launch};

/// For how long a command blocks that others wait behind, in milliseconds: longer than the shortest
/// wait that a client can ask for.
const BLOCKS: u64 = 1_500;
/// How many commands a client sends at most: it is to be cut off long before.
const MOST: usize = 200;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One client waits for each of its commands.
    Waits,
    /// Eight do, all on streams of their own.
    ManyWait,
    /// One client is answered at once.
    AtOnce,
    /// A client's wait is over before its command was started.
    WaitIsOver,
    /// A strict command whose log is not finished.
    MustQueue,
    /// There is no room, and the queue will do.
    NoRoom,
    /// Another process wrote to the stream meanwhile.
    Conflict,
    /// Commands are delayed, and fall due.
    FallsDue,
    /// A process that holds commands is gone; the one that takes them over aborts.
    TakenOver,
}

/// What is found of a command that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Absent,
    Ended,
}

impl Way {
    /// All ways past a point.
    pub fn all_past(point: &str) -> Vec<Self> {
        match point {
            "immediate.arrived" | "immediate.answering" => vec![Self::Waits],
            "immediate.before_accept" | "immediate.accepted" | "immediate.acknowledging" => {
                vec![Self::AtOnce]
            }
            "immediate.wait_is_over" | "immediate.made_durable" => vec![Self::WaitIsOver],
            "immediate.queued" => vec![Self::NoRoom],
            "immediate.claimed" => vec![Self::FallsDue],
            "immediate.must_queue" | "immediate.took_place" => vec![Self::MustQueue],
            "immediate.taken" | "executor.decided" | "executor.committed" | "immediate.ended" => {
                vec![Self::Waits, Self::ManyWait, Self::AtOnce]
            }
            "executor.under_lock" => vec![Self::Conflict],
            "relay.take_over_found" | "relay.after_take_over" => vec![Self::TakenOver],
            _ => Vec::new(),
        }
    }

    /// What must be found of those that got no answer, in the order in which they were sent;
    /// `None`: it depends on who was how far.
    pub fn must_be_found(self, point: &str) -> Option<Vec<Found>> {
        use Found::{Absent, Ended};
        Some(match (self, point) {
            // A command is answered before it is executed: who dies executes an earlier one.
            (Self::AtOnce, "immediate.before_accept") => vec![Absent],
            (Self::AtOnce, "immediate.accepted" | "immediate.acknowledging")
            | (Self::TakenOver, _) => vec![Ended],
            // Those that fall due were answered, unless it took long.
            (Self::AtOnce | Self::ManyWait | Self::FallsDue, _) => return None,
            (_, "executor.committed" | "immediate.ended" | "immediate.answering") => vec![Ended],
            // The first one blocked, and was being executed.
            (Self::WaitIsOver, "immediate.wait_is_over") => vec![Absent, Absent],
            (Self::WaitIsOver | Self::NoRoom, _) => vec![Absent, Ended],
            (_, "immediate.took_place") => vec![Ended],
            _ => vec![Absent],
        })
    }

    /// At which of its passes the process aborts: not the first if clients send more than one.
    pub fn pass(self) -> usize {
        match self {
            Self::Waits | Self::AtOnce => 3,
            Self::ManyWait => 5,
            _ => 1,
        }
    }

    /// What the process needs besides.
    pub fn prepare(self, launch: Launch) -> Launch {
        match self {
            Self::NoRoom => launch.set("immediate.waiting_commands", 1),
            _ => launch,
        }
    }

    /// Sends until the process is gone: all that was sent. `other` is a process that does not abort.
    pub async fn drive(self, api: Api, other: Option<Api>) -> Vec<Sent> {
        match self {
            Self::Waits => until_cut_off(api, "x", Some(10)).await,
            Self::AtOnce | Self::TakenOver => until_cut_off(api, "x", None).await,
            Self::ManyWait => {
                let streams: Vec<String> = (0..8).map(|n| format!("x{n}")).collect();
                let clients = streams.iter().map(|drill| until_cut_off(api, drill, Some(10)));
                futures_util::future::join_all(clients).await.concat()
            }
            Self::WaitIsOver => {
                behind_a_blocking_one(api, Sent::new("immediate", "run", "x", json!({})), 1).await
            }
            Self::FallsDue => {
                let mut all = Vec::new();
                for n in 0..3 {
                    let due = OffsetDateTime::now_utc() + Duration::from_secs(1);
                    let mut sent = Sent::new("immediate", "run", &format!("x{n}"), json!({}));
                    sent.body["not_before"] = json!(due.format(&Rfc3339).unwrap());
                    all.push(sent.send(api, None).await);
                }
                all
            }
            Self::NoRoom => {
                let late = Sent::new("immediate-or-queued", "run", "y", json!({}));
                behind_a_blocking_one(api, late, 10).await
            }
            Self::MustQueue => {
                let blocks = json!({ "blocks_ms": BLOCKS });
                let first = Sent::new("queued", "run_in_order", "x", blocks);
                let first = first.send(api, None).await;
                let second = Sent::new("immediate", "run_in_order", "x", json!({}));
                vec![first, second.send(api, Some(10)).await]
            }
            Self::Conflict => {
                let run = || Sent::new("immediate", "run", "x", json!({}));
                let first = run().send(api, Some(10)).await;
                let second = run().send(other.expect("another process"), Some(10)).await;
                assert!(first.answer.is_some() && second.answer.is_some());
                vec![first, second, run().send(api, Some(10)).await]
            }
        }
    }
}

/// One after the other, until one is not answered any more.
async fn until_cut_off(api: Api, drill: &str, wait: Option<u64>) -> Vec<Sent> {
    let mut all = Vec::new();
    while all.len() < MOST {
        let sent = Sent::new("immediate", "run", drill, json!({})).send(api, wait).await;
        let gone = sent.answer.is_none();
        all.push(sent);
        if gone {
            break;
        }
    }
    all
}

/// The first blocks its stream and its place in the room while the second comes.
async fn behind_a_blocking_one(api: Api, second: Sent, wait: u64) -> Vec<Sent> {
    let blocks = Sent::new("immediate", "run", "x", json!({ "blocks_ms": BLOCKS }));
    let first = tokio::spawn(async move { blocks.send(api, Some(10)).await });
    eventually("it blocks", async || {
        let lanes = api.get("/v1/lanes").await.json();
        let lanes = lanes["items"].as_array()?;
        let immediate = lanes.iter().find(|lane| lane["name"] == "immediate")?;
        (immediate["running"] == 1).then_some(())
    })
    .await;
    let second = second.send(api, Some(wait)).await;
    vec![first.await.unwrap(), second]
}

impl Sent {
    pub fn new(lane: &str, kind: &str, drill: &str, task: Value) -> Self {
        let id = Uuid::now_v7();
        let stream = format!("drill/{drill}");
        let body = json!({ "id": id, "type": format!("drill.{kind}"), "stream": stream,
                           "payload": task, "lane": lane });
        Self { id, drill: drill.to_owned(), body, answer: None }
    }

    /// Sends it, and waits so many seconds for its end.
    pub async fn send(mut self, api: Api, wait: Option<u64>) -> Self {
        let prefer = wait.map(|seconds| format!("wait={seconds}"));
        let headers: Vec<_> = prefer.iter().map(|prefer| ("Prefer", prefer.as_str())).collect();
        if let Some(answer) = api.send_to_who_may_vanish(&headers, &self.body).await {
            assert!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.body);
            self.answer = Some((answer.status, answer.json()));
        }
        self
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waits => "their caller waits",
            Self::ManyWait => "their 8 callers wait",
            Self::AtOnce => "answered at once",
            Self::WaitIsOver => "the wait is over before it starts",
            Self::MustQueue => "strict, its log is not finished",
            Self::NoRoom => "no room, the queue will do",
            Self::Conflict => "another process was faster",
            Self::FallsDue => "answered at once, and due later",
            Self::TakenOver => "their process is gone",
        })
    }
}
