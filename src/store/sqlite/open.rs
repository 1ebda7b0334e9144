//! Opening a file: the lock, the connections and their settings.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    SqliteSettings,
    engine::{Engine, Threads},
    members,
    readers::Readers,
    schema::{self, NewIdentity, SchemaError},
    wal::WriteAheadLog,
    writer::{Commits, Committer, Writer},
};
use crate::{message::PartitionCount, store::Identity};

/// Why a file cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
pub enum SqliteOpenError {
    /// Another process, or another store of this one, has it open.
    #[error(
        "{} is in use: another process holds {}; stop it, or use another file",
        path.display(), lock.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
        /// Its lock file.
        lock: PathBuf,
    },
    /// A newer release migrated it.
    #[error(
        "{} has schema {found}, this release knows schemas up to {known}; start the newer release \
         that wrote it, or restore a copy from before the upgrade",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// The partition count is fixed already.
    #[error(
        "{} was initialised with {found} partitions; {asked} were asked for, but the number cannot \
         change (ask for {found}, or start with a new file)",
        path.display()
    )]
    PartitionCount {
        /// The file.
        path: PathBuf,
        /// What the file has.
        found: i16,
        /// What was asked for.
        asked: i16,
    },
    /// It is a database of something else.
    #[error("{} is a SQLite database of another program; use another file", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file system does not support the write-ahead log.
    #[error(
        "{} cannot keep a write-ahead log (journal mode {mode}); use a file on a local disk",
        path.display()
    )]
    NoWal {
        /// The file.
        path: PathBuf,
        /// The journal mode that SQLite chose instead.
        mode: String,
    },
    /// It is damaged.
    #[error("{} is damaged: {what}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file system refused.
    #[error("{} cannot be opened: {source}", path.display())]
    File {
        /// The file, or its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{} cannot be opened: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// How long a connection waits for a lock.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// An advisory lock, held as long as this exists (also if the process dies, the system lets it go).
pub(super) struct LockFile(#[expect(dead_code, reason = "held, not used")] File);

impl LockFile {
    /// `{file}.lock`, beside the file.
    fn take(path: &Path) -> Result<Self, SqliteOpenError> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let failed = |source| SqliteOpenError::File { path: lock.clone(), source };
        let file = make_file(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(SqliteOpenError::InUse { path: path.to_owned(), lock })
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Opens the file and starts the threads.
pub(super) fn open(
    settings: &SqliteSettings,
) -> Result<(Engine, Identity, Commits), SqliteOpenError> {
    let path = &settings.path;
    let file_failed = |source| SqliteOpenError::File { path: path.clone(), source };
    let failed = |source| SqliteOpenError::Database { path: path.clone(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        make_directory(directory).map_err(file_failed)?;
    }
    let lock = LockFile::take(path)?;
    // SQLite gives the log and its index the permissions of the file.
    make_file(path).map_err(file_failed)?;
    let connection = write_connection(path)?;
    let new = NewIdentity {
        log_id: settings.log_id,
        partitions: settings.partitions.unwrap_or(PartitionCount::DEFAULT),
        now: settings.clock.micros(),
    };
    let identity = schema::migrate(&connection, &new).map_err(|error| explain(path, error))?;
    let (found, asked) = (identity.partitions.get(), settings.partitions);
    if let Some(asked) = asked.map(PartitionCount::get).filter(|asked| *asked != found) {
        return Err(SqliteOpenError::PartitionCount { path: path.clone(), found, asked });
    }
    members::forget_all(&connection).map_err(failed)?;
    let readers =
        (0..settings.readers.max(1)).map(|_| read_connection(path)).collect::<Result<_, _>>();
    let readers =
        Readers::new(readers.map_err(failed)?, settings.clock.clone(), identity.partitions);
    let commits = Commits::default();
    let committer = Committer {
        connection,
        clock: settings.clock.clone(),
        partitions: identity.partitions,
        commits: commits.clone(),
        log: WriteAheadLog::of(path),
    };
    let writer = Writer::start(committer, lock, settings.queue).map_err(file_failed)?;
    let threads = Threads { readers, writer, decide_within: settings.decide_within };
    Ok((Engine::Threads(threads), identity, commits))
}

/// For nobody but its owner: what is in it is anybody's money.
fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Opens a file; one that is made is for nobody but its owner.
fn make_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn explain(path: &Path, error: SchemaError) -> SqliteOpenError {
    let path = path.to_owned();
    match error {
        SchemaError::NotOurs => SqliteOpenError::NotOurs { path },
        SchemaError::Newer(found) => SqliteOpenError::Newer { path, found, known: schema::NEWEST },
        SchemaError::Damaged(what) => SqliteOpenError::Damaged { path, what },
        SchemaError::Database(source) => SqliteOpenError::Database { path, source },
    }
}

fn write_connection(path: &Path) -> Result<Connection, SqliteOpenError> {
    let failed = |source| SqliteOpenError::Database { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(SqliteOpenError::NoWal { path: path.to_owned(), mode });
    }
    // FULL: the log is synced at every commit; an answered commit survives a power failure.
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // 16 MiB of log between checkpoints: each syncs twice more.
    connection.pragma_update(None, "wal_autocheckpoint", 4_096).map_err(failed)?;
    // A log that a long read made longer shrinks again.
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024).map_err(failed)?;
    prepare(&connection).map_err(failed)?;
    Ok(connection)
}

fn read_connection(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// A database in memory, for the inline engine.
pub(super) fn memory() -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_in_memory()?;
    prepare(&connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), rusqlite::Error> {
    // Somebody may look at the file with a tool, and hold a lock for a moment.
    connection.busy_timeout(BUSY)?;
    // 16 MiB of pages.
    connection.pragma_update(None, "cache_size", -16_384)?;
    // Every statement of this store.
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}
