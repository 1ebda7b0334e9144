//! What travels: identifiers, positions, envelopes and their encoding.
//!
//! Everything here is plain data with a pinned wire form. Nothing in this module reads a clock,
//! a socket or a database.

mod codec;
mod content;
mod envelope;
mod ids;
mod json;
mod metadata;
mod outcome;
mod partition;
mod position;
mod route;

#[cfg(feature = "runtime")]
pub(crate) use codec::concatenate;
pub(crate) use codec::read_all;
pub use codec::{CodecError, MAX_BATCH_BYTES, decode_batch, encode_commands, encode_events};
pub use content::{CommandContent, ContentHash};
pub use envelope::{
    Batch, CommandEnvelope, EventEnvelope, Lane, ReplyAddress, WIRE_FORMAT, WireCommands,
    WireEvents,
};
pub(crate) use ids::is_name;
pub use ids::{Attempt, CommandId, GroupName, InvalidStreamId, LogId, MemberId, StreamId, Version};
pub use json::RawJson;
pub use metadata::Metadata;
pub use outcome::{Failure, Outcome, OutcomeStatus};
pub use partition::{InvalidPartitionCount, Partition, PartitionCount};
pub use position::{InvalidPosition, Offset, Position};
pub use route::Route;

/// An instant in UTC, as the store's clock gave it. Microseconds, as PostgreSQL keeps them.
pub type Timestamp = time::OffsetDateTime;
