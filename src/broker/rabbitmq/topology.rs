//! Exchanges, queues and bindings, and what each may hold. Declaring is idempotent; what exists
//! with other properties is reported, never changed.
//!
//! | queue | when full | dead letters |
//! |---|---|---|
//! | `{prefix}.{group}.pNN` | drops the oldest: the group reads its log | to `{prefix}.{group}.dlq` |
//! | `{prefix}.{group}.dlq` | drops the oldest | – |
//! | `{prefix}.intake` | is never full | to `{prefix}.intake.dlq`, at least once |
//! | `{prefix}.intake.dlq` | is never full | – |
//!
//! The intake holds what the database does not have yet, so nothing of it may be lost: no length
//! limit (the broker's own memory and disk alarms hold senders back), `reject-publish` (which never
//! rejects without a limit, but without it RabbitMQ silently falls back to dead-lettering at most
//! once), and dead letters that leave the queue only when `{prefix}.intake.dlq` has confirmed them;
//! if that queue is missing, they wait. It is unbounded for the same reason: it may hold the only
//! copy, and bounding it would either drop one or block the relay.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    RabbitSettings,
    error::declaring,
    exchanges::routing_key,
    link::{Link, OwnChannel},
};
use crate::{
    broker::{BrokerError, GroupPartition, names::Names},
    message::{GroupName, PartitionCount},
    observe::names,
};

/// For how long a queue that the broker would not declare is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(15);

/// For queues whose messages are only looked at by people and tools, which may fail often: "no
/// limit" cannot be said before RabbitMQ 4, where 20 is the default and more is dropped.
const PRACTICALLY_UNLIMITED: u32 = 1_000_000_000;

/// What a queue may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    max_messages: u32,
    max_bytes: u64,
    deliveries: u32,
}

impl From<&RabbitSettings> for Limits {
    fn from(settings: &RabbitSettings) -> Self {
        Self {
            max_messages: settings.queue_max_messages,
            max_bytes: settings.queue_max_bytes,
            deliveries: settings.delivery_limit,
        }
    }
}

/// Declares on a channel of its own: the first refusal closes it.
pub(super) struct Declarer<'a> {
    link: &'a Link,
    names: &'a Names,
    limits: Limits,
    refusals: &'a Refusals,
    channel: OwnChannel,
}

/// Queues that the broker would not declare, by name, and what it said. Such an answer costs the
/// connection and everything on it, so it is not asked for again at once.
#[derive(Default)]
pub(super) struct Refusals(Mutex<BTreeMap<String, (Instant, String)>>);

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, name: &str) -> Result<(), BrokerError> {
        let mut refusals = self.lock();
        refusals.retain(|_, (since, _)| since.elapsed() < REFUSED_FOR);
        match refusals.get(name) {
            Some((_, said)) => Err(BrokerError::Undeclared(said.clone())),
            None => Ok(()),
        }
    }

    fn note(&self, name: &str, error: &BrokerError) {
        if let BrokerError::Undeclared(said) = error {
            metrics::counter!(names::BROKER_UNDECLARED_TOTAL).increment(1);
            self.lock().insert(name.to_owned(), (Instant::now(), said.clone()));
        }
    }
}

impl<'a> Declarer<'a> {
    pub(super) async fn open(
        link: &'a Link,
        names: &'a Names,
        limits: Limits,
        refusals: &'a Refusals,
    ) -> Result<Self, BrokerError> {
        let channel = link.channel().await?;
        Ok(Self { link, names, limits, refusals, channel })
    }

    /// Everything that these groups and the intake need.
    pub(super) async fn everything(
        &mut self,
        groups: &[GroupName],
        partitions: PartitionCount,
    ) -> Result<(), BrokerError> {
        // Both, even if this process runs no projection: the relay publishes to both.
        self.exchange(&self.names.commands_exchange()).await?;
        self.exchange(&self.names.events_exchange()).await?;
        self.intake().await?;
        let mut first = None;
        for group in groups {
            let declared = self.group_dead_letters(group).await;
            self.go_on(declared, &mut first).await?;
            for partition in partitions.all() {
                let source = GroupPartition { group: group.clone(), partition };
                let declared = self.work_queue(&source).await;
                self.go_on(declared, &mut first).await?;
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Keeps an error that is about one queue, for later; it has closed the channel.
    async fn go_on(
        &mut self,
        declared: Result<(), BrokerError>,
        first: &mut Option<BrokerError>,
    ) -> Result<(), BrokerError> {
        match declared {
            Err(error) if error.is_about_one() => {
                first.get_or_insert(error);
                self.channel = self.link.channel().await?;
                Ok(())
            }
            declared => declared,
        }
    }

    /// What one partition of a group needs.
    pub(super) async fn partition(&self, source: &GroupPartition) -> Result<(), BrokerError> {
        self.exchange(&self.names.exchange_of(&source.group)).await?;
        self.group_dead_letters(&source.group).await?;
        self.work_queue(source).await
    }

    /// The intake and its dead letters.
    pub(super) async fn intake(&self) -> Result<(), BrokerError> {
        let dead_letters = self.names.intake_dead_letters();
        self.queue(&dead_letters, quorum(PRACTICALLY_UNLIMITED)).await?;
        let mut arguments = quorum(self.limits.deliveries);
        dead_letter_to(&mut arguments, &dead_letters);
        put(&mut arguments, "x-dead-letter-strategy", "at-least-once");
        put(&mut arguments, "x-overflow", "reject-publish");
        self.queue(&self.names.intake(), arguments).await
    }

    async fn group_dead_letters(&self, group: &GroupName) -> Result<(), BrokerError> {
        let mut arguments = quorum(PRACTICALLY_UNLIMITED);
        self.bound(&mut arguments);
        self.queue(&self.names.dead_letters(group), arguments).await
    }

    async fn work_queue(&self, source: &GroupPartition) -> Result<(), BrokerError> {
        let queue = self.names.queue(source);
        let mut arguments = quorum(self.limits.deliveries);
        self.bound(&mut arguments);
        dead_letter_to(&mut arguments, &self.names.dead_letters(&source.group));
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        self.queue(&queue, arguments).await?;
        let bind = self.channel.queue_bind(
            queue.as_str().into(),
            self.names.exchange_of(&source.group).as_str().into(),
            routing_key(source.partition).as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        self.done("queue", &queue, self.link.answer(bind).await?)
    }

    fn bound(&self, arguments: &mut FieldTable) {
        put_number(arguments, "x-max-length", self.limits.max_messages.into());
        put_number(arguments, "x-max-length-bytes", self.limits.max_bytes);
        put(arguments, "x-overflow", "drop-head");
    }

    async fn exchange(&self, name: &str) -> Result<(), BrokerError> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declare = self.channel.exchange_declare(
            name.into(),
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        );
        self.done("exchange", name, self.link.answer(declare).await?)
    }

    async fn queue(&self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        self.refusals.of(name)?;
        let options = QueueDeclareOptions::durable();
        let declare = self.channel.queue_declare(name.into(), options, arguments);
        let declared = self.done("queue", name, self.link.answer(declare).await?);
        declared.inspect_err(|error| self.refusals.note(name, error))
    }

    fn done<T>(&self, what: &str, name: &str, got: lapin::Result<T>) -> Result<(), BrokerError> {
        match got {
            Ok(_) => Ok(()),
            Err(error) => Err(declaring(self.link.endpoint(), what, name, &error)),
        }
    }
}

/// A quorum queue. The delivery limit is always given: 3.10 has none by default, 4.0 has 20.
fn quorum(delivery_limit: u32) -> FieldTable {
    let mut arguments = FieldTable::default();
    put(&mut arguments, "x-queue-type", "quorum");
    put_number(&mut arguments, "x-delivery-limit", delivery_limit.into());
    arguments
}

/// Through the default exchange, which routes by queue name.
fn dead_letter_to(arguments: &mut FieldTable, queue: &str) {
    put(arguments, "x-dead-letter-exchange", "");
    put(arguments, "x-dead-letter-routing-key", queue);
}

fn put(arguments: &mut FieldTable, name: &str, value: &str) {
    arguments.insert(name.into(), AMQPValue::LongString(value.into()));
}

fn put_number(arguments: &mut FieldTable, name: &str, value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    arguments.insert(name.into(), AMQPValue::LongLongInt(value));
}
