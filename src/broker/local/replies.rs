//! A requester in the same process: a queue that takes replies for as long as somebody reads them.

use std::sync::Arc;

use super::{LocalBroker, LocalMessage, consumer::QueueConsumer, settings::Policy};
use crate::broker::BrokerError;

/// AMQP's bound on the length of a queue's name, in bytes.
const LONGEST_NAME: usize = 255;

/// A reply queue and its only reader. The queue is deleted when this is dropped; replies to it are
/// then unroutable.
pub struct Replies {
    consumer: QueueConsumer,
}

impl LocalBroker {
    /// Declares a reply queue for which messages can name it as `reply_to`. It holds `room`
    /// messages that were not read yet, and refuses more. A queue of this name must not exist.
    pub fn replies(&self, name: &str, room: usize) -> Result<Replies, BrokerError> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            let text = format!("`{name}` is no queue name: it must be 1 to {LONGEST_NAME} bytes");
            return Err(BrokerError::Incompatible(text));
        }
        let consumer =
            QueueConsumer::start(&self.connection, "replies", usize::MAX, |_, state| {
                let queue: Arc<str> = name.into();
                if state.declare(&queue, || Policy::replies(room)) {
                    return Ok(queue);
                }
                Err(BrokerError::Incompatible(format!("there is a queue `{name}` already")))
            })?;
        Ok(Replies { consumer })
    }
}

impl Replies {
    /// What the queue is called.
    pub fn queue(&self) -> &str {
        self.consumer.queue()
    }

    /// The next reply. Safe to cancel. Reading it takes it out of the queue.
    pub async fn next(&mut self) -> Result<LocalMessage, BrokerError> {
        let given = self.consumer.next_given().await?;
        self.consumer.acknowledge(given.tag, false)?;
        Ok(LocalMessage::clone(&given.message))
    }
}
