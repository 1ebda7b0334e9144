//! The waiting room: how much may wait for a commit, by count and by bytes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::observe::names;

/// Counts who is in. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room {
    inner: Arc<Inner>,
}

struct Inner {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    max_commands: usize,
    max_bytes: usize,
}

impl Room {
    pub(super) fn new(max_commands: usize, max_bytes: usize) -> Self {
        let (commands, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { inner: Arc::new(Inner { commands, bytes, max_commands, max_bytes }) }
    }

    /// A place, or `None` if there is no room. What is alone in the room always fits, so that no
    /// request can be too large for ever.
    pub(super) fn enter(&self, commands: usize, bytes: usize) -> Option<Place> {
        let before = self.inner.commands.fetch_add(commands, Ordering::Relaxed);
        let bytes_before = self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Counted first: if it does not fit, dropping the place takes it back.
        let place = Place { room: self.inner.clone(), commands, bytes };
        let fits = before + commands <= self.inner.max_commands
            && bytes_before + bytes <= self.inner.max_bytes;
        (fits || before == 0).then_some(place)
    }

    /// Sets the gauges; once a commit is often enough.
    pub(super) fn report(&self) {
        let commands = self.inner.commands.load(Ordering::Relaxed);
        let bytes = self.inner.bytes.load(Ordering::Relaxed);
        metrics::gauge!(names::INTAKE_WAITING_COMMANDS).set(commands as f64);
        metrics::gauge!(names::INTAKE_WAITING_BYTES).set(bytes as f64);
    }
}

/// A place in the room, given back when dropped.
pub(super) struct Place {
    room: Arc<Inner>,
    commands: usize,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.commands.fetch_sub(self.commands, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_fit_stays_out_and_takes_no_room() {
        let room = Room::new(2, 100);
        let one = room.enter(1, 10);
        let two = room.enter(1, 10);
        assert!(one.is_some() && two.is_some());
        assert!(room.enter(1, 10).is_none());
        drop(one);
        assert!(room.enter(1, 91).is_none(), "too many bytes");
        assert!(room.enter(1, 90).is_some());
    }

    #[test]
    fn what_is_alone_always_fits() {
        assert!(Room::new(2, 100).enter(3, 1000).is_some());
    }
}
