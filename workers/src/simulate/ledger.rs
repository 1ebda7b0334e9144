//! What fails in a simulation: ledgers whose entries say themselves how often they fail. The payload
//! and the attempt decide, so that every decision can be made again.

use std::fmt;

use adjutant::{domain::FailureKind, prelude::*, simulation::Dice};
use serde_json::{Value, json};

/// Few, so that entries meet.
pub(super) const LEDGERS: u64 = 4;

/// An entry that may fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// How many attempts fail before one succeeds.
    #[garde(range(min = 0))]
    fails: i32,
    /// Whether no attempt can ever succeed.
    #[garde(skip)]
    fatal: bool,
}

/// An entry whose order counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(transparent)]
pub(super) struct Booking(#[garde(dive)] Entry);

adjutant::commands! {
    /// What can be asked of a ledger.
    #[derive(PartialEq, Eq)]
    pub(super) enum LedgerCommand {
        Note(Entry) = "note" v1,
        Book(Booking) = "book" v1 strict,
    }
}

/// An entry was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(super) struct Written {
    strict: bool,
}

adjutant::events! {
    /// What happens to a ledger.
    #[derive(PartialEq, Eq)]
    pub(super) enum LedgerEvent {
        Written(Written) = "written" v1,
    }
}

/// Why an entry is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Not yet.
    OutOfInk,
    /// Never.
    Illegible,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfInk => "there is no ink",
            Self::Illegible => "the entry cannot be read",
        })
    }
}

impl DomainError for Trouble {
    fn code(&self) -> &str {
        match self {
            Self::OutOfInk => "out_of_ink",
            Self::Illegible => "illegible",
        }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::OutOfInk => FailureKind::Retryable,
            Self::Illegible => FailureKind::Fatal,
        }
    }
}

/// Counts its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    entries: u64,
}

impl Aggregate for Ledger {
    const TYPE: &'static str = "ledger";
    type Command = LedgerCommand;
    type Event = LedgerEvent;
    type Error = Trouble;
    type Reply = u64;

    fn decide(
        &self,
        command: &LedgerCommand,
        context: &Context,
    ) -> Result<Decision<LedgerEvent, u64>, Trouble> {
        let (entry, strict) = match command {
            LedgerCommand::Note(entry) => (entry, false),
            LedgerCommand::Book(Booking(entry)) => (entry, true),
        };
        if entry.fatal {
            return Err(Trouble::Illegible);
        }
        if context.attempt().0 <= entry.fails {
            return Err(Trouble::OutOfInk);
        }
        Ok(Decision::event(Written { strict }).reply(self.entries + 1))
    }

    fn evolve(&mut self, _: &LedgerEvent) {
        self.entries += 1;
    }
}

/// A command to a ledger, as a client would write it.
pub(super) fn draw(dice: &mut Dice) -> Value {
    let (fails, fatal) = match dice.below(100) {
        0..60 => (0, false),
        60..82 => (1 + dice.below(3), false),
        // More often than it is tried.
        82..92 => (4 + dice.below(6), false),
        _ => (0, true),
    };
    json!({
        "type": if dice.happens(6_000) { "ledger.book" } else { "ledger.note" },
        "stream": format!("ledger/{}", 1 + dice.below(LEDGERS)),
        "payload": { "fails": fails, "fatal": fatal },
    })
}
