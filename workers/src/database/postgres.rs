//! Questions to PostgreSQL.

use std::str::FromStr;

use futures_util::stream::BoxStream;
use sqlx::{
    ConnectOptions, Executor, PgConnection,
    postgres::{PgConnectOptions, PgRow},
};

use super::{Parameter, Question};

/// Connects. No just-in-time compilation: the planner expects many rows from small lookups over all
/// partitions and compiles for longer (measured: 550 ms) than the answer takes (1 ms).
pub(crate) async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.disable_statement_logging();
    let mut connection = options.connect().await?;
    connection.execute("SET jit = off").await?;
    Ok(connection)
}

pub(super) fn ask(
    connection: &mut PgConnection,
    question: Question,
) -> BoxStream<'_, sqlx::Result<PgRow>> {
    let query = sqlx::query(question.postgres);
    let query = match question.parameter {
        Some(Parameter::Json(value)) => query.bind(value),
        Some(Parameter::Time(time)) => query.bind(time),
        None => query,
    };
    query.fetch(connection)
}
