//! What is sent. A new kind of command is a variant of [`Kind`], a line of [`MIX`], and what it must
//! lead to. Commands of drills fail, block, poison a view or abort the process, as they say.

use serde_json::{Value, json};
use uuid::Uuid;

use super::way::{Lane, Times, Way};
use crate::{accounts::MAX_AMOUNT, chaos::random::Draw};

/// A kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens the account; each client's first.
    Open,
    /// Puts money in.
    Deposit,
    /// Takes money out, if there is enough.
    Withdrawal,
    /// Takes out more than any account holds.
    Overdraft,
    /// Opens what is open.
    OpenAgain,
    /// Poison: its payload breaks the rules.
    BreaksRules,
    /// Poison: no aggregate knows it.
    UnknownType,
    /// A drill that fails once or more, and then succeeds.
    Flaky,
    /// A drill that blocks its thread.
    Slow,
    /// A drill that can never succeed.
    Fatal,
    /// A drill that fails more often than it is tried.
    Exhausted,
    /// A strict drill that goes well.
    InOrder,
    /// A strict one that fails once or more: later ones wait.
    InOrderFlaky,
    /// A strict one that can never succeed: later ones wait for a person.
    InOrderFatal,
    /// A drill whose event the view `drills` cannot apply.
    Poisons,
    /// A drill that aborts the process that executes it; not of the mix.
    Aborts,
}

/// What a kind must lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It succeeds.
    Success,
    /// The account rejects it.
    Rejection,
    /// It succeeds or is rejected, as the balance is.
    Either,
    /// It is dead at first, and succeeds only if a person corrects it.
    Death,
    /// It is never accepted: refused by HTTP, in the dead letters of the AMQP intake.
    Refusal,
}

/// How often each kind comes, in a thousand.
const MIX: [(Kind, u32); 14] = [
    (Kind::Deposit, 460),
    (Kind::Withdrawal, 280),
    (Kind::Overdraft, 40),
    (Kind::OpenAgain, 20),
    (Kind::BreaksRules, 25),
    (Kind::UnknownType, 25),
    (Kind::Flaky, 50),
    (Kind::Slow, 15),
    (Kind::InOrder, 50),
    (Kind::InOrderFlaky, 15),
    (Kind::Fatal, 6),
    (Kind::Exhausted, 5),
    (Kind::InOrderFatal, 5),
    (Kind::Poisons, 4),
];

/// More often than any schedule tries.
const NEVER: i64 = 1_000;

impl Kind {
    /// The type of the command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open | Self::OpenAgain => "account.open",
            Self::Deposit | Self::BreaksRules => "account.deposit",
            Self::Withdrawal | Self::Overdraft => "account.withdraw",
            Self::UnknownType => "account.explode",
            Self::InOrder | Self::InOrderFlaky | Self::InOrderFatal => "drill.run_in_order",
            Self::Flaky
            | Self::Slow
            | Self::Fatal
            | Self::Exhausted
            | Self::Poisons
            | Self::Aborts => "drill.run",
        }
    }

    /// What it must lead to.
    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Open
            | Self::Deposit
            | Self::Flaky
            | Self::Slow
            | Self::InOrder
            | Self::InOrderFlaky
            | Self::Poisons => Expected::Success,
            Self::Fatal | Self::Exhausted | Self::InOrderFatal | Self::Aborts => Expected::Death,
            Self::Withdrawal => Expected::Either,
            Self::Overdraft | Self::OpenAgain => Expected::Rejection,
            Self::BreaksRules | Self::UnknownType => Expected::Refusal,
        }
    }

    /// Whether it goes to a drill, which nothing else does.
    pub(crate) fn is_drill(self) -> bool {
        self.name().starts_with("drill.")
    }

    /// Whether it keeps its place among those of its stream that do.
    pub(crate) fn keeps_order(self) -> bool {
        !self.is_drill() || matches!(self, Self::InOrder | Self::InOrderFlaky | Self::InOrderFatal)
    }
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// Its id; a repetition carries the same.
    pub id: Uuid,
    /// What kind it is.
    pub kind: Kind,
    /// The account; a drill has the same name.
    pub account: String,
    /// How much it moves; of a drill, how often it fails, or for how many milliseconds it blocks.
    pub amount: i64,
    /// Through which lane, and how long its sender waits.
    pub way: Way,
    /// When it may be started.
    pub times: Times,
}

impl Command {
    /// A command of one kind, through the queue, at any time.
    pub(crate) fn new(kind: Kind, account: &str, draw: &mut Draw) -> Self {
        let some = |draw: &mut Draw, most| 1 + i64::try_from(draw.below(most)).unwrap_or_default();
        let amount = match kind {
            Kind::Deposit | Kind::UnknownType => some(draw, 1_000),
            Kind::Withdrawal => some(draw, 1_500),
            Kind::Overdraft => MAX_AMOUNT,
            Kind::BreaksRules => -some(draw, 1_000),
            Kind::Flaky | Kind::InOrderFlaky => some(draw, 3),
            Kind::Slow => 19 + some(draw, 131),
            Kind::Exhausted => NEVER,
            _ => 0,
        };
        let (way, times) = (Way::QUEUED, Times::default());
        Self { id: Uuid::now_v7(), kind, account: account.to_owned(), amount, way, times }
    }

    /// Any command of the mix, through the queue; some have a time.
    pub(crate) fn any(account: &str, draw: &mut Draw) -> Self {
        let kind = Self::any_kind(draw);
        Self { times: Times::any(draw), ..Self::new(kind, account, draw) }
    }

    fn any_kind(draw: &mut Draw) -> Kind {
        let mut place = draw.below(MIX.iter().map(|(_, often)| *often as usize).sum());
        for (kind, often) in MIX {
            match place.checked_sub(often as usize) {
                Some(rest) => place = rest,
                None => return kind,
            }
        }
        Kind::Deposit
    }

    /// Where it goes.
    pub(crate) fn stream(&self) -> String {
        let aggregate = if self.kind.is_drill() { "drill" } else { "account" };
        format!("{aggregate}/{}", self.account)
    }

    /// As the service stores it.
    pub(crate) fn payload(&self) -> Value {
        match self.kind {
            Kind::Open => json!({ "owner": format!("owner of {}", self.account) }),
            Kind::OpenAgain => json!({ "owner": "somebody else" }),
            Kind::Flaky | Kind::InOrderFlaky | Kind::Exhausted => json!({ "fails": self.amount }),
            Kind::Slow => json!({ "blocks_ms": self.amount }),
            Kind::Fatal | Kind::InOrderFatal => json!({ "fatal": true }),
            Kind::Poisons => json!({ "poisons": true }),
            Kind::Aborts => json!({ "aborts": true }),
            Kind::InOrder => json!({}),
            Kind::Deposit
            | Kind::Withdrawal
            | Kind::Overdraft
            | Kind::BreaksRules
            | Kind::UnknownType => json!({ "amount": self.amount }),
        }
    }

    /// As it is sent, by either door and through this lane.
    pub(crate) fn body(&self, lane: Lane) -> Value {
        let mut body = json!({
            "id": self.id, "type": self.kind.name(), "stream": self.stream(),
            "payload": self.payload(),
        });
        // Whoever names none means the queue.
        if lane != Lane::Queued {
            body["lane"] = lane.word().into();
        }
        for (name, time) in self.times.named() {
            body[name] = time.into();
        }
        body
    }
}
