//! What is sent: deposits, withdrawals that the account can bear, and some commands that must be
//! rejected.

use std::fmt::Write;

use bytes::Bytes;
use uuid::Uuid;

use super::random::Random;
use crate::accounts::MAX_AMOUNT;

/// What each account gets at the start. Withdrawals take 50 a time on average and deposits bring
/// 500, so that no order of them brings an account below 0.
pub(super) const FUNDING: i64 = 1_000_000;

/// In a thousand: commands that must be rejected, and withdrawals. The rest are deposits.
const MUST_BE_REJECTED: u32 = 30;
const WITHDRAWALS: u32 = 350;

/// What a command must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It succeeds.
    Deposit,
    /// It succeeds.
    Withdrawal,
    /// The account refuses it.
    MustBeRejected,
    /// A drill: its first attempts fail, as [`Drills`] say.
    Drill,
}

/// Commands to drills (`bank.fault_injection`) among those to accounts, on streams of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drills {
    /// How many in a thousand commands.
    pub in_a_thousand: u32,
    /// How many attempts of each fail.
    pub fails: u32,
}

/// A command to be sent.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its id; a repetition carries the same.
    pub id: Uuid,
    /// What it must lead to.
    pub kind: Kind,
    /// The account, by number.
    pub account: u32,
    /// The request's body, one line of JSON.
    pub body: Bytes,
}

/// All commands of a run.
#[derive(Clone, Debug)]
pub struct Workload {
    seed: u64,
    accounts: u32,
    drills: Drills,
    run: String,
    /// What a body ends with, if it names a lane.
    lane: &'static str,
}

impl Workload {
    /// Commands drawn from a seed, to so many accounts that this run alone uses.
    pub fn new(seed: u64, accounts: u32) -> Self {
        // The tail of a UUIDv7 is random: runs that start in one millisecond differ as well.
        let run = Uuid::now_v7().simple().to_string();
        let run = format!("{}{}", &run[..12], &run[28..]);
        Self { seed, accounts, drills: Drills::default(), run, lane: "" }
    }

    /// The same with drills among them.
    #[must_use]
    pub fn with_drills(self, drills: Drills) -> Self {
        Self { drills, ..self }
    }

    /// The same commands for the immediate lane; accounts are opened by the queue all the same.
    #[must_use]
    pub fn for_the_immediate_lane(self) -> Self {
        Self { lane: ",\"lane\":\"immediate\"", ..self }
    }

    /// How many accounts there are.
    pub fn accounts(&self) -> u32 {
        self.accounts
    }

    /// An account's id.
    pub fn account_id(&self, account: u32) -> String {
        format!("acc-{}-{account:06}", self.run)
    }

    /// The commands that open and fund the accounts, account by account.
    pub(super) fn opening(&self, account: u32) -> [Planned; 2] {
        let stream = self.account_id(account);
        let owner = format!("{{\"owner\":\"owner of {stream}\"}}");
        [
            planned(Kind::Deposit, account, &stream, "open", &owner, ""),
            planned(Kind::Deposit, account, &stream, "deposit", &amount(FUNDING), ""),
        ]
    }

    /// The `n`-th command.
    pub fn command(&self, n: u64) -> Planned {
        let mut random = Random::of(self.seed, n);
        if self.drills.in_a_thousand > 0 && random.below(1_000) < self.drills.in_a_thousand {
            return self.drill(random.below(self.accounts.div_ceil(10)));
        }
        let account = random.below(self.accounts);
        let stream = self.account_id(account);
        let kind = match random.below(1_000) {
            draw if draw < MUST_BE_REJECTED => Kind::MustBeRejected,
            draw if draw < MUST_BE_REJECTED + WITHDRAWALS => Kind::Withdrawal,
            _ => Kind::Deposit,
        };
        match kind {
            Kind::Drill => self.drill(account),
            Kind::Deposit => {
                let some = i64::from(1 + random.below(1_000));
                self.planned(kind, account, &stream, "deposit", &amount(some))
            }
            Kind::Withdrawal => {
                let some = i64::from(1 + random.below(100));
                self.planned(kind, account, &stream, "withdraw", &amount(some))
            }
            Kind::MustBeRejected => match random.below(3) {
                0 => self.planned(kind, account, &stream, "withdraw", &amount(MAX_AMOUNT)),
                1 => self.planned(kind, account, &stream, "open", "{\"owner\":\"somebody else\"}"),
                _ => {
                    let nobody = format!("acc-{}-nobody", self.run);
                    self.planned(kind, account, &nobody, "deposit", &amount(1))
                }
            },
        }
    }

    fn drill(&self, number: u32) -> Planned {
        let stream = format!("drill/drill-{}-{number:06}", self.run);
        let fails = format!("{{\"fails\":{}}}", self.drills.fails);
        to_stream(Kind::Drill, number, &stream, "drill.run", &fails, self.lane)
    }

    fn planned(
        &self,
        kind: Kind,
        account: u32,
        stream: &str,
        command: &str,
        payload: &str,
    ) -> Planned {
        planned(kind, account, stream, command, payload, self.lane)
    }
}

fn amount(amount: i64) -> String {
    format!("{{\"amount\":{amount}}}")
}

fn planned(
    kind: Kind,
    account: u32,
    stream: &str,
    command: &str,
    payload: &str,
    lane: &str,
) -> Planned {
    let (stream, command) = (format!("account/{stream}"), format!("account.{command}"));
    to_stream(kind, account, &stream, &command, payload, lane)
}

fn to_stream(
    kind: Kind,
    account: u32,
    stream: &str,
    command: &str,
    payload: &str,
    lane: &str,
) -> Planned {
    let id = Uuid::now_v7();
    let mut body = String::with_capacity(192);
    // Writing to a String cannot fail.
    let _ = write!(
        body,
        "{{\"id\":\"{id}\",\"type\":\"{command}\",\"stream\":\"{stream}\",\"payload\":{payload}{lane}}}"
    );
    Planned { id, kind, account, body: body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload_of(planned: &Planned) -> String {
        let body: serde_json::Value = serde_json::from_slice(&planned.body).unwrap();
        format!("{} {}", body["type"], body["payload"])
    }

    #[test]
    fn the_same_seed_draws_the_same_commands() {
        let (one, other) = (Workload::new(7, 100), Workload::new(7, 100));
        for n in 0..100 {
            let (a, b) = (one.command(n), other.command(n));
            assert_eq!((a.kind, a.account, payload_of(&a)), (b.kind, b.account, payload_of(&b)));
            assert_ne!(a.id, b.id);
        }
    }

    #[test]
    fn about_three_in_a_hundred_must_be_rejected() {
        let workload = Workload::new(1, 1_000);
        let rejected = (0..10_000).filter(|n| workload.command(*n).kind == Kind::MustBeRejected);
        let rejected = rejected.count();
        assert!((200..400).contains(&rejected), "{rejected}");
    }

    #[test]
    fn drills_are_on_streams_of_their_own() {
        let drills = Drills { in_a_thousand: 100, fails: 3 };
        let workload = Workload::new(1, 1_000).with_drills(drills);
        let mut count = 0;
        for command in (0..10_000).map(|n| workload.command(n)) {
            let body: serde_json::Value = serde_json::from_slice(&command.body).unwrap();
            let is_drill = body["type"] == "drill.run";
            assert_eq!(is_drill, command.kind == Kind::Drill);
            assert_eq!(is_drill, body["stream"].as_str().unwrap().starts_with("drill/"));
            assert_eq!(is_drill, body["payload"]["fails"] == 3);
            count += u32::from(is_drill);
        }
        assert!((800..1_200).contains(&count), "{count}");
    }

    /// Whatever order the commands of an account run in, withdrawals cannot exceed the funding.
    #[test]
    fn no_order_of_the_default_demo_brings_an_account_below_zero() {
        let workload = Workload::new(1, 1_000);
        let mut taken = std::collections::HashMap::new();
        for command in (0..200_000).map(|n| workload.command(n)) {
            if command.kind == Kind::Withdrawal {
                *taken.entry(command.account).or_insert(0_i64) += 100;
            }
        }
        assert!(taken.values().all(|taken| *taken < FUNDING));
    }
}
