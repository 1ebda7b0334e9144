//! test kit
#![allow(missing_docs)]
mod diff;
mod given;
mod subject;
mod then;
mod tree;
mod wire;

pub use given::{Given, drawn_id};
pub use then::Then;
pub use wire::EventList;

use crate::message::Timestamp;

/// The time at which every test begins: 2026-01-01, 00:00 UTC.
pub const START: Timestamp = time::macros::datetime!(2026-01-01 00:00 UTC);
