//! What a decision may know besides state and command.

use std::cell::Cell;

use uuid::Uuid;

use crate::message::{Attempt, CommandId, Metadata, StreamId, Timestamp, Version};

/// The surroundings of one decision. The same command decided again sees the same ids.
#[derive(Debug)]
pub struct Context {
    stream: StreamId,
    version: Version,
    command_id: CommandId,
    metadata: Metadata,
    now: Timestamp,
    attempt: Attempt,
    ids_drawn: Cell<u32>,
}

impl Context {
    /// Puts a context together; `now` is the store's clock.
    pub fn new(
        stream: StreamId,
        version: Version,
        command_id: CommandId,
        metadata: Metadata,
        now: Timestamp,
    ) -> Self {
        let (attempt, ids_drawn) = (Attempt::FIRST, Cell::new(0));
        Self { stream, version, command_id, metadata, now, attempt, ids_drawn }
    }

    /// The same surroundings at another attempt.
    #[must_use]
    pub fn at_attempt(self, attempt: Attempt) -> Self {
        Self { attempt, ..self }
    }

    /// The stream that decides.
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The stream's version before this command.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The command's id; a stable idempotency key for effects outside.
    pub fn command_id(&self) -> CommandId {
        self.command_id
    }

    /// Who asked.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The time, by the store's clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Which attempt at this command it is: the first one, or one after others failed.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The id that `command_id` draws as its n-th, counted from 0.
    pub(crate) fn drawn_id(command_id: CommandId, n: u32) -> Uuid {
        Uuid::new_v5(&command_id.0, &n.to_be_bytes())
    }

    /// A new id, seeded by the command's: the n-th id drawn by a command is always the same one
    /// (UUID version 5, RFC 9562, in the namespace of the command's id).
    pub fn new_id(&self) -> Uuid {
        let n = self.ids_drawn.get();
        self.ids_drawn.set(n + 1);
        Self::drawn_id(self.command_id, n)
    }
}
