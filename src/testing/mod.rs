//! test kit
#![allow(missing_docs)]
mod diff;
mod generate;
mod given;
mod given_view;
mod golden;
mod history;
mod replay;
mod schema;
mod subject;
mod then;
mod then_view;
mod tree;
mod view;
mod wire;

pub use generate::commands;
pub use given::{Given, drawn_id};
pub use given_view::GivenView;
pub use replay::{Replayable, assert_replayable, assert_replayable_with};
pub use then::Then;
pub use then_view::ThenView;
pub use wire::EventList;

pub use proptest;

use crate::message::Timestamp;

/// The time at which every test begins: 2026-01-01, 00:00 UTC.
pub const START: Timestamp = time::macros::datetime!(2026-01-01 00:00 UTC);
