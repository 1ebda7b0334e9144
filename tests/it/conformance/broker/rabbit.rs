//! RabbitMQ under test: a prefix of its own, reached through a proxy that can fail.

use std::sync::Arc;

use adjutant::{
    broker::{
        Broker,
        local::LocalMessage,
        rabbitmq::{RabbitBroker, RabbitSettings},
    },
    message::PartitionCount,
};
use lapin::{
    BasicProperties, Channel, Connection,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::bed::{Testbed, Wants};
use crate::support::{
    proxy::Proxy,
    rabbit::{Road, amqp_address, amqp_url_through, raw},
};

pub struct RabbitBed {
    broker: RabbitBroker,
    direct: RabbitSettings,
    partitions: PartitionCount,
    proxy: Proxy,
    beside: Connection,
    // Last: it deletes the queues when everything else has ended.
    road: Road,
}

impl RabbitBed {
    async fn channel(&self) -> Channel {
        self.beside.create_channel().await.unwrap()
    }
}

impl Testbed for RabbitBed {
    async fn with(wants: Wants) -> Self {
        let mut road = Road::new();
        road.groups = wants.groups;
        let mut direct = road.settings();
        direct.queue_max_messages = wants.queue_max_messages;
        direct.delivery_limit = wants.delivery_limit;
        let proxy = Proxy::to(amqp_address()).await;
        let mut settings = direct.clone();
        settings.url = amqp_url_through(proxy.address());
        let broker = road.broker_with(settings);
        broker.declare(&road.groups).await.unwrap();
        let (beside, _channel) = raw().await;
        Self { broker, direct, partitions: road.partitions, proxy, beside, road }
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn another(&self) -> Arc<dyn Broker> {
        Arc::new(RabbitBroker::new(self.direct.clone(), self.partitions).unwrap())
    }

    fn name(&self, rest: &str) -> String {
        self.road.name(rest)
    }

    async fn cut(&self) {
        self.proxy.drop_connections();
    }

    async fn down(&self) {
        self.proxy.down();
    }

    async fn up(&self) {
        self.proxy.resume();
    }

    async fn delete(&self, queue: &str) {
        let options = QueueDeleteOptions::default();
        self.channel().await.queue_delete(queue.into(), options).await.unwrap();
    }

    async fn depth(&self, queue: &str) -> Option<usize> {
        let options = QueueDeclareOptions::durable().passive();
        let look =
            self.channel().await.queue_declare(queue.into(), options, FieldTable::default()).await;
        Some(usize::try_from(look.ok()?.message_count()).unwrap())
    }

    async fn send(&self, queue: &str, message: LocalMessage) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = properties(&message);
        let publish =
            channel.basic_publish("".into(), queue.into(), options, &message.body, properties);
        let confirm = publish.await.unwrap().await.unwrap();
        assert!(confirm.is_ack(), "{confirm:?}");
    }

    async fn take(&self, queue: &str) -> Option<LocalMessage> {
        let options = BasicGetOptions { no_ack: true };
        let got = self.channel().await.basic_get(queue.into(), options).await.unwrap()?;
        Some(seen(got.delivery))
    }

    async fn reply_queue(&self, queue: &str, room: usize) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(room.try_into().unwrap()));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        // It ends with the connection beside.
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        self.channel().await.queue_declare(queue.into(), options, arguments).await.unwrap();
    }
}

fn properties(message: &LocalMessage) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
    }
    let mut properties = BasicProperties::default().with_headers(headers);
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(content_type) = &message.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    if let Some(reply_to) = &message.reply_to {
        properties = properties.with_reply_to(reply_to.as_str().into());
    }
    if let Some(correlation_id) = &message.correlation_id {
        properties = properties.with_correlation_id(correlation_id.as_str().into());
    }
    properties
}

/// Without the log headers, which only our own consumers read.
fn seen(delivery: lapin::message::Delivery) -> LocalMessage {
    let properties = &delivery.properties;
    let headers = properties.headers().iter().flat_map(|table| table.inner());
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        _ => None,
    };
    LocalMessage {
        message_id: properties.message_id().as_ref().map(ToString::to_string),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        reply_to: properties.reply_to().as_ref().map(ToString::to_string),
        correlation_id: properties.correlation_id().as_ref().map(ToString::to_string),
        headers: headers
            .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
            .collect(),
        log: None,
        body: delivery.data.into(),
    }
}
