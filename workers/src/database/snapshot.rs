//! One state of the database, seen by several connections, so that ordered streams can be merged.

use std::path::Path;

use sqlx::{Executor, PgConnection};

use super::{Connection, DatabaseError, Source, postgres, sqlite::SqliteConnection};

/// A state of the database.
pub(crate) struct Snapshot {
    /// Asks most questions.
    pub(crate) main: Connection,
    /// See the same, for streams that are read beside it.
    pub(crate) others: [Connection; 2],
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How often the readers of a file begin before it counts as too busy. Three small reads take less
/// time than a commit that waits for a disk: nearly always the first time will do.
const ATTEMPTS: usize = 1_000;

impl Snapshot {
    /// Takes a snapshot.
    pub(crate) async fn open(source: &Source) -> Result<Self, DatabaseError> {
        match source {
            Source::Postgres(url) => Ok(postgres(url.expose()).await?),
            Source::Sqlite(file) => sqlite(file).await,
        }
    }

    pub(crate) async fn close(self) {
        let [second, third] = self.others;
        for connection in [second, third, self.main] {
            connection.close().await;
        }
    }
}

/// The first connection exports its snapshot, the others import it.
async fn postgres(url: &str) -> sqlx::Result<Snapshot> {
    let mut main = auditor(url).await?;
    let id: String = sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut main).await?;
    // The id is the server's own and takes no parameters; quotes are doubled all the same.
    let import = format!("SET TRANSACTION SNAPSHOT '{}'", id.replace('\'', "''"));
    let (mut second, mut third) = (auditor(url).await?, auditor(url).await?);
    for connection in [&mut second, &mut third] {
        connection.execute(sqlx::AssertSqlSafe(import.clone())).await?;
    }
    let [main, second, third] = [main, second, third].map(Connection::Postgres);
    Ok(Snapshot { main, others: [second, third] })
}

async fn auditor(url: &str) -> sqlx::Result<PgConnection> {
    let mut connection = postgres::connect(url).await?;
    // An audit reads everything once: sorts may take memory, and no limit of a service applies.
    let settings = "SET work_mem = '64MB'; SET statement_timeout = 0; \
                    SET idle_in_transaction_session_timeout = 0; SET application_name = 'bank verify'";
    connection.execute(settings).await?;
    connection.execute(BEGIN).await?;
    Ok(connection)
}

/// A file has no snapshots to hand on: the readers begin one after the other, and a witness outside
/// of their transactions tells whether anybody has committed meanwhile. If so, they begin again.
async fn sqlite(file: &Path) -> Result<Snapshot, DatabaseError> {
    let open = || SqliteConnection::open(file.to_owned());
    let witness = open().await?;
    let readers = [open().await?, open().await?, open().await?];
    for _ in 0..ATTEMPTS {
        let before = witness.data_version().await?;
        for reader in &readers {
            reader.begin().await?;
        }
        if witness.data_version().await? == before {
            let [main, second, third] = readers.map(Connection::Sqlite);
            return Ok(Snapshot { main, others: [second, third] });
        }
        for reader in &readers {
            reader.end().await?;
        }
    }
    Err(DatabaseError::Restless)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use super::*;
    use crate::database::Question;

    const COUNT: Question = Question::plain("SELECT count(*) AS rows FROM adjutant.entries");

    async fn rows(connection: &mut Connection) -> i64 {
        connection.one(COUNT).await.unwrap().integer("rows").unwrap()
    }

    #[tokio::test]
    async fn readers_of_a_file_see_one_state_while_somebody_writes() {
        let directory = std::env::temp_dir().join(format!("snapshot-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&directory).unwrap();
        let file = directory.join("it.sqlite");
        let writer = rusqlite::Connection::open(&file).unwrap();
        writer.busy_timeout(Duration::from_secs(10)).unwrap();
        let schema =
            "PRAGMA journal_mode = wal; PRAGMA synchronous = off; CREATE TABLE entries (n)";
        writer.execute_batch(schema).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let stop = done.clone();
        let writing = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                writer.execute("INSERT INTO entries VALUES (1)", []).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let mut last = 0;
        for _ in 0..50 {
            let mut snapshot = Snapshot::open(&Source::Sqlite(file.clone())).await.unwrap();
            let [second, third] = &mut snapshot.others;
            let seen = [rows(third).await, rows(&mut snapshot.main).await, rows(second).await];
            assert_eq!(seen, [seen[0]; 3]);
            assert!(seen[0] >= last);
            last = seen[0];
            snapshot.close().await;
        }
        assert!(last > 0, "somebody wrote");
        done.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
