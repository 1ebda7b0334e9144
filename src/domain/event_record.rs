//! An event as projections see it.

use std::any::Any;

use crate::message::{CommandId, Metadata, Position, RawJson, StreamId, Timestamp, Version};

/// An event with its place and time.
pub struct EventRecord {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its place in the event log.
    pub position: Position,
    /// When it was recorded, by the store's clock.
    pub recorded_at: Timestamp,
    /// The wire name, for example `account.deposited`.
    pub event_type: String,
    /// The schema version `data` is written in.
    pub schema_version: i16,
    /// The data as it is stored.
    pub data: RawJson,
    /// The command that caused it.
    pub command_id: CommandId,
    /// Copied from the command.
    pub metadata: Metadata,
    /// The data as the aggregate's event type, if this service knows it.
    pub(crate) decoded: Option<Box<dyn Any + Send + Sync>>,
}

impl EventRecord {
    /// The event, if it is one of `E` (an aggregate's `Event` type); old versions are upcast.
    pub fn get<E: 'static>(&self) -> Option<&E> {
        self.decoded.as_ref()?.downcast_ref()
    }
}

impl std::fmt::Debug for EventRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} {} {:?}", self.stream, self.version, self.event_type, self.data)
    }
}
