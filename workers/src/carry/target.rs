//! The PostgreSQL that takes it all, in one transaction.

use adjutant::store::{
    Identity,
    postgres::{MigrateError, migrate},
};
use sqlx::{Connection, Executor, PgConnection, postgres::PgArguments, query::Query};

use super::{
    MoveError,
    source::{Column, Page},
    tables::{TABLES, Table},
};
use crate::database;

pub(super) struct Target {
    connection: PgConnection,
}

impl Target {
    /// Sets the database up if it is not, and begins. It must hold nothing yet.
    pub(super) async fn open(url: &str, identity: &Identity) -> Result<Self, MoveError> {
        match migrate(url, Some(identity.partitions)).await {
            Err(MigrateError::PartitionCount { found, asked }) => {
                return Err(MoveError::Partitions { target: found, source_partitions: asked });
            }
            migrated => migrated?,
        };
        let mut connection = database::connect(url).await?;
        connection.execute("BEGIN").await?;
        // What a process that starts meanwhile would do waits, or fails.
        connection.execute("SET LOCAL statement_timeout = 0").await?;
        for table in TABLES {
            let lock = format!("LOCK TABLE adjutant.{} IN EXCLUSIVE MODE", table.name);
            connection.execute(sqlx::AssertSqlSafe(lock)).await?;
        }
        let mut target = Self { connection };
        for table in TABLES {
            let rows = target.count_all(table).await?;
            if rows > 0 {
                return Err(MoveError::NotEmpty { table: table.name, rows });
            }
        }
        let served = "SELECT count(*) FROM adjutant.members
                       WHERE heartbeat_at > clock_timestamp() - interval '10 seconds'";
        let served = sqlx::query_scalar(served).fetch_one(&mut target.connection).await?;
        if served > 0 {
            return Err(MoveError::Served(served));
        }
        // Positions that clients hold stay valid, and so does what they are positions of.
        sqlx::query("UPDATE adjutant.log_identity SET log_id = $1")
            .bind(identity.log_id.0)
            .execute(&mut target.connection)
            .await?;
        Ok(target)
    }

    pub(super) async fn write(&mut self, table: &Table, page: &Page) -> sqlx::Result<()> {
        let names: Vec<String> =
            table.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let sql = format!(
            "INSERT INTO adjutant.{} ({}) SELECT {} FROM {}",
            table.name,
            names.join(", "),
            values(table).join(", "),
            arrays(table)
        );
        bound(&sql, page).execute(&mut self.connection).await?;
        Ok(())
    }

    /// How many rows of a page stand there exactly as they were read.
    pub(super) async fn count_same(&mut self, table: &Table, page: &Page) -> sqlx::Result<i64> {
        let equal: Vec<String> = table
            .columns
            .iter()
            .zip(values(table))
            .enumerate()
            .map(|(place, ((name, _), value))| {
                // The key is compared so that an index can serve it.
                let is = if place < table.key && table.name != "outbox" {
                    "="
                } else {
                    "IS NOT DISTINCT FROM"
                };
                format!("t.\"{name}\" {is} {value}")
            })
            .collect();
        let sql = format!(
            "SELECT count(*) FROM {} WHERE EXISTS (SELECT 1 FROM adjutant.{} t WHERE {})",
            arrays(table),
            table.name,
            equal.join(" AND ")
        );
        let row = bound(&sql, page).fetch_one(&mut self.connection).await?;
        sqlx::Row::try_get(&row, 0)
    }

    pub(super) async fn count(&mut self, table: &Table) -> sqlx::Result<i64> {
        self.count_all(table).await
    }

    async fn count_all(&mut self, table: &Table) -> sqlx::Result<i64> {
        let sql = format!("SELECT count(*) FROM adjutant.{}", table.name);
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.connection).await
    }

    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        self.connection.execute("COMMIT").await?;
        // Fresh tables have no statistics; the planner should not guess. It is only a kindness.
        let analyzed = self.connection.execute("ANALYZE").await;
        if let Err(error) = analyzed {
            tracing::info!(%error, "the tables' statistics were not gathered; autovacuum does it later");
        }
        // It is committed: a connection that cannot say goodbye changes nothing.
        let _ = self.connection.close().await;
        Ok(())
    }
}

/// The page as rows: `unnest($1::smallint[], …) AS p(c1, …)`.
fn arrays(table: &Table) -> String {
    let parameters: Vec<String> = (1..)
        .zip(table.columns)
        .map(|(number, (_, kind))| format!("${number}::{}", kind.in_sql().0))
        .collect();
    let names: Vec<String> = (1..=table.columns.len()).map(|number| format!("c{number}")).collect();
    format!("unnest({}) AS p({})", parameters.join(", "), names.join(", "))
}

fn values(table: &Table) -> Vec<String> {
    (1..)
        .zip(table.columns)
        .map(|(number, (_, kind))| format!("p.c{number}{}", kind.in_sql().1))
        .collect()
}

fn bound<'q>(sql: &str, page: &'q Page) -> Query<'q, sqlx::Postgres, PgArguments> {
    // Made of this module's own words only.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()));
    for column in &page.columns {
        query = match column {
            Column::Small(values) | Column::Bucket(values) => query.bind(values),
            Column::Int(values) => query.bind(values),
            Column::Big(values) => query.bind(values),
            Column::Uuid(values) => query.bind(values),
            Column::Text(values) => query.bind(values),
            Column::Bytes(values) => query.bind(values),
            Column::Time(values) => query.bind(values),
        };
    }
    query
}
