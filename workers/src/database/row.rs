//! A row of an answer, whichever database gave it.

use std::sync::Arc;

use rusqlite::types::Value as Stored;
use serde_json::Value;
use sqlx::{Row as _, TypeInfo, ValueRef, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::DatabaseError;

/// A row. A column is read as what it means, not as how it is stored.
pub(crate) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

/// A row of a SQLite file: ids are blobs of 16 bytes, times are microseconds since 1970, documents
/// are text.
pub(crate) struct SqliteRow {
    pub(super) columns: Arc<[String]>,
    pub(super) values: Box<[Stored]>,
}

type Read<T> = Result<T, DatabaseError>;

impl Row {
    /// A number of any width.
    pub(crate) fn integer(&self, column: &str) -> Read<i64> {
        self.optional_integer(column)?.ok_or_else(|| wrong(column, "integer", "null"))
    }

    pub(crate) fn optional_integer(&self, column: &str) -> Read<Option<i64>> {
        match self {
            Self::Postgres(row) => match row.try_get_raw(column)?.type_info().name() {
                "INT2" => Ok(row.try_get::<Option<i16>, _>(column)?.map(i64::from)),
                "INT4" => Ok(row.try_get::<Option<i32>, _>(column)?.map(i64::from)),
                _ => Ok(row.try_get(column)?),
            },
            Self::Sqlite(row) => match row.get(column)? {
                Stored::Null => Ok(None),
                Stored::Integer(number) => Ok(Some(*number)),
                other => Err(wrong(column, "integer", kind(other))),
            },
        }
    }

    pub(crate) fn optional_real(&self, column: &str) -> Read<Option<f64>> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Sqlite(row) => match row.get(column)? {
                Stored::Null => Ok(None),
                Stored::Real(number) => Ok(Some(*number)),
                other => Err(wrong(column, "real number", kind(other))),
            },
        }
    }

    pub(crate) fn boolean(&self, column: &str) -> Read<bool> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Sqlite(_) => Ok(self.integer(column)? != 0),
        }
    }

    pub(crate) fn text(&self, column: &str) -> Read<&str> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Sqlite(row) => row.text(column, "text"),
        }
    }

    pub(crate) fn uuid(&self, column: &str) -> Read<Uuid> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Sqlite(row) => match row.get(column)? {
                Stored::Blob(bytes) => {
                    Uuid::from_slice(bytes).map_err(|error| wrong(column, "id", error))
                }
                other => Err(wrong(column, "id", kind(other))),
            },
        }
    }

    pub(crate) fn json(&self, column: &str) -> Read<Value> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Sqlite(row) => {
                let text = row.text(column, "document")?;
                serde_json::from_str(text).map_err(|error| wrong(column, "document", error))
            }
        }
    }

    pub(crate) fn time(&self, column: &str) -> Read<OffsetDateTime> {
        match self {
            Self::Postgres(row) => Ok(row.try_get(column)?),
            Self::Sqlite(_) => {
                let nanoseconds = i128::from(self.integer(column)?) * 1_000;
                OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
                    .map_err(|error| wrong(column, "time", error))
            }
        }
    }
}

impl SqliteRow {
    fn get(&self, column: &str) -> Read<&Stored> {
        let place = self.columns.iter().position(|name| name == column);
        place
            .and_then(|place| self.values.get(place))
            .ok_or_else(|| wrong(column, "column of the answer", "it is not there"))
    }

    fn text(&self, column: &str, expected: &'static str) -> Read<&str> {
        match self.get(column)? {
            Stored::Text(text) => Ok(text),
            other => Err(wrong(column, expected, kind(other))),
        }
    }
}

fn wrong(column: &str, expected: &'static str, reason: impl ToString) -> DatabaseError {
    DatabaseError::Column { column: column.to_owned(), expected, reason: reason.to_string() }
}

/// What is stored, in words: the value itself may be anybody's secret.
fn kind(stored: &Stored) -> &'static str {
    match stored {
        Stored::Null => "null",
        Stored::Integer(_) => "a number",
        Stored::Real(_) => "a real number",
        Stored::Text(_) => "text",
        Stored::Blob(_) => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Stored) -> Row {
        let columns: Arc<[String]> = ["it".to_owned()].into();
        Row::Sqlite(SqliteRow { columns, values: Box::new([value]) })
    }

    #[test]
    fn a_column_is_read_as_what_it_means() {
        let id = Uuid::now_v7();
        assert_eq!(row(Stored::Blob(id.as_bytes().to_vec())).uuid("it").unwrap(), id);
        let second = row(Stored::Integer(1_000_000)).time("it").unwrap();
        assert_eq!(second, OffsetDateTime::UNIX_EPOCH + time::Duration::SECOND);
        assert_eq!(row(Stored::Text("[1]".into())).json("it").unwrap(), serde_json::json!([1]));
        assert_eq!(row(Stored::Null).optional_integer("it").unwrap(), None);
    }

    #[test]
    fn what_is_not_of_its_columns_type_is_an_error() {
        let words = |error: Option<DatabaseError>| error.unwrap().to_string();
        let short = row(Stored::Blob(vec![1, 2])).uuid("it").err();
        assert!(words(short).starts_with("column `it` is no id"));
        assert_eq!(words(row(Stored::Null).text("it").err()), "column `it` is no text: null");
        assert!(words(row(Stored::Integer(i64::MAX)).time("it").err()).contains("no time"));
        assert!(words(row(Stored::Text("{".into())).json("it").err()).contains("no document"));
        assert!(words(row(Stored::Null).integer("other").err()).contains("not there"));
    }
}
