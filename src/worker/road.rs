//! A loop's end of the road: its consumer, which is opened beside the loop so that a broker that
//! does not answer holds nothing up, and the acknowledgements that are still owed.

use std::{future::pending, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::broker::{Broker, BrokerError, Consumer, Delivery, GroupPartition};

/// How long a finished message may stay unacknowledged. An acknowledgement is a write of its own
/// for a quorum queue, and one covers all before it; late ones cost at worst duplicates.
const ACK_WITHIN: Duration = Duration::from_millis(50);

/// After how long a consumer that could not be opened is tried again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

type Opened = Result<Box<dyn Consumer>, BrokerError>;

pub(super) struct Road {
    broker: Arc<dyn Broker>,
    source: GroupPartition,
    prefetch: u16,
    consumer: Option<Box<dyn Consumer>>,
    /// At most one task; it ends with the road.
    opening: JoinSet<Opened>,
    open_at: Instant,
    /// The last message that is finished and not acknowledged, and when it must be.
    to_ack: Option<(u64, Instant)>,
    /// How often messages were finished since the last acknowledgement.
    finished_messages: u32,
}

/// What the road brings.
pub(super) enum Event {
    /// A message.
    Delivery(Delivery),
    /// It is time to acknowledge.
    AcksDue,
    /// The consumer was opened, or could not be.
    Opened,
}

impl Road {
    pub(super) fn new(broker: Arc<dyn Broker>, source: GroupPartition, prefetch: u16) -> Self {
        Self {
            broker,
            source,
            prefetch,
            consumer: None,
            opening: JoinSet::new(),
            open_at: Instant::now(),
            to_ack: None,
            finished_messages: 0,
        }
    }

    /// Whether something can arrive.
    pub(super) fn is_open(&self) -> bool {
        self.consumer.is_some()
    }

    /// Waits for a message, or for something else to do. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Event, BrokerError> {
        let Some(consumer) = &mut self.consumer else {
            return self.open().await;
        };
        let ack_due = self.to_ack.map(|(_, due)| due);
        tokio::select! {
            biased;
            () = until(ack_due) => Ok(Event::AcksDue),
            delivery = consumer.next() => delivery.map(Event::Delivery),
        }
    }

    async fn open(&mut self) -> Result<Event, BrokerError> {
        if self.opening.is_empty() {
            sleep_until(self.open_at).await;
            let (broker, source) = (self.broker.clone(), self.source.clone());
            let prefetch = self.prefetch;
            self.opening.spawn(async move { broker.consume(&source, prefetch).await });
        }
        match self.opening.join_next().await {
            Some(Ok(Ok(consumer))) => self.consumer = Some(consumer),
            Some(Ok(Err(error))) => self.cannot_open(&error),
            Some(Err(error)) => self.cannot_open(&error),
            None => {}
        }
        Ok(Event::Opened)
    }

    fn cannot_open(&mut self, error: &dyn std::error::Error) {
        tracing::debug!(source = %self.source, %error, "cannot consume; the log is read instead");
        self.open_at = Instant::now() + REOPEN_AFTER;
    }

    /// A message that is here already.
    pub(super) fn take_ready(&mut self) -> Option<Result<Delivery, BrokerError>> {
        self.consumer.as_mut()?.next().now_or_never()
    }

    /// Everything up to this message is finished: it is acknowledged soon.
    pub(super) async fn finished(&mut self, tag: u64) -> Result<(), BrokerError> {
        let first = Instant::now() + ACK_WITHIN;
        let due = self.to_ack.map_or(first, |(_, due)| due);
        self.to_ack = Some((tag, due));
        self.finished_messages += 1;
        if self.finished_messages >= u32::from(self.prefetch / 4) {
            self.acknowledge().await?;
        }
        Ok(())
    }

    /// Acknowledges what is finished.
    pub(super) async fn acknowledge(&mut self) -> Result<(), BrokerError> {
        self.finished_messages = 0;
        if let (Some((tag, _)), Some(consumer)) = (self.to_ack.take(), &mut self.consumer) {
            consumer.ack_through(tag).await?;
        }
        Ok(())
    }

    /// What was not acknowledged comes again, to whoever consumes next.
    pub(super) fn close(&mut self, reopen_after: Duration) {
        self.consumer = None;
        self.opening.abort_all();
        self.opening = JoinSet::new();
        self.to_ack = None;
        self.finished_messages = 0;
        self.open_at = Instant::now() + reopen_after;
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
