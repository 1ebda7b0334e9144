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
    large: u64,
    look_at: Instant,
}

impl WriteAheadLog {
    /// Of the database at this path.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), large: LARGE, look_at: Instant::now() }
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
        if size <= self.large {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A log in which there is always a reader, as overlapping readers make it.
    #[test]
    fn a_large_log_begins_anew_once_its_readers_have_left_it() {
        let name = format!("adjutant-wal-{}.sqlite", uuid::Uuid::new_v4().simple());
        let database = std::env::temp_dir().join(name);
        let writer = Connection::open(&database).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (0)").unwrap();
        let reader = Connection::open(&database).unwrap();
        let look = |reader: &Connection| {
            reader.execute_batch("BEGIN; SELECT x FROM t").unwrap();
        };
        let mut log = WriteAheadLog { large: 64 * 1024, ..WriteAheadLog::of(&database) };
        let path = log.path.clone();
        let size = || std::fs::metadata(&path).unwrap().len();
        let write = |log: &mut WriteAheadLog| {
            for _ in 0..64 {
                writer.execute_batch("INSERT INTO t VALUES (randomblob(4096))").unwrap();
            }
            log.look_at = Instant::now();
            log.tend(&writer);
        };

        look(&reader);
        write(&mut log);
        assert!(size() > log.large, "a reader is in it: {}", size());
        reader.execute_batch("COMMIT").unwrap();
        look(&reader); // the next one has come before the log was written back
        reader.execute_batch("COMMIT").unwrap();
        write(&mut log);
        assert_eq!(size(), 0);
        // It goes on afterwards, and the writer waits for locks as before.
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let waits: i64 = writer.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap();
        assert_eq!(u128::try_from(waits).unwrap(), BUSY.as_millis());
        for suffix in ["", "-wal", "-shm"] {
            let mut file = database.as_os_str().to_owned();
            file.push(suffix);
            let _ = std::fs::remove_file(file);
        }
    }
}
