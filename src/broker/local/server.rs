//! All queues, and which messages go where: what RabbitMQ is to its clients. One lock guards it,
//! held for a few steps at a time and never while anything waits.
//!
//! Everything is kept in sorted maps: two runs with the same calls behave the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    message::LocalMessage,
    queue::Queue,
    settings::{LocalSettings, Policy},
    subscription::Subscription,
};
use crate::{
    broker::{BrokerError, Confirmation, GroupPartition, names::Names},
    message::{GroupName, Partition, PartitionCount, Route},
};

pub(super) struct Server {
    pub(super) settings: LocalSettings,
    pub(super) names: Names,
    pub(super) partitions: PartitionCount,
    intake: Arc<str>,
    intake_dead_letters: Arc<str>,
    state: Mutex<State>,
}

/// What distributes messages to queues by partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exchange {
    Commands,
    Events,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) queues: BTreeMap<Arc<str>, Queue>,
    bindings: BTreeMap<(Exchange, Partition), Vec<Arc<str>>>,
    last_id: u64,
    /// Nobody can use it at present.
    pub(super) away: bool,
    /// How often all connections broke. What was opened before is finished.
    pub(super) breaks: u64,
}

impl Server {
    pub(super) fn new(settings: LocalSettings, partitions: PartitionCount) -> Self {
        let names = Names::new(&settings.prefix);
        Self {
            intake: names.intake().into(),
            intake_dead_letters: names.intake_dead_letters().into(),
            names,
            settings,
            partitions,
            state: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that these groups and the intake need.
    pub(super) fn declare(&self, state: &mut State, groups: &[GroupName]) {
        self.declare_intake(state);
        for group in groups {
            for partition in self.partitions.all() {
                self.declare_partition(state, &GroupPartition { group: group.clone(), partition });
            }
        }
    }

    /// What one partition of a group needs. Says what its queue is called.
    pub(super) fn declare_partition(&self, state: &mut State, source: &GroupPartition) -> Arc<str> {
        let dead_letters: Arc<str> = self.names.dead_letters(&source.group).into();
        state.declare(&dead_letters, || Policy::group_dead_letters(&self.settings));
        let queue: Arc<str> = self.names.queue(source).into();
        if state.declare(&queue, || Policy::work(&self.settings, dead_letters)) {
            let exchange = if source.group == GroupName::commands() {
                Exchange::Commands
            } else {
                Exchange::Events
            };
            let bound = state.bindings.entry((exchange, source.partition)).or_default();
            bound.push(Arc::clone(&queue));
        }
        queue
    }

    /// The intake and its dead letters. Says what the intake's queue is called.
    pub(super) fn declare_intake(&self, state: &mut State) -> Arc<str> {
        state.declare(&self.intake_dead_letters, Policy::intake_dead_letters);
        let dead_letters = Arc::clone(&self.intake_dead_letters);
        state.declare(&self.intake, || Policy::intake(&self.settings, dead_letters));
        bury(&mut state.queues, &self.intake);
        Arc::clone(&self.intake)
    }

    pub(super) fn publish(
        &self,
        state: &mut State,
        route: &Route,
        message: LocalMessage,
    ) -> Confirmation {
        match route {
            Route::Commands(partition) => state.distribute(Exchange::Commands, *partition, message),
            Route::Events(partition) => state.distribute(Exchange::Events, *partition, message),
            Route::Reply { queue } => state.send(queue, message),
            Route::IntakeDeadLetter => state.send(&self.intake_dead_letters, message),
        }
    }
}

impl State {
    /// An id that nothing else has: of a connection, or of a consumer.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// `false`: it is there already, and stays as it is.
    pub(super) fn declare(&mut self, name: &Arc<str>, policy: impl FnOnce() -> Policy) -> bool {
        if self.queues.contains_key(name) {
            return false;
        }
        self.queues.insert(Arc::clone(name), Queue::new(Arc::clone(name), policy()));
        true
    }

    /// Puts a message into the queue of this name.
    pub(super) fn send(&mut self, name: &str, message: LocalMessage) -> Confirmation {
        let Some(queue) = self.queues.get_mut(name) else { return Confirmation::Unroutable };
        if !queue.accepts() {
            return Confirmation::Refused;
        }
        queue.push(Arc::new(message));
        bury(&mut self.queues, name);
        Confirmation::Published
    }

    fn distribute(
        &mut self,
        exchange: Exchange,
        partition: Partition,
        message: LocalMessage,
    ) -> Confirmation {
        let Self { queues, bindings, .. } = self;
        let bound = bindings.get(&(exchange, partition)).map_or(&[][..], Vec::as_slice);
        let message = Arc::new(message);
        for name in bound {
            if let Some(queue) = queues.get_mut(name) {
                queue.push(Arc::clone(&message));
            }
            bury(queues, name);
        }
        if bound.is_empty() { Confirmation::Unroutable } else { Confirmation::Published }
    }

    /// Starts to consume a queue that is there. Says how to ask for its messages.
    pub(super) fn subscribe(
        &mut self,
        name: &str,
        connection: u64,
        prefetch: usize,
    ) -> Result<(u64, Arc<Notify>), BrokerError> {
        let id = self.new_id();
        let wake = Arc::new(Notify::new());
        let queue = self.queues.get_mut(name).ok_or_else(|| ended(name))?;
        queue.subscribe(Subscription::new(id, connection, prefetch, Arc::clone(&wake)));
        bury(&mut self.queues, name);
        Ok((id, wake))
    }

    /// Acknowledges a message, or all up to it. A consumer that acknowledges what it was never given
    /// is ended, as AMQP demands.
    pub(super) fn acknowledge(
        &mut self,
        name: &str,
        consumer: u64,
        tag: u64,
        through: bool,
    ) -> Result<(), BrokerError> {
        let queue = self.queues.get_mut(name).ok_or_else(|| ended(name))?;
        if queue.acknowledge(consumer, tag, through) {
            return Ok(());
        }
        self.end_consumer(name, consumer);
        Err(BrokerError::Unavailable(format!("`{name}`: nothing to acknowledge with tag {tag}")))
    }

    /// What it holds goes to the next consumer.
    pub(super) fn end_consumer(&mut self, name: &str, consumer: u64) {
        self.end_consumers(name, |found| found.id == consumer);
    }

    /// Ends the consumers of a queue that `which` names, and says how many they were.
    pub(super) fn end_consumers(
        &mut self,
        name: &str,
        which: impl Fn(&Subscription) -> bool,
    ) -> usize {
        let Some(queue) = self.queues.get_mut(name) else { return 0 };
        let count = queue.end(which);
        if queue.policy.exclusive && !queue.has_consumers() {
            self.delete(name);
        } else {
            bury(&mut self.queues, name);
        }
        count
    }

    /// Ends every consumer of a connection.
    pub(super) fn end_connection(&mut self, connection: u64) {
        self.end_everywhere(|found| found.connection == connection);
    }

    fn end_everywhere(&mut self, which: impl Fn(&Subscription) -> bool) {
        let names: Vec<_> = self.queues.keys().cloned().collect();
        for name in names {
            self.end_consumers(&name, &which);
        }
    }

    /// Deletes a queue with what is in it; its consumers end. `false`: it is not there.
    pub(super) fn delete(&mut self, name: &str) -> bool {
        for bound in self.bindings.values_mut() {
            bound.retain(|found| &**found != name);
        }
        self.queues.remove(name).is_some()
    }

    /// What is left after the process that held all this has died.
    pub(super) fn lose_everything(&mut self) {
        self.queues.clear();
        self.bindings.clear();
        self.breaks += 1;
    }

    /// Every connection breaks, and none can be used until it is back. The queues stay.
    pub(super) fn go_away(&mut self) {
        self.away = true;
        self.breaks += 1;
        self.end_everywhere(|_| true);
    }
}

/// Moves the dead letters of a queue to where they belong.
fn bury(queues: &mut BTreeMap<Arc<str>, Queue>, name: &str) {
    let Some(queue) = queues.get_mut(name).filter(|queue| queue.has_dead()) else { return };
    let target = queue.policy.dead_letters.clone();
    let target = target.filter(|target| queues.contains_key(target));
    // Looked up again: the line above needed all of them.
    let Some(queue) = queues.get_mut(name) else { return };
    let Some(target) = target else {
        if !queue.policy.keeps_dead_letters {
            queue.drop_dead();
        }
        return;
    };
    let dead = queue.take_dead();
    if let Some(target) = queues.get_mut(&target) {
        for message in dead {
            target.push(Arc::new(message));
        }
    }
}

/// What a consumer hears that its queue does not know.
pub(super) fn ended(queue: &str) -> BrokerError {
    BrokerError::Unavailable(format!("`{queue}` was deleted, or its channel closed"))
}
