//! The road within one process: no server, no network, nothing on disk. Its queues behave as those
//! on RabbitMQ do; a crash loses all of them, which loses nothing, because every group reads its log
//! (law 1). Only commands that another part of the process sent to the intake and that were not yet
//! accepted are lost with it.
//!
//! | queue | when full | consumers | dead letters |
//! |---|---|---|---|
//! | `{prefix}.{group}.pNN` | drops the oldest: the group reads its log | one active, others wait | to `{prefix}.{group}.dlq` |
//! | `{prefix}.{group}.dlq` | drops the oldest | | – |
//! | `{prefix}.intake` | is never full | share the messages | to `{prefix}.intake.dlq`; they wait for it if it is missing |
//! | `{prefix}.intake.dlq` | is never full | | – |
//! | a reply queue | refuses | its owner, with whom it ends | – |
//!
//! It starts no thread and no task and knows no time. In a runtime with one thread, the same calls
//! in the same order have the same results.

mod connection;
mod consumer;
mod harm;
mod message;
mod meters;
mod publisher;
mod queue;
mod replies;
mod server;
mod settings;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;

pub use message::LocalMessage;
pub use replies::Replies;
pub use settings::LocalSettings;

use super::{
    Broker, BrokerError, Confirmation, Consumer, GroupPartition, IntakeConsumer, Publisher,
};
use crate::message::{GroupName, PartitionCount};
use connection::Connection;
use consumer::QueueConsumer;
use publisher::LocalPublisher;
use server::Server;

/// An in-process broker. Clones share one connection: closing one closes all. Other parties that
/// are to close for themselves each take a [`connect`](Self::connect).
#[derive(Clone)]
pub struct LocalBroker {
    connection: Arc<Connection>,
}

impl LocalBroker {
    /// A broker without queues, and a connection to it. `partitions` is what the database was
    /// initialised with.
    ///
    /// ```
    /// use adjutant::{
    ///     broker::{Broker, local::{LocalBroker, LocalSettings}},
    ///     message::{GroupName, PartitionCount},
    /// };
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let broker = LocalBroker::new(LocalSettings::default(), PartitionCount::DEFAULT);
    /// broker.declare(&[GroupName::commands()]).await?;
    /// assert_eq!(broker.depth("adjutant.commands.p00"), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(settings: LocalSettings, partitions: PartitionCount) -> Self {
        let server = Arc::new(Server::new(settings, partitions));
        Self { connection: Arc::new(Connection::new(server)) }
    }

    /// Another connection to the same queues, as another process would have. It is open even if
    /// this one was closed.
    pub fn connect(&self) -> Self {
        let server = Arc::clone(self.connection.server());
        Self { connection: Arc::new(Connection::new(server)) }
    }

    /// Puts a message into the queue of this name, as any other system could: a command for the
    /// intake, or anything at all.
    pub fn send(&self, queue: &str, message: LocalMessage) -> Result<Confirmation, BrokerError> {
        Ok(self.connection.open()?.send(queue, message))
    }
}

#[async_trait]
impl Broker for LocalBroker {
    async fn declare(&self, groups: &[GroupName]) -> Result<(), BrokerError> {
        let mut state = self.connection.open()?;
        self.connection.server().declare(&mut state, groups);
        Ok(())
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        Ok(Box::new(LocalPublisher::start(Arc::clone(&self.connection))?))
    }

    async fn consume(
        &self,
        source: &GroupPartition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        let consumer = QueueConsumer::start(
            &self.connection,
            source.group.as_str(),
            usize::from(prefetch.max(1)),
            |server, state| Ok(server.declare_partition(state, source)),
        )?;
        Ok(Box::new(consumer))
    }

    async fn consume_intake(&self, prefetch: u16) -> Result<Box<dyn IntakeConsumer>, BrokerError> {
        let consumer = QueueConsumer::start(
            &self.connection,
            "intake",
            usize::from(prefetch.max(1)),
            |server, state| Ok(server.declare_intake(state)),
        )?;
        Ok(Box::new(consumer))
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.connection.open().map(drop)
    }

    async fn close(&self) {
        self.connection.close();
    }
}
