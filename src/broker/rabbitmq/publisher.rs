//! The publishing side: puts an outbox row into AMQP's terms and hands it to the task that
//! watches over its confirmation.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use lapin::{
    BasicProperties, ConnectionStatus,
    types::{ShortString, ShortStringError},
};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{confirms, exchanges::routing_key, headers, link::OwnChannel, settings::Endpoint};
use crate::{
    broker::{
        BrokerError, Confirmation, OutboundMessage, PendingConfirmation, Publisher, names::Names,
    },
    message::Route,
};

/// How many messages may wait for being handed to the connection.
const HAND_OVER: usize = 1024;

/// Persistent (AMQP 0-9-1 basic properties, `delivery-mode`).
const PERSISTENT: u8 = 2;

/// A message in AMQP's terms, and whom to tell what became of it.
pub(super) struct Outgoing {
    pub(super) id: i64,
    pub(super) route: &'static str,
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) reply: oneshot::Sender<Result<Confirmation, BrokerError>>,
}

/// A channel in confirm mode. Dropping it sends nothing more; what is under way is still awaited
/// before the channel closes.
pub(super) struct RabbitPublisher {
    names: Names,
    endpoint: Arc<Endpoint>,
    connection: ConnectionStatus,
    outgoing: mpsc::Sender<Outgoing>,
}

impl RabbitPublisher {
    /// Takes over a channel in confirm mode.
    pub(super) fn start(
        channel: OwnChannel,
        names: Names,
        endpoint: Arc<Endpoint>,
        confirm_timeout: Duration,
    ) -> Self {
        let connection = channel.connection().clone();
        let (outgoing, incoming) = mpsc::channel(HAND_OVER);
        let task = confirms::Task::new(channel, Arc::clone(&endpoint), confirm_timeout);
        tokio::spawn(task.run(incoming));
        Self { names, endpoint, connection, outgoing }
    }

    fn address(&self, route: &Route) -> (&'static str, String, String) {
        match route {
            Route::Commands(partition) => {
                ("commands", self.names.commands_exchange(), routing_key(*partition))
            }
            Route::Events(partition) => {
                ("events", self.names.events_exchange(), routing_key(*partition))
            }
            Route::Reply { queue } => ("reply", String::new(), queue.clone()),
            Route::IntakeDeadLetter => {
                ("intake_dlq", String::new(), self.names.intake_dead_letters())
            }
        }
    }
}

#[async_trait]
impl Publisher for RabbitPublisher {
    async fn publish(&self, message: OutboundMessage) -> Result<PendingConfirmation, BrokerError> {
        if self.connection.blocked() {
            let text = format!("{} blocks publishers: memory or disk alarm", self.endpoint);
            return Err(BrokerError::Unavailable(text));
        }
        let (reply, answer) = oneshot::channel();
        let (route, exchange, routing_key) = self.address(&message.route);
        let id = message.id;
        let outgoing = match outgoing(message, route, &exchange, &routing_key, reply) {
            Ok(outgoing) => outgoing,
            Err(error) => {
                // A queue whose name is too long for AMQP cannot exist.
                warn!(message = id, route, %error, "cannot be addressed, so nobody can receive it");
                return Ok(async { Ok(Confirmation::Unroutable) }.boxed());
            }
        };
        let gone = || BrokerError::Unavailable("the publisher's channel is closed".to_owned());
        self.outgoing.send(outgoing).await.map_err(|_| gone())?;
        Ok(async move { answer.await.unwrap_or_else(|_| Err(gone())) }.boxed())
    }
}

fn outgoing(
    message: OutboundMessage,
    route: &'static str,
    exchange: &str,
    routing_key: &str,
    reply: oneshot::Sender<Result<Confirmation, BrokerError>>,
) -> Result<Outgoing, ShortStringError> {
    let headers = headers::write(message.log.as_ref(), &message.headers);
    let mut properties = BasicProperties::default()
        .with_message_id(message.id.to_string().into())
        .with_content_type(ShortString::try_new(message.content_type)?)
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    if let Some(correlation_id) = message.correlation_id {
        properties = properties.with_correlation_id(ShortString::try_new(correlation_id)?);
    }
    Ok(Outgoing {
        id: message.id,
        route,
        exchange: ShortString::try_new(exchange)?,
        routing_key: ShortString::try_new(routing_key)?,
        properties,
        body: message.body,
        reply,
    })
}
