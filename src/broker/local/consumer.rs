//! The consuming sides: a partition of a group, and the intake.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::{sync::Notify, task::coop::consume_budget};

use super::{
    connection::Connection,
    meters,
    queue::Take,
    server::{self, Server},
    subscription::Given,
};
use crate::broker::{BrokerError, Consumer, Delivery, IntakeConsumer, IntakeDelivery};

/// The consumer of one queue. Dropping it gives back what was not acknowledged.
pub(super) struct QueueConsumer {
    server: Arc<Server>,
    queue: Arc<str>,
    id: u64,
    wake: Arc<Notify>,
    arrived: metrics::Counter,
}

impl QueueConsumer {
    /// Starts to consume a queue, which `declare` makes sure of.
    pub(super) fn start(
        connection: &Connection,
        group: &str,
        prefetch: usize,
        declare: impl FnOnce(&Server, &mut server::State) -> Result<Arc<str>, BrokerError>,
    ) -> Result<Self, BrokerError> {
        let server = Arc::clone(connection.server());
        let mut state = connection.open()?;
        let queue = declare(&server, &mut state)?;
        let (id, wake) = state.subscribe(&queue, connection.id(), prefetch)?;
        drop(state);
        Ok(Self { server, queue, id, wake, arrived: meters::deliveries(group) })
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Safe to cancel: a message is taken or it is not.
    pub(super) async fn next_given(&mut self) -> Result<Given, BrokerError> {
        // A full queue must not keep its reader's task from giving way to others.
        consume_budget().await;
        loop {
            match self.look()? {
                Some(given) => {
                    self.arrived.increment(1);
                    return Ok(given);
                }
                None => self.wake.notified().await,
            }
        }
    }

    fn look(&self) -> Result<Option<Given>, BrokerError> {
        let mut state = self.server.lock();
        let queue = state.queues.get_mut(&*self.queue);
        match queue.map_or(Take::Ended, |queue| queue.take(self.id)) {
            Take::Message(given) => Ok(Some(given)),
            Take::Nothing => Ok(None),
            Take::Ended => Err(server::ended(&self.queue)),
        }
    }

    pub(super) fn acknowledge(&self, tag: u64, through: bool) -> Result<(), BrokerError> {
        self.server.lock().acknowledge(&self.queue, self.id, tag, through)
    }
}

impl Drop for QueueConsumer {
    fn drop(&mut self) {
        self.server.lock().end_consumer(&self.queue, self.id);
    }
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let given = self.next_given().await?;
        Ok(Delivery {
            tag: given.tag,
            log: given.message.log.clone(),
            redeliveries: given.redeliveries,
            body: given.message.body.clone(),
        })
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.acknowledge(tag, true)
    }
}

#[async_trait]
impl IntakeConsumer for QueueConsumer {
    async fn next(&mut self) -> Result<IntakeDelivery, BrokerError> {
        let given = self.next_given().await?;
        let message = &given.message;
        Ok(IntakeDelivery {
            tag: given.tag,
            message_id: message.message_id.clone(),
            content_type: message.content_type.clone(),
            reply_to: message.reply_to.clone(),
            correlation_id: message.correlation_id.clone(),
            headers_traceparent: message.header("traceparent").map(str::to_owned),
            redeliveries: given.redeliveries,
            body: message.body.clone(),
        })
    }

    async fn ack(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.acknowledge(tag, false)
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.acknowledge(tag, true)
    }
}
