//! Waiting for what other tasks or processes do: a command's changes, a view's position.
//!
//! One task per process and kind asks the store for all who wait, so that a thousand long-polls and
//! event streams cost one query. Hints of this process make it quick; polling is the guarantee.

mod command;
mod look;
mod pace;
mod position;
mod waiting;

pub use command::{CommandWatcher, NoRoom, StatusChanges, Told, WaitForOutcome, WatchSettings};
pub use position::PositionWatcher;

#[cfg(test)]
mod tests;
