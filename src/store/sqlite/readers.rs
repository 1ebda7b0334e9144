//! Reading: a few read-only connections, used on blocking threads. In WAL mode they neither wait
//! for the writer nor hold it up, and each reads one snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::Semaphore;

use super::{clock::ClockSource, errors, job::Work, transaction::Transaction};
use crate::{message::PartitionCount, store::StoreError};

/// Connections that are lent to one question at a time.
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    slots: Arc<Semaphore>,
    clock: ClockSource,
    partitions: PartitionCount,
}

impl Readers {
    pub(super) fn new(
        connections: Vec<Connection>,
        clock: ClockSource,
        partitions: PartitionCount,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Arc::new(Mutex::new(connections)), slots, clock, partitions }
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let closed = |_| StoreError::Unavailable("the store is closed".into());
        let slot = self.slots.clone().acquire_owned().await.map_err(closed)?;
        let (idle, clock, partitions) = (self.idle.clone(), self.clock.clone(), self.partitions);
        let read = tokio::task::spawn_blocking(move || {
            let lent = Lent::take(idle)?;
            let done = lent.read(clock.micros(), partitions, work);
            drop(lent); // before the slot is free
            drop(slot);
            done
        });
        read.await.map_err(|error| StoreError::Internal(format!("a read ended early: {error}")))?
    }
}

/// A connection that goes back when it is dropped.
struct Lent {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Lent {
    fn take(idle: Arc<Mutex<Vec<Connection>>>) -> Result<Self, StoreError> {
        let connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if connection.is_none() {
            return Err(StoreError::Internal("a slot without a connection".into()));
        }
        Ok(Self { connection, idle })
    }

    fn read<T>(
        &self,
        now: i64,
        partitions: PartitionCount,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Internal("a slot without a connection".into());
        let connection = self.connection.as_ref().ok_or_else(gone)?;
        read(connection, now, partitions, work)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.connection.take());
    }
}

/// Reads in a transaction of its own: several statements see one snapshot.
pub(super) fn read<T>(
    connection: &Connection,
    now: i64,
    partitions: PartitionCount,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let snapshot = rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Deferred);
    let _snapshot = snapshot.map_err(errors::statement)?; // rolled back when dropped
    work(&Transaction { connection, now, partitions })
}
