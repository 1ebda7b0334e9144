//! What tests and simulations do to a broker: look into it, and harm it as a network, an operator
//! or a crash would.

use super::{LocalBroker, LocalMessage, queue::Queue};

impl LocalBroker {
    /// The names of all queues, sorted.
    pub fn queue_names(&self) -> Vec<String> {
        self.connection.server().lock().queues.keys().map(ToString::to_string).collect()
    }

    /// How many messages wait in a queue; what its consumers hold is not counted. `None`: there is
    /// no such queue.
    pub fn depth(&self, queue: &str) -> Option<usize> {
        self.connection.server().lock().queues.get(queue).map(Queue::depth)
    }

    /// How many messages the consumers of a queue have not acknowledged. `None`: there is no such
    /// queue.
    pub fn unacknowledged(&self, queue: &str) -> Option<usize> {
        self.connection.server().lock().queues.get(queue).map(Queue::unacknowledged)
    }

    /// Takes the oldest waiting message out of a queue.
    pub fn take(&self, queue: &str) -> Option<LocalMessage> {
        let message = self.connection.server().lock().queues.get_mut(queue)?.pop()?;
        Some(LocalMessage::clone(&message))
    }

    /// Drops what waits in a queue, and says how many messages it was. `None`: there is no such
    /// queue.
    pub fn purge(&self, queue: &str) -> Option<usize> {
        self.connection.server().lock().queues.get_mut(queue).map(Queue::purge)
    }

    /// Deletes a queue with all it holds; its consumers end with an error. `false`: there is no such
    /// queue.
    pub fn delete_queue(&self, queue: &str) -> bool {
        self.connection.server().lock().delete(queue)
    }

    /// Closes the channels of a queue's consumers, as a server does: they end with an error, and
    /// what they held goes back to its place. A reply queue ends with its reader. Says how many
    /// consumers it were.
    pub fn close_consumers(&self, queue: &str) -> usize {
        self.connection.server().lock().end_consumers(queue, |_| true)
    }

    /// What a crash does: every queue is gone, and whoever consumed or published must open again.
    /// Connections stay usable.
    pub fn lose_everything(&self) {
        self.connection.server().lock().lose_everything();
    }

    /// What an outage does: every consumer and publisher ends, and nothing can be opened until
    /// [`come_back`](Self::come_back). The queues keep what they hold.
    pub fn go_away(&self) {
        self.connection.server().lock().go_away();
    }

    /// Ends an outage.
    pub fn come_back(&self) {
        self.connection.server().lock().away = false;
    }
}
