//! One failpoint, passed in one way.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::Value;
use uuid::Uuid;

use super::{
    found,
    ways::{Found, Way},
};
use crate::support::{
    api::Api,
    process::{Bank, Launch},
    site::Site,
};

const SIGABRT: i32 = 6;

pub struct Case {
    pub point: String,
    pub way: Way,
}

/// A command that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: Uuid,
    pub drill: String,
    pub body: Value,
    /// Status and body; `None`: the connection broke.
    pub answer: Option<(u16, Value)>,
}

impl Case {
    /// A row of the table: failpoint, way, what was answered and what was not, what was found.
    pub async fn run(self) -> [String; 5] {
        let site = Site::new().await;
        let other = match self.way {
            Way::Conflict => Some(launch(&site).start().await),
            _ => None,
        };
        // Whoever holds commands when they are taken over died after it had accepted them.
        let (first, pass) = match self.way {
            Way::TakenOver => ("immediate.accepted", 3),
            way => (self.point.as_str(), way.pass()),
        };
        let dies = self.way.prepare(launch(&site));
        let mut dies = dies.env("ADJUTANT_FAILPOINT", format!("{first}:{pass}")).start().await;
        let sent = self.way.drive(Api(dies.api()), other.as_ref().map(|it| Api(it.api()))).await;
        aborted(&mut dies, first).await;
        if self.way == Way::TakenOver {
            let mut takes_over = launch(&site).env("ADJUTANT_FAILPOINT", &self.point).spawn();
            aborted(&mut takes_over, &self.point).await;
        }
        let survivor = match other {
            Some(other) => other,
            None => launch(&site).start().await,
        };
        let case = format!("{} ({})", self.point, self.way);
        let found = found::look(&site, &survivor, &sent, &case).await;
        if let Some(expected) = self.way.must_be_found(&self.point) {
            assert_eq!(found, expected, "{case}");
        }
        self.row(&sent, &found)
    }

    fn row(&self, sent: &[Sent], found: &[Found]) -> [String; 5] {
        let answered = |code: u16| sent.iter().filter(|it| it.code() == Some(code)).count();
        let found_as = |what: Found| found.iter().filter(|found| **found == what).count();
        [
            self.point.clone(),
            self.way.to_string(),
            words([("200", answered(200)), ("202", answered(202))]),
            found.len().to_string(),
            words([("absent", found_as(Found::Absent)), ("ended once", found_as(Found::Ended))]),
        ]
    }
}

impl Sent {
    /// The status that it was answered.
    pub fn code(&self) -> Option<u16> {
        self.answer.as_ref().map(|(code, _)| *code)
    }
}

fn words(counted: [(&str, usize); 2]) -> String {
    let some = counted.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(what, count)| format!("{count} × {what}")).collect::<Vec<_>>().join(", ")
}

/// All roles; a process that is gone is noticed soon, and blocking is no failure.
fn launch(site: &Site) -> Launch {
    site.launch("all")
        .set("bank.fault_injection", true)
        .set("membership.heartbeat_ms", 100)
        .set("membership.ttl_ms", 1_000)
        .set("retry.default.time_limit_ms", 60_000)
}

/// The process aborted by itself, at this point: nothing else raises this signal here.
async fn aborted(bank: &mut Bank, point: &str) {
    let status = bank.ends().await;
    assert_eq!(status.signal(), Some(SIGABRT), "{point} was never passed: {status}");
}
