//! What one process has of the broker. It is closed for itself: the queues stay, for others.

use std::sync::{
    Arc, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use super::server::{Server, State};
use crate::broker::BrokerError;

pub(super) struct Connection {
    server: Arc<Server>,
    id: u64,
    /// Changed and read under the server's lock only.
    closed: AtomicBool,
}

impl Connection {
    pub(super) fn new(server: Arc<Server>) -> Self {
        let id = server.lock().new_id();
        Self { server, id, closed: AtomicBool::new(false) }
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The broker's state, unless the connection was closed or the broker is away.
    pub(super) fn open(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.server.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(BrokerError::Unavailable("this process closed it".to_owned()));
        }
        if state.away {
            return Err(BrokerError::Unavailable("the in-process broker is away".to_owned()));
        }
        Ok(state)
    }

    pub(super) fn close(&self) {
        let mut state = self.server.lock();
        self.closed.store(true, Ordering::Relaxed);
        state.end_connection(self.id);
    }
}
