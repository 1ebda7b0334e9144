//! What is sent. A new kind of command (one that fails for a while, one that is slow) is a variant
//! of [`Kind`], a line of [`MIX`], and what it must lead to.

use serde_json::{Value, json};
use uuid::Uuid;

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
    /// It is never accepted: refused by HTTP, in the dead letters of the AMQP intake.
    Refusal,
}

/// How often each kind comes, in a thousand.
const MIX: [(Kind, u32); 6] = [
    (Kind::Deposit, 560),
    (Kind::Withdrawal, 330),
    (Kind::Overdraft, 40),
    (Kind::OpenAgain, 20),
    (Kind::BreaksRules, 25),
    (Kind::UnknownType, 25),
];

impl Kind {
    /// The type of the command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open | Self::OpenAgain => "account.open",
            Self::Deposit | Self::BreaksRules => "account.deposit",
            Self::Withdrawal | Self::Overdraft => "account.withdraw",
            Self::UnknownType => "account.explode",
        }
    }

    /// What it must lead to.
    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Open | Self::Deposit => Expected::Success,
            Self::Withdrawal => Expected::Either,
            Self::Overdraft | Self::OpenAgain => Expected::Rejection,
            Self::BreaksRules | Self::UnknownType => Expected::Refusal,
        }
    }
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// Its id; a repetition carries the same.
    pub id: Uuid,
    /// What kind it is.
    pub kind: Kind,
    /// The account.
    pub account: String,
    /// How much it moves, if it moves anything.
    pub amount: i64,
}

impl Command {
    /// A command of one kind.
    pub(crate) fn new(kind: Kind, account: &str, draw: &mut Draw) -> Self {
        let some = |draw: &mut Draw, most| 1 + i64::try_from(draw.below(most)).unwrap_or_default();
        let amount = match kind {
            Kind::Deposit | Kind::UnknownType => some(draw, 1_000),
            Kind::Withdrawal => some(draw, 1_500),
            Kind::Overdraft => MAX_AMOUNT,
            Kind::BreaksRules => -some(draw, 1_000),
            Kind::Open | Kind::OpenAgain => 0,
        };
        Self { id: Uuid::now_v7(), kind, account: account.to_owned(), amount }
    }

    /// Any command of the mix.
    pub(crate) fn any(account: &str, draw: &mut Draw) -> Self {
        let mut place = draw.below(MIX.iter().map(|(_, often)| *often as usize).sum());
        for (kind, often) in MIX {
            match place.checked_sub(often as usize) {
                Some(rest) => place = rest,
                None => return Self::new(kind, account, draw),
            }
        }
        Self::new(Kind::Deposit, account, draw)
    }

    /// Where it goes.
    pub(crate) fn stream(&self) -> String {
        format!("account/{}", self.account)
    }

    /// As the service stores it.
    pub(crate) fn payload(&self) -> Value {
        match self.kind {
            Kind::Open => json!({ "owner": format!("owner of {}", self.account) }),
            Kind::OpenAgain => json!({ "owner": "somebody else" }),
            _ => json!({ "amount": self.amount }),
        }
    }

    /// As it is sent, by either door.
    pub(crate) fn body(&self) -> Value {
        json!({
            "id": self.id, "type": self.kind.name(), "stream": self.stream(),
            "payload": self.payload(),
        })
    }
}
