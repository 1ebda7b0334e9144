//! A broker under test, and what only a test can do to it.

use std::sync::Arc;

use adjutant::{
    broker::{Broker, BrokerError, Consumer, GroupPartition, local::LocalMessage},
    message::{GroupName, Partition},
};

use crate::support::{eventually, soon};

/// What differs between the brokers of the tests.
pub struct Wants {
    pub groups: Vec<GroupName>,
    pub queue_max_messages: u32,
    pub delivery_limit: u32,
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            groups: vec![GroupName::commands(), balances(), statements()],
            queue_max_messages: 10_000,
            delivery_limit: 20,
        }
    }
}

pub fn balances() -> GroupName {
    GroupName::projection("balances")
}

pub fn statements() -> GroupName {
    GroupName::projection("statements")
}

pub fn events(group: GroupName, partition: Partition) -> GroupPartition {
    GroupPartition { group, partition }
}

/// A broker with two partitions and its queues declared, and all that a test does to it that a
/// process cannot.
pub trait Testbed: Sized {
    /// A fresh one.
    async fn with(wants: Wants) -> Self;

    /// The broker as the process under test has it: always the same handle.
    fn broker(&self) -> Arc<dyn Broker>;

    /// The same queues over a connection of its own, as another process has it.
    fn another(&self) -> Arc<dyn Broker>;

    /// The name behind the prefix.
    fn name(&self, rest: &str) -> String;

    /// Breaks every connection of [`Self::broker`].
    async fn cut(&self);

    /// Makes the broker unreachable for [`Self::broker`].
    async fn down(&self);

    /// Ends that.
    async fn up(&self);

    /// Deletes a queue.
    async fn delete(&self, queue: &str);

    /// How many messages wait in a queue and are not in a consumer's hands.
    async fn depth(&self, queue: &str) -> Option<usize>;

    /// Puts a message into a queue that none of ours published.
    async fn send(&self, queue: &str, message: LocalMessage);

    /// Takes the oldest message out of a queue, if there is one at this moment.
    async fn take(&self, queue: &str) -> Option<LocalMessage>;

    /// Declares a queue for replies that refuses more than `room` messages.
    async fn reply_queue(&self, queue: &str, room: usize);

    /// The default one.
    async fn new() -> Self {
        Self::with(Wants::default()).await
    }

    /// Waits until this many messages wait in a queue.
    async fn until_depth(&self, queue: &str, expected: usize) {
        let what = format!("{expected} messages in {queue}");
        eventually(&what, async || (self.depth(queue).await == Some(expected)).then_some(())).await;
    }

    /// Waits for a message and takes it out.
    async fn until_taken(&self, queue: &str) -> LocalMessage {
        eventually(&format!("a message in {queue}"), async || self.take(queue).await).await
    }
}

/// Waits until a consumer reports that it has ended; what it still had in hand does not matter.
pub async fn until_ended(consumer: &mut Box<dyn Consumer>) {
    let error = soon("the consumer to end", async {
        loop {
            if let Err(error) = consumer.next().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}");
    assert!(consumer.next().await.is_err(), "it stays finished");
}

/// Opens a consumer as a process does: again, until the broker lets it.
pub async fn reopened(broker: &dyn Broker, source: &GroupPartition) -> Box<dyn Consumer> {
    eventually("a consumer", async || broker.consume(source, 10).await.ok()).await
}
