//! A connection to either kind of database, and its answers, row by row.

use std::path::Path;

use futures_util::{TryStreamExt, stream::BoxStream};
use sqlx::{Connection as _, PgConnection, postgres::PgRow};

use super::{
    DatabaseError, Question, Row, Source, postgres,
    sqlite::{SqliteConnection, SqliteRows},
};

/// A connection that only asks.
pub(crate) enum Connection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// An answer. It is read as it comes and never held as a whole.
pub(crate) enum Rows<'c> {
    Postgres(BoxStream<'c, sqlx::Result<PgRow>>),
    Sqlite(SqliteRows),
}

impl Connection {
    /// Connects; each question then sees the database as it is at that moment.
    pub(crate) async fn open(source: &Source) -> Result<Self, DatabaseError> {
        match source {
            Source::Postgres(url) => Ok(Self::Postgres(postgres::connect(url.expose()).await?)),
            Source::Sqlite(file) => Self::open_file(file).await,
        }
    }

    async fn open_file(file: &Path) -> Result<Self, DatabaseError> {
        SqliteConnection::open(file.to_owned()).await.map(Self::Sqlite)
    }

    /// Asks.
    pub(crate) fn ask(&mut self, question: Question) -> Rows<'_> {
        match self {
            Self::Postgres(connection) => Rows::Postgres(postgres::ask(connection, question)),
            Self::Sqlite(connection) => Rows::Sqlite(connection.ask(question)),
        }
    }

    /// Every row of an answer that is known to be short.
    pub(crate) async fn all(&mut self, question: Question) -> Result<Vec<Row>, DatabaseError> {
        let mut rows = self.ask(question);
        let mut all = Vec::new();
        while let Some(row) = rows.next().await? {
            all.push(row);
        }
        Ok(all)
    }

    /// The only row of an answer.
    pub(crate) async fn one(&mut self, question: Question) -> Result<Row, DatabaseError> {
        let mut rows = self.ask(question);
        rows.next().await?.ok_or(DatabaseError::NoRow)
    }

    pub(crate) async fn close(self) {
        // Nothing was written: a connection that cannot say goodbye changes nothing.
        if let Self::Postgres(connection) = self {
            let _ = connection.close().await;
        }
    }
}

impl Rows<'_> {
    pub(crate) async fn next(&mut self) -> Result<Option<Row>, DatabaseError> {
        match self {
            Self::Postgres(rows) => Ok(rows.try_next().await?.map(Row::Postgres)),
            Self::Sqlite(rows) => Ok(rows.next().await?.map(Row::Sqlite)),
        }
    }
}
