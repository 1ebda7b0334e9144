//! Why a database gives no answer.

/// Why a database gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// PostgreSQL did not answer, or not as expected.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// SQLite did not answer.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The path of a file cannot be given to SQLite.
    #[error("the path {0:?} is not UTF-8")]
    Path(std::path::PathBuf),
    /// What every database of ours has one of is not there.
    #[error("a row that must be there is missing; is this a database of ours?")]
    NoRow,
    /// A value is not of its column's type (SQLite lets one be written).
    #[error("column `{column}` is no {expected}: {reason}")]
    Column {
        /// The column, as the answer names it.
        column: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        reason: String,
    },
    /// Commits follow each other so closely that several readers never saw the same state.
    #[error("the database never stood still long enough to be read as one; try again")]
    Restless,
    /// The reading thread ended early: what was read so far is not the whole answer.
    #[error("reading stopped before the end of the answer")]
    Interrupted,
}
