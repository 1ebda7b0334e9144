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

/// How often readers of a file are opened anew before it counts as too busy. They take well under a
/// millisecond; a commit that waits for a disk takes longer.
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
