//! What one check has found and the others must not find again, so that each kind of damage makes
//! exactly its own check fail.
//!
//! - An event that nothing vouches for (its command was rejected, or there is none) is reported
//!   once. The other checks see the log without it: it may be missing, and it belongs nowhere.
//! - A stream with a hole, or with such an event, is not folded: what its views should hold cannot
//!   be known.

use std::collections::HashSet;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Events that nothing vouches for, by partition and offset.
    unvouched: HashSet<(i64, i64)>,
    /// The streams of those, by partition.
    unvouched_streams: HashSet<(i64, String)>,
    /// Events of which there is neither command nor outcome.
    pub(super) orphans: Vec<String>,
    /// Streams whose fold is unknown.
    streams: HashSet<String>,
    /// There are so many holes that nobody asked which streams they are in.
    pub(super) beyond_attribution: bool,
}

impl Damage {
    pub(super) fn unvouched_event(&mut self, partition: i64, offset: i64, stream: &str) {
        self.unvouched.insert((partition, offset));
        self.unvouched_streams.insert((partition, stream.to_owned()));
        self.broken_stream(stream.to_owned());
    }

    pub(super) fn is_unvouched(&self, partition: i64, offset: i64) -> bool {
        self.unvouched.contains(&(partition, offset))
    }

    /// Whether a stream has such events in a partition.
    pub(super) fn has_unvouched(&self, partition: i64, stream: &str) -> bool {
        !self.unvouched_streams.is_empty()
            && self.unvouched_streams.contains(&(partition, stream.to_owned()))
    }

    pub(super) fn broken_stream(&mut self, stream: String) {
        self.streams.insert(stream);
    }

    /// Whether the views of an account cannot be judged.
    pub(super) fn hides_account(&self, account: &str) -> bool {
        !self.streams.is_empty() && self.streams.contains(&format!("account/{account}"))
    }
}
