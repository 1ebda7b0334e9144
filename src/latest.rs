//! The latest value of something, for whoever wants to hear when it changes. Like
//! `tokio::sync::watch`, but those who wait are woken in the order in which they began to wait;
//! there the order is random, and a simulation would not repeat.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    /// Nobody will change it any more.
    is_final: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value, and who hears of its changes.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { value, version: 0, is_final: false });
    let shared = Arc::new(Shared { state, changed: Notify::new() });
    (Sender { shared: shared.clone() }, Receiver { shared, seen: 0 })
}

/// Changes the value. Without it, the value stays as it is, for ever.
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Changes the value; whether it is another one is for `change` to say.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut state = self.shared.lock();
        if change(&mut state.value) {
            state.version += 1;
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }

    /// Changes the value.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Replaces the value.
    pub(crate) fn send_replace(&self, new: T) {
        self.send_modify(|value| *value = new);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.lock().is_final = true;
        self.shared.changed.notify_waiters();
    }
}

/// Nobody will change the value any more.
#[derive(Debug)]
pub struct Final;

/// Hears of changes, and reads the value.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Receiver<T> {
    /// Reads the value, without counting it as seen.
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.shared.lock().value)
    }

    /// The value, from now on seen.
    pub fn take(&mut self) -> T
    where
        T: Clone,
    {
        let state = self.shared.lock();
        self.seen = state.version;
        state.value.clone()
    }

    /// Ends when there is a value that was not seen, and counts it as seen. Safe to cancel.
    pub async fn changed(&mut self) -> Result<(), Final> {
        loop {
            // Before the look: what changes after it is heard.
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.lock();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.is_final {
                    return Err(Final);
                }
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_heard_once_and_the_end_is_heard() {
        let (sender, mut receiver) = channel(1);
        sender.send_replace(2);
        let mut late = receiver.clone();
        assert!(receiver.changed().await.is_ok());
        assert_eq!(receiver.read(|value| *value), 2);
        assert_eq!(late.take(), 2);
        sender.send_if_modified(|_| false);
        drop(sender);
        assert!(receiver.changed().await.is_err());
        assert!(late.changed().await.is_err(), "what was taken is seen");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn those_who_wait_are_woken_in_their_order() {
        let (sender, receiver) = channel(());
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..50)
            .map(|nth| {
                let (mut receiver, order) = (receiver.clone(), order.clone());
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    order.lock().unwrap().push(nth);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send_replace(());
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
