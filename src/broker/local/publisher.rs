//! The publishing side. A message is in its queues before its confirmation exists.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{FutureExt as _, future};
use tokio::task::coop::consume_budget;

use super::{connection::Connection, message::LocalMessage, meters::PublisherMeters};
use crate::broker::{BrokerError, OutboundMessage, PendingConfirmation, Publisher};

pub(super) struct LocalPublisher {
    connection: Arc<Connection>,
    /// It does not outlive a break of its connection, as a channel would not.
    breaks: u64,
    meters: PublisherMeters,
}

impl LocalPublisher {
    pub(super) fn start(connection: Arc<Connection>) -> Result<Self, BrokerError> {
        let breaks = connection.open()?.breaks;
        Ok(Self { connection, breaks, meters: PublisherMeters::new() })
    }
}

#[async_trait]
impl Publisher for LocalPublisher {
    async fn publish(&self, message: OutboundMessage) -> Result<PendingConfirmation, BrokerError> {
        // Nothing here ever waits, so a long run of messages gives way to other tasks here.
        consume_budget().await;
        let (route, message) = LocalMessage::outbound(message);
        let mut state = self.connection.open()?;
        if state.breaks != self.breaks {
            return Err(BrokerError::Unavailable("the publisher's channel is closed".to_owned()));
        }
        let confirmation = self.connection.server().publish(&mut state, &route, message);
        drop(state);
        self.meters.count(&route, confirmation);
        Ok(future::ready(Ok(confirmation)).boxed())
    }
}
