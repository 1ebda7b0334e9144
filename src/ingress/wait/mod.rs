//! Waiting for what other tasks or processes do: a command's outcome, a view's position.
//!
//! One task per process and kind asks the store for all who wait, so that a thousand long-polls cost
//! one query. Hints of this process make it quick; polling is the guarantee.

mod outcome;
mod pace;
mod position;

pub use outcome::{OutcomeWatcher, WaitForOutcome};
pub use position::PositionWatcher;

#[cfg(test)]
mod tests;
