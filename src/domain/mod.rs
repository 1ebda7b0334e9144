//! What a user of the framework writes: aggregates and projections. Pure and small: no I/O, no
//! clock, no randomness; time, ids and metadata come in by a [`Context`].

mod aggregate;
#[cfg(any(feature = "runtime", feature = "testing"))]
mod checks;
mod context;
mod event_record;
mod messages;
mod projection;
mod registry;
mod rules;
mod service;

#[cfg(any(feature = "runtime", feature = "testing"))]
pub(crate) use checks::{key_that_is_none, version_conflict};
#[cfg(feature = "testing")]
pub(crate) use registry::{aggregate_type, projection_type};

pub use aggregate::{Aggregate, Decision, DomainError, FailureKind, NoError, source_chain};
pub use context::Context;
pub use event_record::EventRecord;
pub use messages::{DecodeError, MessageKind, MessageSet, Upcast};
pub use projection::{EventSelection, Fold, Projection, ProjectionError, Scope};
pub use registry::{
    AggregateType, CommandFailure, Decided, Document, EncodedEvent, ProjectionType, Registry,
    State, StoredEvent, TypeDescription,
};
pub use rules::{RuleViolation, Validate};
pub use service::{BuildError, Service, ServiceBuilder};

#[doc(hidden)]
pub use messages::{
    decode_payload as __decode_payload, json_schema as __json_schema, kind_named as __kind_named,
    payload_violations as __payload_violations, schema_version as __schema_version,
};
