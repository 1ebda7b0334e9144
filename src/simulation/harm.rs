//! Harm that comes from outside of any call: at random times, something happens to a process, to
//! the road or to the clock.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Fault,
    client::INTAKE,
    process::Order,
    world::{Gate, World},
};
use crate::{
    broker::{LogHeaders, local::LocalMessage},
    message::{LogId, Route},
};

/// A process, as harm sees it.
pub(super) struct Target {
    pub(super) gate: watch::Receiver<Arc<Gate>>,
    pub(super) orders: watch::Sender<Order>,
}

pub(super) struct Harm {
    pub(super) world: Arc<World>,
    pub(super) targets: Vec<Target>,
}

impl Harm {
    /// Does harm until the world is disarmed, then makes good what does not end by itself.
    pub(super) async fn run(&self) {
        while self.world.is_armed() {
            let pause = self.world.dice().millis(20, 900);
            tokio::time::sleep(pause).await;
            if self.world.is_armed() {
                self.strike();
            }
        }
    }

    /// Ends everything that is still going wrong.
    pub(super) fn heal(&self) {
        self.world.road.away.store(false, Ordering::Relaxed);
        for target in &self.targets {
            let gate = target.gate.borrow().clone();
            gate.cut_off(false);
            gate.resume();
        }
    }

    fn strike(&self) {
        let drawn = self.world.dice().below(100);
        match drawn {
            0..6 => self.crash(),
            6..24 => self.pause(),
            24..29 => self.replace(),
            29..43 => self.cut_off(),
            43..50 => self.foreign(),
            50..55 => self.garbage(),
            55..61 => self.lose_contents(),
            61..68 => self.outage(),
            68..75 => self.on_a_queue(Fault::QueueDeleted),
            75..82 => self.on_a_queue(Fault::QueuePurged),
            82..95 => self.on_a_queue(Fault::ChannelClosed),
            _ => self.jump(),
        }
    }

    fn victim(&self) -> Option<Arc<Gate>> {
        let target = {
            let mut dice = self.world.dice();
            dice.pick(&self.targets).map(|target| target.gate.borrow().clone())
        };
        target.filter(|gate| !gate.is_dead())
    }

    fn crash(&self) {
        if let Some(gate) = self.victim() {
            self.world.count(Fault::Crash);
            gate.kill();
        }
    }

    /// So short that nobody notices, or so long that others take over.
    fn short_or_long(&self) -> Duration {
        let mut dice = self.world.dice();
        if dice.happens(5_000) { dice.millis(100, 4_000) } else { dice.millis(5_500, 12_000) }
    }

    fn pause(&self) {
        let Some(gate) = self.victim() else { return };
        self.world.count(Fault::Pause);
        let time = self.short_or_long();
        gate.pause();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            gate.resume();
        });
    }

    fn replace(&self) {
        let mut dice = self.world.dice();
        let Some(target) = dice.pick(&self.targets) else { return };
        let stops = target.gate.borrow().clone();
        drop(dice);
        if stops.is_dead() {
            return;
        }
        self.world.count(Fault::Replacement);
        target.orders.send_modify(|order| {
            *order = match order {
                Order::Replace(count) => Order::Replace(*count + 1),
                Order::Run | Order::End => Order::Replace(1),
            }
        });
    }

    fn cut_off(&self) {
        let Some(gate) = self.victim() else { return };
        self.world.count(Fault::StoreCutOff);
        let time = self.short_or_long();
        gate.cut_off(true);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            gate.cut_off(false);
        });
    }

    /// The queues of groups; those of clients and of the intake hold what nobody else has.
    fn group_queues(&self) -> Vec<String> {
        let names = self.world.broker.queue_names();
        let of_groups = |name: &String| {
            let last = name.rsplit_once('.').map(|(_, last)| last);
            name.starts_with("adjutant.") && !name.starts_with(INTAKE) && last != Some("dlq")
        };
        names.into_iter().filter(of_groups).collect()
    }

    fn on_a_queue(&self, fault: Fault) {
        let queues = self.group_queues();
        let queue = self.world.dice().pick(&queues).cloned();
        let Some(queue) = queue else { return };
        self.world.count(fault);
        let broker = &self.world.broker;
        match fault {
            Fault::QueueDeleted => drop(broker.delete_queue(&queue)),
            Fault::QueuePurged => drop(broker.purge(&queue)),
            _ => drop(broker.close_consumers(&queue)),
        }
    }

    fn lose_contents(&self) {
        self.world.count(Fault::BrokerContentsLost);
        self.break_connections();
        for queue in self.group_queues() {
            self.world.broker.delete_queue(&queue);
        }
    }

    fn outage(&self) {
        self.world.count(Fault::BrokerOutage);
        self.world.road.away.store(true, Ordering::Relaxed);
        self.break_connections();
        let (world, time) = (self.world.clone(), self.world.dice().millis(100, 4_000));
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            world.road.away.store(false, Ordering::Relaxed);
        });
    }

    fn break_connections(&self) {
        self.world.road.breaks.fetch_add(1, Ordering::Relaxed);
        for queue in self.group_queues() {
            self.world.broker.close_consumers(&queue);
        }
        self.world.broker.close_consumers(INTAKE);
    }

    /// A message that was on the road, but says that it belongs to another log, at an offset that
    /// is still to come.
    fn foreign(&self) {
        let lately = self.world.road.lately.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let message = self.world.dice().pick(&lately).cloned();
        let Some((message, log)) = message.and_then(|it| it.log.clone().map(|log| (it, log)))
        else {
            return;
        };
        let queues = self.group_queues();
        let (suffix, commands) = match &message.route {
            Route::Commands(partition) => (format!(".p{:02}", partition.0), true),
            Route::Events(partition) => (format!(".p{:02}", partition.0), false),
            _ => return,
        };
        let fits = |queue: &&String| {
            queue.ends_with(&suffix) && queue.starts_with("adjutant.commands.") == commands
        };
        let fitting: Vec<&String> = queues.iter().filter(fits).collect();
        let Some(queue) = self.world.dice().pick(&fitting).copied().cloned() else { return };
        self.world.count(Fault::Foreign);
        let ahead = self.world.dice().below(3) as usize;
        let first_offset = log.first_offset.plus(log.entries() + ahead);
        self.put(
            &queue,
            LogHeaders { log_id: LogId::generate(), first_offset, ..log },
            message.body,
        );
    }

    fn garbage(&self) {
        let queues = self.group_queues();
        let lately = self.world.road.lately.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (queue, message) = {
            let mut dice = self.world.dice();
            (dice.pick(&queues).cloned(), dice.pick(&lately).cloned())
        };
        let (Some(queue), Some(message)) = (queue, message) else { return };
        let Some(log) = message.log else { return };
        self.world.count(Fault::Garbage);
        let half = message.body.len() / 2;
        let first_offset = log.first_offset.plus(log.entries());
        self.put(&queue, LogHeaders { first_offset, ..log }, message.body.slice(..half));
    }

    fn put(&self, queue: &str, log: LogHeaders, body: Bytes) {
        let message = LocalMessage {
            content_type: Some("application/msgpack".into()),
            log: Some(log),
            body,
            ..LocalMessage::default()
        };
        if let Err(error) = self.world.broker.send(queue, message) {
            self.world.remark(format_args!("{queue}: {error}"));
        }
    }

    fn jump(&self) {
        self.world.count(Fault::ClockJump);
        let minutes = {
            let mut dice = self.world.dice();
            if dice.happens(5_000) { dice.below(3) } else { dice.below(180) }
        };
        let seconds = self.world.dice().below(60);
        self.world.clock.jump(Duration::from_secs(minutes * 60 + seconds));
    }
}
