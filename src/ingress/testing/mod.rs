//! For unit tests of the intake: a small bank, and a store in memory whose answers a test scripts.

mod domain;
mod store;

pub(crate) use domain::bank;
pub(crate) use store::{MemoryStore, POISON, Script};
