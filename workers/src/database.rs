//! Connections for questions about a run. The service has its own.

use std::str::FromStr;

use sqlx::{ConnectOptions, Executor, PgConnection, postgres::PgConnectOptions};

/// Connects. No just-in-time compilation: the planner expects many rows from small lookups over all
/// partitions and compiles for longer (measured: 550 ms) than the answer takes (1 ms).
pub(crate) async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
    let mut connection = options.connect().await?;
    connection.execute("SET jit = off").await?;
    Ok(connection)
}
