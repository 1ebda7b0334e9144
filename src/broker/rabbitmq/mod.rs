//! The road on RabbitMQ (3.10 to 4.x), by AMQP 0-9-1.
//!
//! Two supervised connections, one to publish and one to consume; every consumer and publisher has
//! a channel of its own. After any error the object that reports it is finished: its owner drops it
//! and opens another, and the connection underneath is rebuilt with all that stands on it.

mod confirms;
mod connect;
mod consumer;
mod error;
mod exchanges;
mod headers;
mod link;
mod publisher;
mod settings;
mod topology;
mod verdicts;

use std::sync::Arc;

use async_trait::async_trait;
use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

pub use settings::{InvalidRabbitSettings, RabbitSettings};

use super::{
    Broker, BrokerError, Consumer, GroupPartition, IntakeConsumer, Publisher, names::Names,
};
use crate::message::{GroupName, PartitionCount};
use consumer::QueueConsumer;
use link::Link;
use publisher::RabbitPublisher;
use settings::Endpoint;
use topology::{Declarer, Limits, Refusals};

/// RabbitMQ. Clones share the connections.
#[derive(Clone)]
pub struct RabbitBroker {
    inner: Arc<Inner>,
}

struct Inner {
    settings: RabbitSettings,
    partitions: PartitionCount,
    names: Names,
    publishing: Link,
    consuming: Link,
    refusals: Refusals,
}

impl RabbitBroker {
    /// Checks the settings; connects when something is first needed. `partitions` is what the
    /// database was initialised with.
    ///
    /// ```
    /// use adjutant::{broker::rabbitmq::{RabbitBroker, RabbitSettings}, message::PartitionCount};
    ///
    /// let settings = RabbitSettings::new("amqp://guest:guest@127.0.0.1:5672");
    /// let broker = RabbitBroker::new(settings, PartitionCount::DEFAULT)?;
    /// # Ok::<(), adjutant::broker::rabbitmq::InvalidRabbitSettings>(())
    /// ```
    pub fn new(
        settings: RabbitSettings,
        partitions: PartitionCount,
    ) -> Result<Self, InvalidRabbitSettings> {
        settings::check_prefix(&settings.prefix)?;
        let endpoint = Arc::new(Endpoint::parse(&settings.url)?);
        let name = &settings.connection_name;
        let inner = Inner {
            names: Names::new(&settings.prefix),
            publishing: Link::new("publish", name, Arc::clone(&endpoint)),
            consuming: Link::new("consume", name, endpoint),
            refusals: Refusals::default(),
            partitions,
            settings,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Messages and consumers of every queue of these groups, their dead-letter queues and the
    /// intake's two, for metrics: (queue, ready messages, consumers). Missing queues are left out.
    pub async fn queue_depths(
        &self,
        groups: &[GroupName],
    ) -> Result<Vec<(String, u32, u32)>, BrokerError> {
        let names = &self.inner.names;
        let mut queues = vec![names.intake(), names.intake_dead_letters()];
        for group in groups {
            let sources = self
                .inner
                .partitions
                .all()
                .map(|partition| GroupPartition { group: group.clone(), partition });
            queues.extend(sources.map(|source| names.queue(&source)));
            queues.push(names.dead_letters(group));
        }
        let link = &self.inner.consuming;
        let mut channel = link.channel().await?;
        let mut depths = Vec::with_capacity(queues.len());
        for queue in queues {
            let options = QueueDeclareOptions::durable().passive();
            let look = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
            match link.answer(look).await? {
                Ok(found) => depths.push((queue, found.message_count(), found.consumer_count())),
                // The refusal has closed the channel.
                Err(error) if error.is_amqp_soft_error() => channel = link.channel().await?,
                Err(error) => return Err(error::unavailable(link.endpoint(), &error)),
            }
        }
        Ok(depths)
    }

    async fn declarer(&self) -> Result<Declarer<'_>, BrokerError> {
        let inner = &self.inner;
        let limits = Limits::from(&inner.settings);
        Declarer::open(&inner.consuming, &inner.names, limits, &inner.refusals).await
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    async fn declare(&self, groups: &[GroupName]) -> Result<(), BrokerError> {
        self.declarer().await?.everything(groups, self.inner.partitions).await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        let link = &self.inner.publishing;
        let channel = link.channel().await?;
        link.within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Box::new(RabbitPublisher::start(
            channel,
            self.inner.names.clone(),
            Arc::clone(link.endpoint()),
            self.inner.settings.confirm_timeout,
        )))
    }

    async fn consume(
        &self,
        source: &GroupPartition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        self.declarer().await?.partition(source).await?;
        let queue = self.inner.names.queue(source);
        let link = &self.inner.consuming;
        let group = source.group.as_str();
        Ok(Box::new(QueueConsumer::start(link, queue, group, prefetch).await?))
    }

    async fn consume_intake(&self, prefetch: u16) -> Result<Box<dyn IntakeConsumer>, BrokerError> {
        self.declarer().await?.intake().await?;
        let queue = self.inner.names.intake();
        let link = &self.inner.consuming;
        Ok(Box::new(QueueConsumer::start(link, queue, "intake", prefetch).await?))
    }

    async fn check(&self) -> Result<(), BrokerError> {
        drop(self.inner.consuming.channel().await?);
        // A publishing connection that an alarm blocks is there all the same; opening a channel on
        // it would fail.
        let publishing = self.inner.publishing.connection().await?;
        if !publishing.status().blocked() {
            drop(self.inner.publishing.channel().await?);
        }
        Ok(())
    }

    async fn close(&self) {
        tokio::join!(self.inner.publishing.close(), self.inner.consuming.close());
    }
}
