//! A process's way to the road: messages may come twice, late or never, and nobody may hear what
//! became of them. Replies and the intake's dead letters have no log behind them, so those that were
//! confirmed are kept, as a broker promises.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt as _, future};

use super::{
    Fault,
    trace::Noted,
    world::{Gate, World},
};
use crate::{
    broker::{
        Broker, BrokerError, Confirmation, Consumer, Delivery, GroupPartition, IntakeConsumer,
        IntakeDelivery, OutboundMessage, PendingConfirmation, Publisher, local::LocalBroker,
    },
    message::GroupName,
};

/// How many messages are remembered for whoever wants to make foreign ones of them.
const LATELY: usize = 16;

pub(super) struct SimulatedBroker {
    pub(super) world: Arc<World>,
    pub(super) gate: Arc<Gate>,
    pub(super) inner: LocalBroker,
}

impl SimulatedBroker {
    async fn arrive(&self) -> Result<(), BrokerError> {
        arrive(&self.world, &self.gate).await
    }

    fn tap<C>(&self, inner: Box<C>, queue: String) -> Tap<Box<C>>
    where
        C: ?Sized,
    {
        let (world, gate) = (self.world.clone(), self.gate.clone());
        Tap { inner, queue, world, gate }
    }
}

async fn arrive(world: &World, gate: &Gate) -> Result<(), BrokerError> {
    gate.pass().await;
    if world.strikes(Fault::CrashAtBroker, 15) {
        gate.kill();
    }
    world.dawdle().await;
    gate.pass().await;
    if world.road.away.load(Ordering::Relaxed) {
        return Err(BrokerError::Unavailable("simulated: the broker is away".into()));
    }
    Ok(())
}

#[async_trait]
impl Broker for SimulatedBroker {
    async fn declare(&self, groups: &[GroupName]) -> Result<(), BrokerError> {
        self.arrive().await?;
        self.inner.declare(groups).await
    }

    async fn publisher(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.arrive().await?;
        let inner = self.inner.publisher().await?;
        let breaks = self.world.road.breaks.load(Ordering::Relaxed);
        let (world, gate) = (self.world.clone(), self.gate.clone());
        Ok(Box::new(SimulatedPublisher { inner: inner.into(), breaks, world, gate }))
    }

    async fn consume(
        &self,
        source: &GroupPartition,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        self.arrive().await?;
        let inner = self.inner.consume(source, prefetch).await?;
        Ok(Box::new(self.tap(inner, source.to_string())))
    }

    async fn consume_intake(&self, prefetch: u16) -> Result<Box<dyn IntakeConsumer>, BrokerError> {
        self.arrive().await?;
        let inner = self.inner.consume_intake(prefetch).await?;
        Ok(Box::new(self.tap(inner, "intake".into())))
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.arrive().await?;
        self.inner.check().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

struct SimulatedPublisher {
    inner: Arc<dyn Publisher>,
    /// It does not outlive a break of its connection.
    breaks: u64,
    world: Arc<World>,
    gate: Arc<Gate>,
}

#[async_trait]
impl Publisher for SimulatedPublisher {
    async fn publish(&self, message: OutboundMessage) -> Result<PendingConfirmation, BrokerError> {
        let world = &self.world;
        arrive(world, &self.gate).await?;
        if self.breaks != world.road.breaks.load(Ordering::Relaxed) {
            return Err(BrokerError::Unavailable("simulated: the connection broke".into()));
        }
        if world.strikes(Fault::PublishFailed, 40) {
            return Err(BrokerError::Unavailable("simulated: the connection broke".into()));
        }
        let has_log = message.log.is_some();
        if has_log {
            if world.strikes(Fault::PublishRefused, 40) {
                return Ok(future::ready(Ok(Confirmation::Refused)).boxed());
            }
            self.remember(&message);
            if world.strikes(Fault::MessageLost, 150) {
                return Ok(future::ready(Ok(Confirmation::Published)).boxed());
            }
            if world.strikes(Fault::Delay, 150) {
                self.send_later(message);
                return Ok(future::ready(Ok(Confirmation::Published)).boxed());
            }
        }
        if world.strikes(Fault::Duplicate, 150) {
            drop(self.inner.publish(message.clone()).await?);
        }
        let confirmation = self.inner.publish(message).await?;
        if world.strikes(Fault::ConfirmLost, 60) {
            let patience = Duration::from_millis(500);
            let lost = async move {
                tokio::time::sleep(patience).await;
                Err(BrokerError::ConfirmTimeout(patience))
            };
            return Ok(lost.boxed());
        }
        let (world, gate) = (self.world.clone(), self.gate.clone());
        let confirmed = async move {
            world.dawdle().await;
            gate.pass().await;
            confirmation.await
        };
        Ok(confirmed.boxed())
    }
}

impl SimulatedPublisher {
    fn remember(&self, message: &OutboundMessage) {
        let lately = &self.world.road.lately;
        let mut lately = lately.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.len() == LATELY {
            lately.remove(0);
        }
        lately.push(message.clone());
    }

    /// It is on the road somewhere, whatever becomes of the process.
    fn send_later(&self, message: OutboundMessage) {
        let (inner, world) = (self.inner.clone(), self.world.clone());
        let later = world.dice().millis(1, 3_000);
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            if let Err(error) = inner.publish(message).await {
                world.remark(format_args!("a delayed message is lost: {error}"));
            }
        });
    }
}

/// A consumer whose deliveries are written down.
struct Tap<C> {
    inner: C,
    queue: String,
    world: Arc<World>,
    gate: Arc<Gate>,
}

impl<C> Tap<C> {
    fn note(&self, redeliveries: u32, asked: &Noted) {
        self.world.step(&self.gate.name, &self.queue, asked, &redeliveries);
    }
}

#[async_trait]
impl Consumer for Tap<Box<dyn Consumer>> {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        self.gate.pass().await;
        let delivery = self.inner.next().await?;
        self.note(delivery.redeliveries, &Noted::of(&(&delivery.log, &delivery.body)));
        Ok(delivery)
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError> {
        arrive(&self.world, &self.gate).await?;
        self.inner.ack_through(tag).await
    }
}

#[async_trait]
impl IntakeConsumer for Tap<Box<dyn IntakeConsumer>> {
    async fn next(&mut self) -> Result<IntakeDelivery, BrokerError> {
        self.gate.pass().await;
        let delivery = self.inner.next().await?;
        self.note(delivery.redeliveries, &Noted::of(&(&delivery.message_id, &delivery.body)));
        Ok(delivery)
    }

    async fn ack(&mut self, tag: u64) -> Result<(), BrokerError> {
        arrive(&self.world, &self.gate).await?;
        self.inner.ack(tag).await
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BrokerError> {
        arrive(&self.world, &self.gate).await?;
        self.inner.ack_through(tag).await
    }
}
