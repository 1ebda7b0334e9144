//! A SQLite database of one's own, removed when the test ends.

use std::path::PathBuf;

use rusqlite::Connection;

pub(crate) struct File {
    directory: PathBuf,
}

/// The schema of the embedded store.
const SCHEMA: &str = include_str!("../../../../migrations/sqlite/0001_main_path.sql");

impl File {
    /// One with Adjutant's schema and 8 partitions.
    pub(crate) fn migrated() -> Self {
        let file = Self::absent();
        let connection = Connection::open(file.path()).unwrap();
        connection.execute_batch("PRAGMA journal_mode = wal").unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        let identity = "INSERT INTO log_identity (only_row, log_id, partitions, initialised_at)
                        VALUES (1, randomblob(16), 8, 0)";
        connection.execute(identity, []).unwrap();
        file
    }

    /// A place for a file that is not there.
    pub(crate) fn absent() -> Self {
        let directory = std::env::temp_dir().join(format!("bank-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    /// A copy; nobody may have the original open.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::absent();
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
