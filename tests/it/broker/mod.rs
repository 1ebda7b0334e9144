//! The road on RabbitMQ, on a real one (`AMQP_URL`).

use std::time::Duration;

use adjutant::{
    broker::{
        Broker, BrokerError, Confirmation, Consumer, Delivery, GroupPartition, LogHeaders,
        OutboundMessage, Publisher,
        rabbitmq::{InvalidRabbitSettings, RabbitBroker, RabbitSettings},
    },
    message::{GroupName, LogId, Offset, Partition, PartitionCount, Route, Timestamp},
};
use futures_util::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use lapin::{
    BasicProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
        BasicRejectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    eventually,
    private::PrivateRabbit,
    proxy::Proxy,
    rabbit::{Road, amqp_address, amqp_url_through, raw},
    soon,
};

mod consuming;
mod faults;
mod publishing;

const P0: Partition = Partition(0);
const P1: Partition = Partition(1);

fn commands(partition: Partition) -> GroupPartition {
    GroupPartition { group: GroupName::commands(), partition }
}

fn log(first_offset: i64) -> LogHeaders {
    LogHeaders {
        log_id: LogId("0190b3c4-0000-7000-8000-000000000001".parse().unwrap()),
        first_offset: Offset(first_offset),
        entries: 3,
        recorded_at: Timestamp::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap(),
    }
}

fn message(id: i64, route: Route) -> OutboundMessage {
    OutboundMessage {
        id,
        route,
        log: Some(log(id)),
        correlation_id: None,
        content_type: "application/msgpack".to_owned(),
        headers: Vec::new(),
        body: format!("body {id}").into_bytes().into(),
    }
}

async fn publish(publisher: &dyn Publisher, message: OutboundMessage) -> Confirmation {
    let pending = publisher.publish(message).await.unwrap();
    soon("a confirmation", pending).await.unwrap()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    soon("a delivery", consumer.next()).await.unwrap()
}

async fn delete(queue: &str) {
    let (_connection, channel) = raw().await;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
}
