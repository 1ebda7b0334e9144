//! The road: moves messages from the outbox to the groups that consume them. Anything it loses,
//! repeats or reorders is made good from the log (law 1), so a broker promises little: what it
//! confirmed was on the road, and what was not acknowledged comes again.

#[cfg(feature = "embedded")]
pub mod local;
#[cfg(any(feature = "embedded", feature = "rabbitmq"))]
mod names;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::message::{GroupName, LogId, Offset, Partition, Route, Timestamp};

/// What travels beside the body of a message that carries log entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeaders {
    /// The log it belongs to; entries of another log are never applied.
    pub log_id: LogId,
    /// The offset of the first entry.
    pub first_offset: Offset,
    /// The entries that the body carries, by who recorded them, in order. At least one.
    pub recorded: Vec<Recorded>,
}

/// Consecutive entries that one transaction recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How many; at least one.
    pub entries: u32,
    /// When, by the store's clock.
    pub at: Timestamp,
}

impl LogHeaders {
    /// How many entries the body carries.
    pub fn entries(&self) -> usize {
        self.recorded.iter().map(|recorded| recorded.entries as usize).sum()
    }

    /// When each entry was recorded, in order.
    pub fn recorded_at(&self) -> impl Iterator<Item = Timestamp> {
        let each = |it: &Recorded| std::iter::repeat_n(it.at, it.entries as usize);
        self.recorded.iter().flat_map(each)
    }
}

/// A message on its way out. It is an outbox row, or a few that follow each other in one log: nothing
/// else is ever published (law 2).
#[derive(Clone, Debug)]
pub struct OutboundMessage {
    /// The (first) outbox row's id, also the AMQP `message-id`.
    pub id: i64,
    /// Where it goes.
    pub route: Route,
    /// Present if it carries log entries.
    pub log: Option<LogHeaders>,
    /// AMQP `correlation-id` of a reply.
    pub correlation_id: Option<String>,
    /// MIME type of the body.
    pub content_type: String,
    /// Further headers, for example the reason on an intake dead letter.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// What the broker said about a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Routed to at least one queue and stored.
    Published,
    /// No queue is there for it; it was returned.
    Unroutable,
    /// The broker refused it (for example: a queue with `reject-publish` is full).
    Refused,
}

/// Why the road cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Not reachable, or the connection broke. Try again with a new connection.
    #[error("the broker cannot be reached: {0}")]
    Unavailable(String),
    /// A confirmation did not arrive in time: the message may or may not be on the road.
    #[error("no confirmation within {0:?}")]
    ConfirmTimeout(Duration),
    /// The broker holds something by one of our names that is not what we would declare.
    /// A person must look.
    #[error("{0}")]
    Incompatible(String),
    /// The broker is there, but would not declare something, for a reason of its own. The other
    /// queues can be used; of this one the groups read the log.
    #[error("{0}")]
    Undeclared(String),
}

impl BrokerError {
    /// Whether it is about one queue or exchange, and not about the road as a whole.
    pub fn is_about_one(&self) -> bool {
        matches!(self, Self::Incompatible(_) | Self::Undeclared(_))
    }
}

/// What a member consumes: a partition of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPartition {
    /// The group.
    pub group: GroupName,
    /// The partition.
    pub partition: Partition,
}

impl fmt::Display for GroupPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.p{:02}", self.group, self.partition.0)
    }
}

/// A message as it arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Acknowledges this message and, with [`Consumer::ack_through`], all before it.
    pub tag: u64,
    /// Present if the message carried valid log headers.
    pub log: Option<LogHeaders>,
    /// How often it was delivered before (0: the first time), where the broker counts.
    pub redeliveries: u32,
    /// The body.
    pub body: Bytes,
}

/// A command that another system sent to the intake queue, as it arrived.
#[derive(Clone, Debug)]
pub struct IntakeDelivery {
    /// Acknowledges this message.
    pub tag: u64,
    /// AMQP `message-id`: the command's id.
    pub message_id: Option<String>,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// The queue that waits for the outcome.
    pub reply_to: Option<String>,
    /// Echoed on the reply.
    pub correlation_id: Option<String>,
    /// The header `traceparent` (W3C Trace Context).
    pub headers_traceparent: Option<String>,
    /// How often it was delivered before (0: the first time), where the broker counts.
    pub redeliveries: u32,
    /// The body.
    pub body: Bytes,
}

/// A broker. One per process; clones of the handle share connections.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Declares exchanges, queues and bindings of these groups; declaring again changes nothing. A
    /// queue that cannot be declared keeps no other from it: the first such error
    /// ([`BrokerError::is_about_one`]) is given back when all was tried.
    async fn declare(&self, groups: &[GroupName]) -> Result<(), BrokerError>;

    /// Opens a publisher with confirms of its own. After any error, drop it and open another.
    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError>;

    /// Starts to consume a partition of a group, as a single active consumer: while another
    /// consumer is active, nothing arrives. At most `prefetch` messages are unacknowledged.
    /// A missing queue is declared first.
    async fn consume(
        &self,
        source: &GroupPartition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Starts to consume the intake queue, beside any other consumer of it: the messages are shared
    /// out. At most `prefetch` are unacknowledged. A missing queue is declared first.
    async fn consume_intake(&self, prefetch: u16) -> Result<Box<dyn IntakeConsumer>, BrokerError>;

    /// Whether a connection can be made and used, for readiness probes and start-up checks.
    async fn check(&self) -> Result<(), BrokerError>;

    /// Closes all connections; consumers and publishers end.
    async fn close(&self);
}

/// Publishes with confirmations, many in flight.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Sends a message. The first await ends when it is handed to the connection, so calls one
    /// after another keep their order on the road; the returned future ends with the broker's
    /// answer. `ConfirmTimeout` and `Unavailable` mean: unknown.
    async fn publish(&self, message: OutboundMessage) -> Result<PendingConfirmation, BrokerError>;
}

/// The answer that is still to come.
pub type PendingConfirmation =
    futures_util::future::BoxFuture<'static, Result<Confirmation, BrokerError>>;

/// Receives the messages of one queue in order. Dropping it closes its channel: what was not
/// acknowledged is delivered to the next consumer, in order.
#[async_trait]
pub trait Consumer: Send {
    /// The next message. Safe to cancel. After an error the consumer is finished: open another.
    async fn next(&mut self) -> Result<Delivery, BrokerError>;

    /// Acknowledges this message and every one before it.
    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError>;
}

/// Receives commands that other systems sent. Dropping it closes its channel: what was not
/// acknowledged is delivered again, to any consumer.
#[async_trait]
pub trait IntakeConsumer: Send {
    /// The next message. Safe to cancel. After an error the consumer is finished: open another.
    async fn next(&mut self) -> Result<IntakeDelivery, BrokerError>;

    /// Acknowledges this message alone.
    async fn ack(&mut self, tag: u64) -> Result<(), BrokerError>;

    /// Acknowledges this message and every one before it that this consumer received.
    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError>;
}
