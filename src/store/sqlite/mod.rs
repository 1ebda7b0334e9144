//! The truth on SQLite: the store of the embedded service, of tests and of simulation.
//!
//! A file has one writer, a thread that owns the write connection: it runs what waits as one
//! transaction and commits once, so that many callers share one sync of the disk (write-ahead log,
//! `synchronous=FULL`). Reads have connections of their own. One process holds a file at a time.
//! In memory, everything runs inline on the caller's task, without a thread.
//!
//! What PostgreSQL fences by locks and constraints, the single writer fences by order: nothing
//! comes between a check and the write that rests on it.

mod append;
mod callbacks;
mod cancellation;
mod clock;
mod commit;
mod dead_letter_actions;
mod dead_letters;
mod engine;
mod entering;
mod errors;
#[cfg(feature = "simulation")]
pub(crate) mod evidence;
mod failures;
mod housekeeping;
mod intake;
mod job;
mod jobs;
mod logs;
mod members;
mod notices;
mod open;
mod outbox;
mod parking;
mod queries;
mod readers;
mod recurring;
mod replaying;
mod reply;
mod schema;
mod storable;
mod streams;
mod suspects;
#[cfg(feature = "simulation")]
mod tampering;
mod transaction;
mod views;
mod wal;
mod writer;

use std::{path::PathBuf, sync::Mutex, time::Duration};

use async_trait::async_trait;

pub use clock::ClockSource;
pub use open::SqliteOpenError;

use engine::{Engine, Inline};
use schema::{NewIdentity, SchemaError};
use writer::Commits;

use super::{Identity, Store, StoreError};
use crate::message::{LogId, PartitionCount, Timestamp};

/// How to open and use a file.
#[derive(Clone, Debug)]
pub struct SqliteSettings {
    /// The file; it and its directory are made if they are not there. `{path}.lock` lies beside it.
    pub path: PathBuf,
    /// How many partitions a new file gets. `None`: what the file has, or the default.
    pub partitions: Option<PartitionCount>,
    /// The log id that a new file gets.
    pub log_id: LogId,
    /// Where stored times come from.
    pub clock: ClockSource,
    /// Connections for reading.
    pub readers: usize,
    /// How many writes may wait for the writer before callers wait for room.
    pub queue: usize,
    /// How long a caller may take to decide while it holds the writer (second try of a conflicting
    /// command, folding a shared document); after that its transaction is rolled back.
    pub decide_within: Duration,
}

impl SqliteSettings {
    /// The defaults, for a file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            partitions: None,
            log_id: LogId::generate(),
            clock: ClockSource::system(),
            readers: 3,
            queue: 1_024,
            decide_within: Duration::from_secs(5),
        }
    }
}

/// A [`Store`] on SQLite.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{message::{LogId, PartitionCount}, store::{Logs, sqlite::{ClockSource, SqliteStore}}};
/// let store =
///     SqliteStore::in_memory(PartitionCount::DEFAULT, ClockSource::system(), LogId::generate())?;
/// assert_eq!(store.heads().await?.commands.len(), 8);
/// # Ok(())
/// # }
/// ```
pub struct SqliteStore {
    engine: Engine,
    identity: Identity,
    commits: Commits,
}

impl SqliteStore {
    /// Opens a file, migrates it, and starts the writer. Blocks for as long as that takes. When the
    /// store is dropped, what is queued is finished and the file is closed.
    pub fn open(settings: SqliteSettings) -> Result<Self, SqliteOpenError> {
        let (engine, identity, commits) = open::open(&settings)?;
        Ok(Self { engine, identity, commits })
    }

    /// A store without a file and without threads: every operation runs at once on the caller's
    /// task, so that a run under an injected clock repeats exactly. It ends with the value.
    pub fn in_memory(
        partitions: PartitionCount,
        clock: ClockSource,
        log_id: LogId,
    ) -> Result<Self, StoreError> {
        let connection = open::memory().map_err(errors::statement)?;
        let new = NewIdentity { log_id, partitions, now: clock.micros() };
        let identity = schema::migrate(&connection, &new).map_err(|error| match error {
            SchemaError::Database(error) => errors::statement(error),
            _ => StoreError::Internal("an empty database has a schema".into()),
        })?;
        let commits = Commits::default();
        let inline = Inline {
            connection: Mutex::new(connection),
            clock,
            partitions,
            commits: commits.clone(),
            #[cfg(feature = "simulation")]
            loses_next_commit: std::sync::atomic::AtomicBool::new(false),
        };
        Ok(Self { engine: Engine::Inline(inline), identity, commits })
    }

    /// How many transactions were committed since the store was opened; each is one sync of the
    /// disk. The metric `adjutant_sqlite_commits_total` counts the same.
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn identity(&self) -> Identity {
        self.identity
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let now = self.engine.read(|transaction| {
            // The question is asked of the database, not only of the clock.
            transaction.number("SELECT 1 FROM log_identity", ())?;
            transaction.time()
        });
        now.await
    }
}
