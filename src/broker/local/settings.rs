//! What may be chosen about the in-process broker, and what follows from it for each queue.

use std::sync::Arc;

/// What the queues are called and may hold.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// What the names of all queues start with: `adjutant`.
    pub prefix: String,
    /// The most messages that one queue of a group holds: 10,000. More push out the oldest, which
    /// the group then reads from its log.
    pub queue_max_messages: u32,
    /// The most bytes of bodies that one queue of a group holds: 64 MiB.
    pub queue_max_bytes: u64,
    /// How often a message is delivered again before it goes to the dead-letter queue: 20.
    pub delivery_limit: u32,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            prefix: "adjutant".to_owned(),
            queue_max_messages: 10_000,
            queue_max_bytes: 64 * 1024 * 1024,
            delivery_limit: 20,
        }
    }
}

/// What a full queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    DropsOldest,
    RefusesNewest,
}

/// What a queue may hold, and who consumes it.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) max_messages: usize,
    pub(super) max_bytes: u64,
    pub(super) when_full: WhenFull,
    pub(super) delivery_limit: u32,
    /// The queue for what is dropped or was delivered too often.
    pub(super) dead_letters: Option<Arc<str>>,
    /// Dead letters wait for their queue if it is missing; otherwise they are lost.
    pub(super) keeps_dead_letters: bool,
    /// Only the consumer that came first gets messages.
    pub(super) single_active: bool,
    /// The queue ends with its consumer.
    pub(super) exclusive: bool,
}

impl Policy {
    /// Never full, shared, without an end.
    fn unlimited() -> Self {
        Self {
            max_messages: usize::MAX,
            max_bytes: u64::MAX,
            when_full: WhenFull::DropsOldest,
            delivery_limit: u32::MAX,
            dead_letters: None,
            keeps_dead_letters: false,
            single_active: false,
            exclusive: false,
        }
    }

    /// One partition of a group.
    pub(super) fn work(settings: &LocalSettings, dead_letters: Arc<str>) -> Self {
        Self {
            delivery_limit: settings.delivery_limit,
            dead_letters: Some(dead_letters),
            single_active: true,
            ..Self::group_dead_letters(settings)
        }
    }

    pub(super) fn group_dead_letters(settings: &LocalSettings) -> Self {
        Self {
            max_messages: usize::try_from(settings.queue_max_messages).unwrap_or(usize::MAX),
            max_bytes: settings.queue_max_bytes,
            ..Self::unlimited()
        }
    }

    /// It may hold the only copy of a command, so nothing of it is ever dropped.
    pub(super) fn intake(settings: &LocalSettings, dead_letters: Arc<str>) -> Self {
        Self {
            delivery_limit: settings.delivery_limit,
            dead_letters: Some(dead_letters),
            keeps_dead_letters: true,
            ..Self::unlimited()
        }
    }

    pub(super) fn intake_dead_letters() -> Self {
        Self::unlimited()
    }

    /// A requester's own queue.
    pub(super) fn replies(room: usize) -> Self {
        Self {
            max_messages: room,
            when_full: WhenFull::RefusesNewest,
            single_active: true,
            exclusive: true,
            ..Self::unlimited()
        }
    }
}
