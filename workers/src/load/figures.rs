//! Figures that only the database knows.

use serde::Serialize;
use sqlx::Row;
use time::OffsetDateTime;

use crate::database;

/// How many items a transaction carried on average, by stage; `null` if there was none.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct BatchSizes {
    /// Commands that were accepted together.
    pub accepted: Option<f64>,
    /// Commands that were executed together.
    pub executed: Option<f64>,
    /// Events that were applied to a view together.
    pub projected: Option<f64>,
}

/// The database's clock.
pub async fn clock(url: &str) -> sqlx::Result<OffsetDateTime> {
    let mut connection = database::connect(url).await?;
    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut connection).await
}

/// Batch sizes since a moment of the database's clock.
pub async fn batch_sizes(url: &str, since: OffsetDateTime) -> sqlx::Result<BatchSizes> {
    let mut connection = database::connect(url).await?;
    let row = sqlx::query(include_str!("queries/batch_sizes.sql"))
        .bind(since)
        .fetch_one(&mut connection)
        .await?;
    Ok(BatchSizes {
        accepted: row.try_get("accepted")?,
        executed: row.try_get("executed")?,
        projected: row.try_get("projected")?,
    })
}
