//! Figures that only the database knows.

use serde::Serialize;
use time::OffsetDateTime;

use crate::database::{Connection, DatabaseError, Parameter, Question, Source};

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
pub async fn clock(source: &Source) -> Result<OffsetDateTime, DatabaseError> {
    if let Source::Sqlite(_) = source {
        return Ok(OffsetDateTime::now_utc()); // A file has no clock: the service's is this machine's.
    }
    let mut connection = Connection::open(source).await?;
    connection.one(Question::plain("SELECT clock_timestamp() AS now")).await?.time("now")
}

/// Batch sizes since a moment of the database's clock.
pub async fn batch_sizes(
    source: &Source,
    since: OffsetDateTime,
) -> Result<BatchSizes, DatabaseError> {
    let mut connection = Connection::open(source).await?;
    let question = Question::by_dialect(
        include_str!("queries/batch_sizes.sql"),
        include_str!("queries/sqlite/batch_sizes.sql"),
    );
    let row = connection.one(question.with(Parameter::Time(since))).await?;
    Ok(BatchSizes {
        accepted: row.optional_real("accepted")?,
        executed: row.optional_real("executed")?,
        projected: row.optional_real("projected")?,
    })
}
