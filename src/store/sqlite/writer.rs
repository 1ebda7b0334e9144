//! The one writer: a thread that owns the write connection. It takes everything that waits, runs it
//! as one transaction with a savepoint per caller, commits once and only then answers: many callers
//! share one sync of the disk, and a caller's failure undoes only its own work.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::mpsc;

use super::{
    clock::ClockSource,
    errors::{self, Failed},
    job::{Answer, Job},
    open::LockFile,
    transaction::Transaction,
    wal::WriteAheadLog,
};
use crate::{message::PartitionCount, observe::names, store::StoreError};

/// How many callers share a transaction at most: bounds what the first of them waits for.
const BATCH: usize = 512;

/// The callers' side.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It holds the lock on the file until its connection is closed.
    pub(super) fn start(
        committer: Committer,
        lock: LockFile,
        queue: usize,
    ) -> Result<Self, io::Error> {
        let (queue, jobs) = mpsc::channel(queue.max(1));
        let thread =
            std::thread::Builder::new().name("adjutant-sqlite".into()).spawn(move || {
                committer.run(jobs);
                drop(lock);
            })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a job, once there is room.
    pub(super) async fn submit(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let gone = || StoreError::Unavailable("the writer of the store has stopped".into());
        self.queue.as_ref().ok_or_else(gone)?.send(job).await.map_err(|_| gone())
    }
}

impl Drop for Writer {
    /// Waits until what is queued is done and the file is closed, so that it can be opened again.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the SQLite store panicked");
        }
    }
}

/// Waits for what the writer answers.
pub(super) async fn answered<T>(answer: Answer<T>) -> Result<T, StoreError> {
    let stopped = |_| StoreError::Unknown("the writer of the store stopped while at it".into());
    answer.await.unwrap_or_else(|error| Err(stopped(error)))
}

/// The write connection and what its transactions need.
pub(super) struct Committer {
    pub(super) connection: Connection,
    pub(super) clock: ClockSource,
    pub(super) partitions: PartitionCount,
    pub(super) commits: Commits,
    pub(super) log: WriteAheadLog,
}

impl Committer {
    fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Some(first) = jobs.blocking_recv() else { return };
                waiting.push_back(first);
            }
            while waiting.len() < BATCH
                && let Ok(job) = jobs.try_recv()
            {
                waiting.push_back(job);
            }
            self.run_batch(&mut waiting);
            self.log.tend(&self.connection);
        }
    }

    fn run_batch(&self, waiting: &mut VecDeque<Box<dyn Job>>) {
        let begun =
            rusqlite::Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate);
        let outer = match begun {
            Ok(outer) => outer,
            Err(error) => return refuse_all(waiting, error),
        };
        let mut ran: Vec<Box<dyn Job>> = Vec::new();
        let mut kept = false;
        while let Some(mut job) = waiting.pop_front() {
            if !job.is_wanted() {
                continue;
            }
            // It begins a transaction, so that nobody who is done waits for a third party.
            if job.waits_for_caller() && !ran.is_empty() {
                waiting.push_front(job);
                break;
            }
            let step = self.run_job(&mut *job);
            ran.push(job);
            match step {
                Ok(keeps) => kept |= keeps,
                Err(failed) => {
                    drop(outer);
                    return answer(ran, Some(&failed));
                }
            }
        }
        match outer.commit() {
            Ok(()) => {
                if kept {
                    self.commits.count();
                }
                answer(ran, None);
            }
            Err(error) => answer(ran, Some(&Failed::commit(&error))),
        }
    }

    /// Runs a job inside a savepoint; whether it changed something. An error: the savepoint is no
    /// protection any more, and nothing of the whole transaction may be kept.
    fn run_job(&self, job: &mut dyn Job) -> Result<bool, Failed> {
        let broken = |error: StoreError| Failed::rolled_back(error.to_string());
        let transaction = Transaction {
            connection: &self.connection,
            now: self.clock.micros(),
            partitions: self.partitions,
        };
        transaction.execute("SAVEPOINT job", ()).map_err(broken)?;
        let changes_before = self.connection.total_changes();
        // A panic must not end the writer: it is a failure of this transaction.
        let ran = catch_unwind(AssertUnwindSafe(|| job.run(&transaction)));
        let keep = ran.map_err(|_| Failed::rolled_back("a job of the store panicked"))?;
        if self.connection.is_autocommit() {
            // A full disk and the like: SQLite rolled everything back by itself.
            return Err(Failed::rolled_back("an error of the disk ended a shared transaction"));
        }
        if !keep {
            transaction.execute("ROLLBACK TO job", ()).map_err(broken)?;
        }
        transaction.execute("RELEASE job", ()).map_err(broken)?;
        Ok(keep && self.connection.total_changes() > changes_before)
    }
}

fn answer(ran: Vec<Box<dyn Job>>, failed: Option<&Failed>) {
    for job in ran {
        job.answer(failed.map_or(Ok(()), |failed| Err(failed.error())));
    }
}

/// The transaction could not begin.
fn refuse_all(waiting: &mut VecDeque<Box<dyn Job>>, error: rusqlite::Error) {
    let text = errors::statement(error).to_string();
    for job in waiting.drain(..) {
        job.answer(Err(StoreError::Unavailable(text.clone())));
    }
}

/// Counts transactions that wrote something; each is one sync of the disk.
#[derive(Clone, Default)]
pub(super) struct Commits(Arc<AtomicU64>);

impl Commits {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(names::SQLITE_COMMITS_TOTAL).increment(1);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
