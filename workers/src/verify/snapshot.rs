//! One snapshot of the database, seen by several connections, so that two ordered streams can be
//! merged.

use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgRow};

use crate::database;

/// The snapshot and the connection that exports it.
pub(super) struct Snapshot {
    url: String,
    id: String,
    /// The connection that exports the snapshot, and asks most questions.
    pub(super) main: PgConnection,
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl Snapshot {
    /// Takes a snapshot.
    pub(super) async fn open(url: &str) -> sqlx::Result<Self> {
        let mut main = connect(url).await?;
        main.execute(BEGIN).await?;
        let id = sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut main).await?;
        Ok(Self { url: url.to_owned(), id, main })
    }

    /// Another connection that sees the same snapshot.
    pub(super) async fn another(&self) -> sqlx::Result<PgConnection> {
        let mut connection = connect(&self.url).await?;
        connection.execute(BEGIN).await?;
        // The id is the server's own and takes no parameters; quotes are doubled all the same.
        let import = format!("SET TRANSACTION SNAPSHOT '{}'", self.id.replace('\'', "''"));
        connection.execute(sqlx::AssertSqlSafe(import)).await?;
        Ok(connection)
    }

    /// Every row of an answer that is known to be short.
    pub(super) async fn rows(&mut self, sql: &'static str) -> sqlx::Result<Vec<PgRow>> {
        sqlx::query(sql).fetch_all(&mut self.main).await
    }

    /// One number.
    pub(super) async fn number(&mut self, sql: &'static str) -> sqlx::Result<i64> {
        let row = sqlx::query(sql).fetch_one(&mut self.main).await?;
        row.try_get::<i16, _>(0).map(i64::from)
    }

    pub(super) async fn close(self) {
        // Nothing was written: a connection that cannot say goodbye changes nothing.
        let _ = self.main.close().await;
    }
}

async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let mut connection = database::connect(url).await?;
    // An audit reads everything once: sorts may take memory, and no limit of a service applies.
    let settings = "SET work_mem = '64MB'; SET statement_timeout = 0; \
                    SET idle_in_transaction_session_timeout = 0; SET application_name = 'bank verify'";
    connection.execute(settings).await?;
    Ok(connection)
}
