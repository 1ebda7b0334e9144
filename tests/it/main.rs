#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(unreachable_pub)] // one test binary: support modules are public to its tests alone

mod broker;
mod support;
