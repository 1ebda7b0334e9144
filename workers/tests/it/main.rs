//! The bank's behaviour on real services.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
