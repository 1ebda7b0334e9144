//! Where messages go.

use super::Partition;

/// Where a message goes. The broker turns it into exchange and routing key (or whatever it has).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Entries of a command log, for the group `commands`.
    Commands(Partition),
    /// Entries of an event log, for every projection (and saga).
    Events(Partition),
    /// A command's outcome, for the queue that the sender named.
    Reply {
        /// The queue.
        queue: String,
    },
    /// A message that the AMQP intake could not accept, for `{prefix}.intake.dlq`.
    IntakeDeadLetter,
}
