//! A message as it lies in a queue.

use bytes::Bytes;

use crate::{
    broker::{LogHeaders, OutboundMessage},
    message::Route,
};

const FIRST_DEATH_QUEUE: &str = "x-first-death-queue";
const FIRST_DEATH_REASON: &str = "x-first-death-reason";

/// A message in AMQP's terms. The relay makes them from outbox rows; whoever plays another system
/// in the same process makes them from anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalMessage {
    /// The outbox row's id; of a command that is sent to the intake, the command's id.
    pub message_id: Option<String>,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// The queue that waits for the outcome.
    pub reply_to: Option<String>,
    /// Echoed on the reply.
    pub correlation_id: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Present if it carries log entries.
    pub log: Option<LogHeaders>,
    /// The body.
    pub body: Bytes,
}

impl LocalMessage {
    /// The value of a further header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// What leaves the outbox, and where it goes.
    pub(super) fn outbound(message: OutboundMessage) -> (Route, Self) {
        let sent = Self {
            message_id: Some(message.id.to_string()),
            content_type: Some(message.content_type),
            reply_to: None,
            correlation_id: message.correlation_id,
            headers: message.headers,
            log: message.log,
            body: message.body,
        };
        (message.route, sent)
    }

    /// The copy that goes to a dead-letter queue. It says where and why it died under the names
    /// that RabbitMQ uses; an earlier death stays what it says.
    pub(super) fn died(&self, queue: &str, reason: &'static str) -> Self {
        let mut dead = self.clone();
        if self.header(FIRST_DEATH_REASON).is_none() {
            dead.headers.push((FIRST_DEATH_QUEUE.to_owned(), queue.to_owned()));
            dead.headers.push((FIRST_DEATH_REASON.to_owned(), reason.to_owned()));
        }
        dead
    }
}
