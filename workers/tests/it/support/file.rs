//! A SQLite database of one's own, removed when the test ends.

use std::path::PathBuf;

use adjutant::store::sqlite::{SqliteSettings, SqliteStore};
use rusqlite::Connection;

pub(crate) struct File {
    directory: PathBuf,
}

impl File {
    /// One with Adjutant's schema and 8 partitions.
    pub(crate) fn migrated() -> Self {
        let file = Self::absent();
        drop(SqliteStore::open(SqliteSettings::new(file.path())).unwrap());
        file
    }

    /// A place for a file that is not there.
    pub(crate) fn absent() -> Self {
        let directory = std::env::temp_dir().join(format!("bank-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    /// A copy; nobody may write the original meanwhile.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::absent();
        // Whoever had it open may not have closed it yet: all that is in the log goes to the file.
        let original = Connection::open(self.path()).unwrap();
        let all = "PRAGMA wal_checkpoint(TRUNCATE)";
        let blocked: i64 = original.query_row(all, [], |row| row.get(0)).unwrap();
        assert_eq!(blocked, 0, "somebody reads the original");
        std::fs::copy(self.path(), copy.path()).unwrap();
        copy
    }

    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("adjutant.sqlite")
    }

    /// A connection to which the file is the schema `adjutant`, as in PostgreSQL.
    pub(crate) fn connect(&self) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute("ATTACH ?1 AS adjutant", [self.path().to_str().unwrap()]).unwrap();
        connection
    }

    pub(crate) fn run(&self, sql: &str) -> u64 {
        let connection = self.connect();
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
        connection.total_changes()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if std::fs::remove_dir_all(&self.directory).is_err() {
            eprintln!("the test's file could not be removed");
        }
    }
}
