//! How operations reach the database: through threads (a file), or inline (memory). The operations
//! are the same functions.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};

use super::{
    clock::ClockSource,
    errors::{self, Failed},
    job::{self, Work},
    readers::{self, Readers},
    transaction::Transaction,
    writer::{Commits, Writer, answered},
};
use crate::{message::PartitionCount, store::StoreError};

pub(super) enum Engine {
    /// Everything on the caller's task, for runs that must repeat exactly.
    Inline(Inline),
    /// One writer, several readers.
    Threads(Threads),
}

pub(super) struct Threads {
    /// Closed before the writer, which closes the file last and tidies it up.
    pub(super) readers: Readers,
    pub(super) writer: Writer,
    /// How long a caller may take to decide while it holds the writer.
    pub(super) decide_within: Duration,
}

pub(super) struct Inline {
    pub(super) connection: Mutex<Connection>,
    pub(super) clock: ClockSource,
    pub(super) partitions: PartitionCount,
    pub(super) commits: Commits,
    /// The next commit takes no place, and nobody hears of it: a simulation's way to lose one.
    #[cfg(feature = "simulation")]
    pub(super) loses_next_commit: std::sync::atomic::AtomicBool,
}

impl Engine {
    /// Runs work that writes: all of it takes place, or nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Inline(inline) => inline.write(work),
            Self::Threads(threads) => {
                let (job, answer) = job::call(work);
                threads.writer.submit(job).await?;
                answered(answer).await
            }
        }
    }

    /// Runs work that only reads, on one snapshot.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl Work<T>,
    ) -> Result<T, StoreError> {
        match self {
            Self::Inline(inline) => inline.read(work),
            Self::Threads(threads) => threads.readers.read(work).await,
        }
    }

    /// Loads, lets `decide` decide here, and writes the decision, all in one transaction.
    pub(super) async fn converse<L, D, T>(
        &self,
        load: impl Work<L>,
        decide: impl FnOnce(L) -> Result<D, StoreError> + Send,
        finish: impl FnOnce(&Transaction<'_>, D) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError>
    where
        L: Send + 'static,
        D: Send + 'static,
        T: Send + 'static,
    {
        match self {
            Self::Inline(inline) => {
                inline.write(|transaction| finish(transaction, decide(load(transaction)?)?))
            }
            Self::Threads(threads) => {
                let (job, caller) = job::conversation(load, finish, threads.decide_within);
                threads.writer.submit(job).await?;
                let Ok(loaded) = caller.loaded.await else {
                    return answered(caller.answer).await; // it says why
                };
                let decision = decide(loaded)?;
                // Nobody listens any more: the answer says why.
                let _ = caller.decision.send(decision);
                answered(caller.answer).await
            }
        }
    }
}

impl Inline {
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A decision that panicked rolled its transaction back: the connection is sound.
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let outer =
            rusqlite::Transaction::new_unchecked(&connection, TransactionBehavior::Immediate);
        let outer = outer.map_err(errors::statement)?;
        let (now, partitions) = (self.clock.micros(), self.partitions);
        let changes_before = connection.total_changes();
        let done = work(&Transaction { connection: &connection, now, partitions })?;
        #[cfg(feature = "simulation")]
        if self.loses_next_commit.swap(false, std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Unknown("the connection broke at COMMIT".to_owned()));
        }
        outer.commit().map_err(|error| Failed::commit(&error).error())?;
        if connection.total_changes() > changes_before {
            self.commits.count();
        }
        Ok(done)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        readers::read(&connection, self.clock.micros(), self.partitions, work)
    }
}
