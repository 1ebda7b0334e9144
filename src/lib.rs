#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic))]

#[cfg(feature = "runtime")]
#[macro_use]
mod planted;
#[cfg(feature = "runtime")]
#[macro_use]
pub mod failpoint;

#[cfg(feature = "runtime")]
pub mod broker;
#[cfg(feature = "webhooks")]
pub mod callback;
#[cfg(feature = "runtime")]
mod cancellation;
mod chance;
#[cfg(feature = "runtime")]
pub mod dead_letter;
pub mod domain;
#[cfg(feature = "runtime")]
pub mod execute;
#[cfg(feature = "runtime")]
pub mod housekeeping;
#[cfg(feature = "http")]
pub(crate) mod http_server;
#[cfg(feature = "runtime")]
pub mod immediate;
#[cfg(feature = "runtime")]
pub mod ingress;
#[cfg(feature = "http")]
mod jobs;
#[cfg(feature = "runtime")]
mod latest;
pub mod message;
#[cfg(feature = "runtime")]
pub mod observe;
#[cfg(feature = "runtime")]
pub mod recurring;
#[cfg(feature = "runtime")]
pub mod relay;
#[cfg(feature = "runtime")]
pub mod service;
#[cfg(feature = "runtime")]
pub mod signals;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(feature = "runtime")]
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "webhooks")]
pub mod webhook;
#[cfg(feature = "runtime")]
pub mod worker;

#[doc(hidden)]
pub use serde_json;

/// What a domain module needs.
pub mod prelude {
    pub use garde::Validate;
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};

    pub use crate::domain::{
        Aggregate, BuildError, Context, Decision, DomainError, EventRecord, EventSelection,
        FailureKind, NoError, Projection, ProjectionError, Scope, Service,
    };
}
