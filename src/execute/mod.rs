//! Executing commands, and how a step that failed is tried again.

pub mod retry;
