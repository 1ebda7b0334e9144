//! What only RabbitMQ has, on a real one (`AMQP_URL`). What every broker must do is tested in
//! `conformance/broker`.

use std::time::Duration;

use adjutant::{
    broker::{
        Broker, BrokerError, Confirmation, Consumer, Publisher,
        rabbitmq::{InvalidRabbitSettings, RabbitBroker, RabbitSettings},
    },
    message::{Partition, PartitionCount, Route},
};
use futures_util::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use lapin::{
    BasicProperties,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    eventually,
    messages::{P0, P1, commands, log, message, next, publish},
    private::PrivateRabbit,
    proxy::Proxy,
    rabbit::{Road, amqp_address, amqp_url_through, raw},
    soon,
};

mod consuming;
mod faults;
mod publishing;
