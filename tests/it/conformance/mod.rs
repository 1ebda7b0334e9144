//! What every implementation of a trait must do, each behaviour written once.

mod broker;
