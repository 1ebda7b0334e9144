//! The consuming sides: a partition of a group, and the intake.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::{
    message::Delivery as Arrived,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

use super::{
    error::{declaring, unavailable},
    headers,
    link::{Link, OwnChannel},
    settings::Endpoint,
};
use crate::{
    broker::{BrokerError, Consumer, Delivery, IntakeConsumer, IntakeDelivery},
    observe::names,
};

/// The consumer of one queue, on its own channel. Dropping it closes the channel: what was not
/// acknowledged goes to the next consumer, in order.
pub(super) struct QueueConsumer {
    // Before `deliveries`: the channel must be closing when lapin's consumer is dropped, or that
    // would send `basic.cancel`, after which the successor sees unacknowledged messages out of order.
    channel: OwnChannel,
    deliveries: lapin::Consumer,
    endpoint: Arc<Endpoint>,
    queue: String,
    ended: Option<String>,
    arrived: metrics::Counter,
}

impl QueueConsumer {
    /// Starts to consume. lapin's buffer has no bound of its own: the prefetch is the bound, so it
    /// is set first.
    pub(super) async fn start(
        link: &Link,
        queue: String,
        group: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let channel = link.channel().await?;
        link.within(channel.basic_qos(prefetch.max(1), BasicQosOptions::default())).await?;
        let consume = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let endpoint = Arc::clone(link.endpoint());
        let deliveries = link
            .answer(consume)
            .await?
            .map_err(|error| declaring(&endpoint, "queue", &queue, &error))?;
        let arrived =
            metrics::counter!(names::BROKER_DELIVERIES_TOTAL, "group" => group.to_owned());
        Ok(Self { channel, deliveries, endpoint, queue, ended: None, arrived })
    }

    /// Safe to cancel: a message is taken or it is not.
    async fn next_arrived(&mut self) -> Result<Arrived, BrokerError> {
        if let Some(text) = &self.ended {
            return Err(BrokerError::Unavailable(text.clone()));
        }
        let error = match self.deliveries.next().await {
            Some(Ok(arrived)) => {
                self.arrived.increment(1);
                return Ok(arrived);
            }
            Some(Err(error)) => unavailable(&self.endpoint, &error),
            // The server cancels a consumer whose queue is deleted.
            None => {
                let text = format!("`{}` was deleted, or its channel closed", self.queue);
                BrokerError::Unavailable(text)
            }
        };
        self.ended = Some(error.to_string());
        Err(error)
    }

    async fn acknowledge(&mut self, tag: u64, multiple: bool) -> Result<(), BrokerError> {
        let ack = self.channel.basic_ack(tag, BasicAckOptions { multiple });
        ack.await.map_err(|error| unavailable(&self.endpoint, &error))
    }
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let arrived = self.next_arrived().await?;
        Ok(Delivery {
            tag: arrived.delivery_tag,
            log: arrived.properties.headers().as_ref().and_then(headers::read),
            redeliveries: redeliveries(&arrived),
            body: arrived.data.into(),
        })
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.acknowledge(tag, true).await
    }
}

#[async_trait]
impl IntakeConsumer for QueueConsumer {
    async fn next(&mut self) -> Result<IntakeDelivery, BrokerError> {
        let arrived = self.next_arrived().await?;
        let properties = &arrived.properties;
        let headers = properties.headers().as_ref();
        Ok(IntakeDelivery {
            tag: arrived.delivery_tag,
            message_id: properties.message_id().as_ref().map(ToString::to_string),
            content_type: properties.content_type().as_ref().map(ToString::to_string),
            reply_to: properties.reply_to().as_ref().map(ToString::to_string),
            correlation_id: properties.correlation_id().as_ref().map(ToString::to_string),
            headers_traceparent: headers.and_then(|table| headers::text(table, "traceparent")),
            redeliveries: redeliveries(&arrived),
            body: arrived.data.into(),
        })
    }

    async fn ack(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.acknowledge(tag, false).await
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.acknowledge(tag, true).await
    }
}

/// Quorum queues count deliveries in a header, which the first delivery may lack.
fn redeliveries(arrived: &Arrived) -> u32 {
    let headers = arrived.properties.headers().as_ref();
    let counted = headers.and_then(|table| headers::integer(table, "x-delivery-count"));
    let counted = counted.and_then(|count| u32::try_from(count).ok());
    counted.unwrap_or_else(|| u32::from(arrived.redelivered))
}
