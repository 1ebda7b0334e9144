//! What must hold at the end of a history. The checks read whole tables and what clients were told;
//! they share no code with what wrote the tables, and know of no planted bug.
//!
//! Later parts of the service add theirs here: a function from the evidence to sentences.

mod cancellations;
mod clients;
mod deadlines;
mod decisions;
mod effects;
mod failures;
mod lanes;
mod logs;
mod strict;
mod views;

use std::sync::Arc;

use super::{Evidence, canceller::Told, client::Memory, world::Clock};
use crate::domain::Service;

/// What the clients of a history heard.
pub(super) struct Heard {
    /// By those who asked.
    pub(super) memory: Memory,
    /// On the reply queue: correlation ids.
    pub(super) replies: Vec<String>,
    /// In the intake's dead-letter queue: message ids.
    pub(super) dead_letters: Vec<String>,
    /// By people who acted on a dead letter: which, and who.
    pub(super) done: Vec<(uuid::Uuid, String)>,
    /// The ids of all runs of recurring commands that there may be.
    pub(super) runs: std::collections::BTreeSet<uuid::Uuid>,
    /// By those who called commands off.
    pub(super) cancelled: Vec<Told>,
    /// The store's time.
    pub(super) clock: Arc<Clock>,
}

/// Every violation, as a sentence.
pub(super) fn all(service: &Service, evidence: &Evidence, heard: &Heard) -> Vec<String> {
    let mut violations = Vec::new();
    logs::check(evidence, &mut violations);
    effects::check(evidence, &mut violations);
    clients::check(evidence, heard, &mut violations);
    decisions::check(service, evidence, &mut violations);
    lanes::check(service, evidence, &heard.memory.sent, &mut violations);
    strict::check(service, evidence, &mut violations);
    failures::check(evidence, heard, &mut violations);
    cancellations::check(evidence, heard, &mut violations);
    deadlines::check(evidence, &heard.clock, &mut violations);
    views::check(service, evidence, &mut violations);
    violations
}
