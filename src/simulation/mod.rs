//! Whole services that go wrong in every way at once, and repeat exactly.
//!
//! A history is one run of several processes with all their roles, on a store in memory and the
//! in-process broker, in one thread under a paused clock. Clients send commands; meanwhile processes
//! crash at any await point, pause, are cut off and replaced, calls of the store fail before and
//! after they took place, messages come twice, late or never, and queues vanish. At the end
//! everything is healed and must become idle, and then the five laws are checked against the
//! store's tables and what the clients were told.
//!
//! Everything that is drawn comes from the seed: the same seed gives the same history, which its
//! hash shows. It covers every write to the store and every delivery. So a seed that fails is a
//! test case.
//!
//! What a history cannot find is a mistake inside one call of the store (a missing lock, say),
//! because here each call is one step; the conformance tests look for those under real concurrency.

mod broker;
mod canceller;
pub mod checks;
mod client;
mod dice;
mod faults;
mod harm;
mod history;
mod person;
mod process;
mod recurring;
mod store;
mod trace;
mod world;

use std::time::Duration;

use serde_json::Value;

pub use dice::Dice;
pub use faults::{Fault, FaultCounts};
pub use history::simulate;

#[cfg(feature = "planted-bugs")]
pub use crate::planted::{Bug, Planted};
pub use crate::store::sqlite::evidence::{
    AttemptFact, AuditFact, CancellationFact, CheckpointFact, CommandFact, DeadLetterFact,
    DiscardFact, DocumentFact, EditFact, EventFact, Evidence, HoldFact, LogFact, OutcomeFact,
    ParkedFact, PastOutcomeFact, ReferenceFact,
};
use crate::{domain::Service, store::StoreError};

/// What is simulated.
pub trait Scenario: Send {
    /// The domain.
    fn service(&self) -> Service;

    /// A command as a client would write it for `POST /v1/commands`: `type`, `stream`, `payload`,
    /// perhaps `expected_version`. Id and time are the simulation's business.
    fn command(&mut self, dice: &mut Dice) -> Value;

    /// A payload with which a command of this type succeeds, for people who correct a dead one; `None`:
    /// they do not know one.
    fn correct(&self, command_type: &str) -> Option<Value>;

    /// What the domain itself demands of the end of a history, besides the laws: each sentence is a
    /// violation.
    fn check(&self, evidence: &Evidence) -> Vec<String>;
}

/// How long histories are.
#[derive(Clone, Copy, Debug)]
pub struct SimulationSettings {
    /// How many commands clients send.
    pub commands: usize,
    /// How many clients send at the same time.
    pub clients: usize,
    /// Whether every step is printed to standard error.
    pub prints: bool,
}

impl Default for SimulationSettings {
    fn default() -> Self {
        Self { commands: 500, clients: 8, prints: false }
    }
}

/// What became of one history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// What it was drawn from.
    pub seed: u64,
    /// Covers every write and every delivery.
    pub hash: u64,
    /// How many writes and deliveries there were.
    pub steps: u64,
    /// How many commands were accepted.
    pub commands: usize,
    /// How many of them were executed and did not end in a rejection.
    pub succeeded: usize,
    /// How many of them were called off, or expired.
    pub cancelled: usize,
    /// How much time passed in it.
    pub simulated: Duration,
    /// What went wrong, how often.
    pub faults: FaultCounts,
    /// What must not be: empty if all is well.
    pub violations: Vec<String>,
}

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The runtime cannot be built.
    #[error("the simulation's runtime cannot be built: {0}")]
    Runtime(#[from] std::io::Error),
    /// The store in memory cannot be made.
    #[error("the simulation's store cannot be made: {0}")]
    Store(#[from] StoreError),
    /// The tables cannot be read at the end.
    #[error("the simulation's tables cannot be read: {0}")]
    Evidence(String),
}
