//! A consumer as its queue sees it: what it was given and has not acknowledged.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::Notify;

use super::{message::LocalMessage, queue::Stored};

/// A message in a consumer's hands.
pub(super) struct Given {
    pub(super) tag: u64,
    pub(super) redeliveries: u32,
    pub(super) message: Arc<LocalMessage>,
}

pub(super) struct Subscription {
    pub(super) id: u64,
    /// Ends with it.
    pub(super) connection: u64,
    prefetch: usize,
    last_tag: u64,
    /// By tag. The first `taken` were taken by the consumer, the others lie ready for it.
    held: VecDeque<(u64, Stored)>,
    taken: usize,
    last_taken: u64,
    wake: Arc<Notify>,
}

impl Subscription {
    pub(super) fn new(id: u64, connection: u64, prefetch: usize, wake: Arc<Notify>) -> Self {
        Self {
            id,
            connection,
            prefetch,
            last_tag: 0,
            held: VecDeque::new(),
            taken: 0,
            last_taken: 0,
            wake,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.held.len() < self.prefetch
    }

    /// How many messages it has not acknowledged.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn give(&mut self, stored: Stored) {
        // It can only be waiting if it found nothing.
        if self.held.len() == self.taken {
            self.wake();
        }
        self.last_tag += 1;
        self.held.push_back((self.last_tag, stored));
    }

    pub(super) fn take(&mut self) -> Option<Given> {
        let (tag, stored) = self.held.get(self.taken)?;
        self.taken += 1;
        self.last_taken = *tag;
        let (redeliveries, message) = (stored.returns, Arc::clone(&stored.message));
        Some(Given { tag: *tag, redeliveries, message })
    }

    /// `false`: nothing with this tag was ever taken. What was acknowledged before is no error.
    pub(super) fn acknowledge(&mut self, tag: u64, through: bool) -> bool {
        if tag == 0 || tag > self.last_taken {
            return false;
        }
        if through {
            let count = self.held.partition_point(|(held, _)| *held <= tag);
            self.held.drain(..count);
            self.taken -= count;
        } else if let Ok(place) = self.held.binary_search_by_key(&tag, |(held, _)| *held) {
            self.held.remove(place);
            self.taken -= 1;
        }
        true
    }

    /// Lets the consumer see that something has changed.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// What it was given and has not acknowledged, in order.
    pub(super) fn into_held(self) -> impl DoubleEndedIterator<Item = Stored> {
        self.held.into_iter().map(|(_, stored)| stored)
    }
}
