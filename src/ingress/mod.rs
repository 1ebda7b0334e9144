//! Intake: from untrusted requests to commands that are durable. Checks, group commit and waiting for
//! outcomes are free of HTTP, so that the AMQP intake accepts the same way; `http` is the API.

pub mod amqp;
mod draft;
mod group_commit;
#[cfg(feature = "http")]
pub mod http;
mod outbox_limit;
mod problem;
mod settings;
mod trace;
mod validate;
mod wait;

#[cfg(test)]
mod testing;

pub use group_commit::{Acceptance, Answer, GroupCommit, Refusal};
pub use outbox_limit::OutboxLimit;
pub use problem::{Problem, ProblemCode};
pub use settings::{AccessRole, CommitSettings, IngressSettings, TokenSettings};
pub use validate::{Origin, Validator};
pub use wait::{
    CommandWatcher, NoRoom, PositionWatcher, StatusChanges, Told, WaitForOutcome, WatchSettings,
};
