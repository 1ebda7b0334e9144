//! The write-ahead log's size. SQLite writes it back by itself, but begins it anew only when no
//! reader is in it; readers that overlap would let it grow for ever.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::open::BUSY;
use crate::observe::names;

/// A log larger than this is begun anew.
const LARGE: u64 = 64 * 1024 * 1024;
/// How often its size is looked at, and how often that is tried at most.
const EVERY: Duration = Duration::from_secs(1);
/// How long the writer waits for the readers that are in it.
const READERS: Duration = Duration::from_millis(200);

pub(super) struct WriteAheadLog {
    path: PathBuf,
    look_at: Instant,
}

impl WriteAheadLog {
    /// Of the database at this path.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), look_at: Instant::now() }
    }

    /// Between two transactions of the writer. Readers that stay longer than a moment (an audit)
    /// put it off.
    pub(super) fn tend(&mut self, connection: &Connection) {
        if self.look_at > Instant::now() {
            return;
        }
        self.look_at = Instant::now() + EVERY;
        let size = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        metrics::gauge!(names::SQLITE_WAL_BYTES).set(size as f64);
        if size <= LARGE {
            return;
        }
        let restarted = connection.busy_timeout(READERS).and_then(|()| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        match restarted {
            Ok(0) => tracing::debug!(size, "the write-ahead log begins anew"),
            Ok(_) => tracing::info!(size, "the write-ahead log is large, and somebody reads it"),
            Err(error) => {
                tracing::warn!(%error, size, "the write-ahead log cannot be written back");
            }
        }
        if let Err(error) = connection.busy_timeout(BUSY) {
            tracing::warn!(%error, "the writer waits for locks only {READERS:?} from now on");
        }
    }
}
