//! One queue: what waits, who consumes it, and what each consumer holds. Plain state: what it does
//! depends on nothing but the order of the calls.
//!
//! Messages are numbered as they come in. What waits is always sorted by that number, so what comes
//! back from a consumer stands where it stood before.

use std::{collections::VecDeque, mem, sync::Arc};

use super::{
    message::LocalMessage,
    meters::{Death, QueueMeters},
    settings::{Policy, WhenFull},
    subscription::{Given, Subscription},
};

/// A message in its queue.
pub(super) struct Stored {
    pub(super) number: u64,
    /// How often it was given to a consumer and came back.
    pub(super) returns: u32,
    pub(super) message: Arc<LocalMessage>,
}

/// What a consumer finds.
pub(super) enum Take {
    Message(Given),
    Nothing,
    /// The queue does not know this consumer (any more).
    Ended,
}

pub(super) struct Queue {
    name: Arc<str>,
    pub(super) policy: Policy,
    last_number: u64,
    waiting: VecDeque<Stored>,
    waiting_bytes: u64,
    /// In order of arrival; with a single active consumer, the first is it.
    subscriptions: VecDeque<Subscription>,
    /// What must go to the dead-letter queue.
    dead: Vec<(Death, Stored)>,
    meters: QueueMeters,
}

impl Queue {
    pub(super) fn new(name: Arc<str>, policy: Policy) -> Self {
        Self {
            meters: QueueMeters::new(&name),
            name,
            policy,
            last_number: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            subscriptions: VecDeque::new(),
            dead: Vec::new(),
        }
    }

    /// Whether it takes another message.
    pub(super) fn accepts(&self) -> bool {
        match self.policy.when_full {
            WhenFull::DropsOldest => true,
            WhenFull::RefusesNewest => {
                self.waiting.len() + self.unacknowledged() < self.policy.max_messages
            }
        }
    }

    pub(super) fn push(&mut self, message: Arc<LocalMessage>) {
        self.last_number += 1;
        self.waiting_bytes += size(&message);
        self.waiting.push_back(Stored { number: self.last_number, returns: 0, message });
        self.move_on();
    }

    pub(super) fn subscribe(&mut self, subscription: Subscription) {
        self.subscriptions.push_back(subscription);
        self.move_on();
    }

    /// Takes the oldest message out, past all consumers.
    pub(super) fn pop(&mut self) -> Option<Arc<LocalMessage>> {
        let stored = self.pop_oldest()?;
        self.show_depth();
        Some(stored.message)
    }

    /// Drops what waits, and says how much it was.
    pub(super) fn purge(&mut self) -> usize {
        let purged = mem::take(&mut self.waiting).len();
        self.waiting_bytes = 0;
        self.show_depth();
        purged
    }

    pub(super) fn depth(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.subscriptions.iter().map(Subscription::held).sum()
    }

    pub(super) fn has_consumers(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// The next message for a consumer.
    pub(super) fn take(&mut self, consumer: u64) -> Take {
        match self.subscriptions.iter_mut().find(|found| found.id == consumer) {
            None => Take::Ended,
            Some(subscription) => subscription.take().map_or(Take::Nothing, Take::Message),
        }
    }

    /// Acknowledges a message, or all up to it. `false`: there is no such consumer, or it was never
    /// given this message.
    pub(super) fn acknowledge(&mut self, consumer: u64, tag: u64, through: bool) -> bool {
        let found = self.subscriptions.iter_mut().find(|found| found.id == consumer);
        let Some(subscription) = found else { return false };
        let known = subscription.acknowledge(tag, through);
        self.move_on();
        known
    }

    /// Ends the consumers that `which` names; what they hold goes back to its place. Says how many
    /// they were.
    pub(super) fn end(&mut self, which: impl Fn(&Subscription) -> bool) -> usize {
        let (ended, others): (VecDeque<_>, _) =
            mem::take(&mut self.subscriptions).into_iter().partition(which);
        self.subscriptions = others;
        let count = ended.len();
        let mut returned = Vec::new();
        for subscription in ended {
            subscription.wake();
            returned.extend(subscription.into_held());
        }
        self.put_back(returned);
        self.move_on();
        count
    }

    /// What must go to the dead-letter queue.
    pub(super) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Takes out what must go to the dead-letter queue, as it must arrive there.
    pub(super) fn take_dead(&mut self) -> Vec<LocalMessage> {
        let name = Arc::clone(&self.name);
        let dead = mem::take(&mut self.dead).into_iter();
        dead.map(|(death, stored)| {
            self.meters.dead_lettered(death);
            stored.message.died(&name, death.as_str())
        })
        .collect()
    }

    /// The dead-letter queue is missing.
    pub(super) fn drop_dead(&mut self) {
        for _ in self.dead.drain(..) {
            self.meters.dropped();
        }
    }

    fn put_back(&mut self, mut returned: Vec<Stored>) {
        for stored in &mut returned {
            stored.returns = stored.returns.saturating_add(1);
        }
        let limit = self.policy.delivery_limit;
        let (alive, dead): (Vec<_>, Vec<_>) =
            returned.into_iter().partition(|stored| stored.returns <= limit);
        self.dead.extend(dead.into_iter().map(|stored| (Death::DeliveryLimit, stored)));
        self.waiting_bytes += alive.iter().map(|stored| size(&stored.message)).sum::<u64>();
        let last = alive.iter().map(|stored| stored.number).max();
        let first_waiting = self.waiting.front().map(|stored| stored.number);
        for stored in alive.into_iter().rev() {
            self.waiting.push_front(stored);
        }
        // Where several consumers share, what they held lies in between.
        if !self.policy.single_active || first_waiting < last {
            self.waiting.make_contiguous().sort_by_key(|stored| stored.number);
        }
    }

    /// Gives out what may be given out, then drops what is too much.
    fn move_on(&mut self) {
        if self.policy.single_active {
            while self.give_to_first() {}
        } else {
            self.share_out();
        }
        self.shorten();
        self.show_depth();
    }

    /// In turn, whoever has room.
    fn share_out(&mut self) {
        let mut without_room = 0;
        while without_room < self.subscriptions.len() && !self.waiting.is_empty() {
            without_room = if self.give_to_first() { 0 } else { without_room + 1 };
            self.subscriptions.rotate_left(1);
        }
    }

    /// `false`: there is nothing to give, or nobody with room stands first.
    fn give_to_first(&mut self) -> bool {
        let first = self.subscriptions.front_mut().filter(|first| first.has_room());
        let Some(subscription) = first else { return false };
        let Some(stored) = self.waiting.pop_front() else { return false };
        self.waiting_bytes -= size(&stored.message);
        subscription.give(stored);
        true
    }

    fn shorten(&mut self) {
        let Policy { when_full: WhenFull::DropsOldest, max_messages, max_bytes, .. } = self.policy
        else {
            return;
        };
        while self.waiting.len() > max_messages || self.waiting_bytes > max_bytes {
            let Some(oldest) = self.pop_oldest() else { return };
            if self.policy.dead_letters.is_some() {
                self.dead.push((Death::MaxLength, oldest));
            } else {
                self.meters.dropped();
            }
        }
    }

    fn pop_oldest(&mut self) -> Option<Stored> {
        let stored = self.waiting.pop_front()?;
        self.waiting_bytes -= size(&stored.message);
        Some(stored)
    }

    fn show_depth(&self) {
        self.meters.depth.set(self.waiting.len() as f64);
    }
}

impl Drop for Queue {
    /// Whoever deletes a queue deletes what waits in it, and ends its consumers.
    fn drop(&mut self) {
        self.meters.depth.set(0.0);
        self.subscriptions.iter().for_each(Subscription::wake);
    }
}

fn size(message: &LocalMessage) -> u64 {
    message.body.len() as u64
}
