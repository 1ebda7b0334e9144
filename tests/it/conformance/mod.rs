//! What every implementation of a trait must do, each behaviour written once and run on all of them.
//! A new implementation has only to pass.

mod broker;
mod store;
