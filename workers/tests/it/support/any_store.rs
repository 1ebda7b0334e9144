//! A database of either kind, so that a test is written once.

use bank::database::Source;
use serde_json::Value;
use sqlx::{Connection, PgConnection, postgres::PgArguments, query::Query};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{database::Database, file::File};

pub(crate) enum AnyStore {
    Postgres(Database),
    Sqlite(File),
}

/// A connection that writes rows.
pub(crate) enum Writer {
    Postgres(PgConnection),
    Sqlite(rusqlite::Connection),
}

/// A value, stored as each database stores its kind.
pub(crate) enum Cell {
    Number(i64),
    Text(String),
    Id(Uuid),
    Bytes(Vec<u8>),
    Document(Value),
    Time(OffsetDateTime),
}

impl AnyStore {
    pub(crate) async fn postgres() -> Self {
        Self::Postgres(Database::migrated().await)
    }

    pub(crate) fn file() -> Self {
        Self::Sqlite(File::migrated())
    }

    /// A copy; nobody may be connected to the original.
    pub(crate) async fn copy(&self) -> Self {
        match self {
            Self::Postgres(database) => Self::Postgres(database.copy().await),
            Self::Sqlite(file) => Self::Sqlite(file.copy()),
        }
    }

    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Postgres(database) => Source::postgres(database.url()),
            Self::Sqlite(file) => Source::Sqlite(file.path()),
        }
    }

    /// Runs statements that are written for PostgreSQL; answers how many rows they changed.
    pub(crate) async fn run(&self, sql: &str) -> u64 {
        match self {
            Self::Postgres(database) => database.run(sql).await,
            Self::Sqlite(file) => file.run(&in_sqlite(sql)),
        }
    }

    pub(crate) async fn writer(&self) -> Writer {
        match self {
            Self::Postgres(database) => Writer::Postgres(database.connect().await),
            Self::Sqlite(file) => Writer::Sqlite(file.connect()),
        }
    }
}

/// A statement in SQLite's words.
fn in_sqlite(sql: &str) -> String {
    let mut words = sql
        .replace("gen_random_uuid()", "randomblob(16)")
        .replace("clock_timestamp()", "(unixepoch() * 1000000)");
    // jsonb_set(value, '{field}', 'json') is json_set(value, '$.field', json('json')).
    while let Some((before, rest)) = words.split_once("jsonb_set(value, '{") {
        let (field, rest) = rest.split_once("}', ").unwrap();
        let (value, rest) = rest.split_once(')').unwrap();
        words = format!("{before}json_set(value, '$.{field}', json({value})){rest}");
    }
    // There is no dropping of constraints: a copy of the table has none.
    while let Some((before, rest)) = words.split_once("ALTER TABLE adjutant.") {
        let (table, rest) = rest.split_once(" DROP CONSTRAINT ").unwrap();
        let (_, rest) = rest.split_once(';').unwrap();
        words = format!(
            "{before}CREATE TABLE adjutant.loose AS SELECT * FROM adjutant.{table};
             DROP TABLE adjutant.{table}; ALTER  TABLE adjutant.loose RENAME TO {table};{rest}"
        );
    }
    words
}

impl Writer {
    /// Writes a row. A file has neither buckets nor chains of checkpoints.
    pub(crate) async fn insert(
        &mut self,
        table: &str,
        row: impl IntoIterator<Item = (&str, Cell)>,
    ) {
        let in_file = matches!(self, Self::Sqlite(_));
        let row =
            row.into_iter().filter(|(name, _)| !in_file || !matches!(*name, "bucket" | "previous"));
        let (columns, cells): (Vec<&str>, Vec<Cell>) = row.unzip();
        let places: Vec<String> = (1..=cells.len()).map(|n| format!("${n}")).collect();
        let (columns, places) = (columns.join(", "), places.join(", "));
        let sql = format!("INSERT INTO adjutant.{table} ({columns}) VALUES ({places})");
        match self {
            Self::Postgres(connection) => {
                let query = sqlx::query(sqlx::AssertSqlSafe(sql));
                cells.into_iter().fold(query, bind).execute(connection).await.unwrap();
            }
            Self::Sqlite(connection) => {
                let cells = rusqlite::params_from_iter(cells.into_iter().map(stored));
                connection.execute(&sql, cells).unwrap();
            }
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Postgres(connection) => connection.close().await.unwrap(),
            Self::Sqlite(connection) => connection.close().unwrap(),
        }
    }
}

fn bind(
    query: Query<'_, sqlx::Postgres, PgArguments>,
    cell: Cell,
) -> Query<'_, sqlx::Postgres, PgArguments> {
    match cell {
        Cell::Number(number) => query.bind(number),
        Cell::Text(text) => query.bind(text),
        Cell::Id(id) => query.bind(id),
        Cell::Bytes(bytes) => query.bind(bytes),
        Cell::Document(value) => query.bind(value),
        Cell::Time(time) => query.bind(time),
    }
}

fn stored(cell: Cell) -> rusqlite::types::Value {
    match cell {
        Cell::Number(number) => number.into(),
        Cell::Text(text) => text.into(),
        Cell::Id(id) => id.as_bytes().to_vec().into(),
        Cell::Bytes(bytes) => bytes.into(),
        Cell::Document(value) => value.to_string().into(),
        Cell::Time(time) => ((time.unix_timestamp_nanos() / 1_000) as i64).into(),
    }
}
