//! The embedded database, read page by page on a thread of its own.

use std::path::PathBuf;

use adjutant::{
    message::PartitionCount,
    service::EmbeddedSettings,
    store::{
        Identity, Store,
        sqlite::{SqliteSettings, SqliteStore},
    },
};
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    MoveError,
    tables::{Kind, Table},
};

/// Rows of a table, column by column.
pub(super) struct Page {
    pub(super) rows: usize,
    pub(super) columns: Vec<Column>,
}

/// The values of one column.
pub(super) enum Column {
    Small(Vec<Option<i16>>),
    Bucket(Vec<Option<i16>>),
    Int(Vec<Option<i32>>),
    Big(Vec<Option<i64>>),
    Uuid(Vec<Option<Uuid>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Time(Vec<Option<OffsetDateTime>>),
}

pub(super) struct Source {
    path: PathBuf,
    /// Open for as long as it is read: nobody else serves the database meanwhile.
    store: SqliteStore,
}

impl Source {
    pub(super) fn open(directory: PathBuf) -> Result<Self, MoveError> {
        let path = directory.join(EmbeddedSettings::DATABASE);
        let failed = |reason: String| MoveError::Source { path: path.clone(), reason };
        if !path.is_file() {
            return Err(failed("there is no such file".to_owned()));
        }
        let store = SqliteStore::open(SqliteSettings::new(&path))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { path, store })
    }

    pub(super) fn error(&self, reason: String) -> MoveError {
        MoveError::Source { path: self.path.clone(), reason }
    }

    /// So that nobody serves it by mistake.
    pub(super) fn mark_moved(&self, place: &str) -> Result<(), MoveError> {
        let path = self.path.with_file_name(EmbeddedSettings::MOVED);
        std::fs::write(&path, format!("{place}\n"))
            .map_err(|error| MoveError::Marker { path, reason: error.to_string() })
    }

    pub(super) fn identity(&self) -> Identity {
        self.store.identity()
    }

    fn connect(&self) -> Result<Connection, String> {
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        );
        connection.map_err(|error| error.to_string())
    }

    /// Every row of a table, in the order of its key.
    pub(super) fn read(
        &self,
        table: &'static Table,
        page: usize,
    ) -> mpsc::Receiver<Result<Page, String>> {
        let (sender, pages) = mpsc::channel(1);
        let (connection, partitions) = (self.connect(), self.identity().partitions);
        tokio::task::spawn_blocking(move || {
            let read = connection
                .and_then(|connection| read(&connection, table, partitions, page, &sender));
            if let Err(reason) = read {
                // A receiver that is gone has given up already.
                let _ = sender.blocking_send(Err(reason));
            }
        });
        pages
    }
}

/// What is selected for a column. SQLite moves a checkpoint in place; in PostgreSQL it is the newest
/// move of a chain, which may as well begin here.
fn selected(table: &Table, (name, kind): (&str, Kind)) -> String {
    match (table.name, name, kind) {
        ("checkpoints", "previous", _) => "0".to_owned(),
        ("commands", _, Kind::Bucket) => "id".to_owned(),
        (_, _, Kind::Bucket) => "command_id".to_owned(),
        (_, name, Kind::Times) => format!(
            "'{{' || COALESCE((SELECT group_concat(strftime('%Y-%m-%dT%H:%M:%SZ', value / 1000000, \
             'unixepoch')) FROM json_each({name})), '') || '}}'"
        ),
        _ => format!("\"{name}\""),
    }
}

fn read(
    connection: &Connection,
    table: &Table,
    partitions: PartitionCount,
    most: usize,
    pages: &mpsc::Sender<Result<Page, String>>,
) -> Result<(), String> {
    let selected: Vec<String> =
        table.columns.iter().map(|column| selected(table, *column)).collect();
    let sql = format!("SELECT {} FROM {} {}", selected.join(", "), table.name, table.rows);
    let words = |error: rusqlite::Error| format!("{}: {error}", table.name);
    let mut statement = connection.prepare(&sql).map_err(words)?;
    let mut rows = statement.query([]).map_err(words)?;
    let mut page = Page::empty(table);
    while let Some(row) = rows.next().map_err(words)? {
        for (place, column) in page.columns.iter_mut().enumerate() {
            let value = row.get_ref(place).map_err(words)?;
            column
                .push(value, partitions)
                .map_err(|reason| format!("{}.{}: {reason}", table.name, table.columns[place].0))?;
        }
        page.rows += 1;
        if page.rows == most {
            let full = std::mem::replace(&mut page, Page::empty(table));
            if pages.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
    }
    if page.rows > 0 {
        // A receiver that is gone has given up.
        let _ = pages.blocking_send(Ok(page));
    }
    Ok(())
}

impl Page {
    fn empty(table: &Table) -> Self {
        let column = |kind: Kind| match kind {
            Kind::Small => Column::Small(Vec::new()),
            Kind::Bucket => Column::Bucket(Vec::new()),
            Kind::Int => Column::Int(Vec::new()),
            Kind::Big => Column::Big(Vec::new()),
            Kind::Uuid => Column::Uuid(Vec::new()),
            Kind::Text | Kind::Json | Kind::Times => Column::Text(Vec::new()),
            Kind::Bytes => Column::Bytes(Vec::new()),
            Kind::Time => Column::Time(Vec::new()),
        };
        Self { rows: 0, columns: table.columns.iter().map(|(_, kind)| column(*kind)).collect() }
    }
}

impl Column {
    fn push(&mut self, value: ValueRef<'_>, partitions: PartitionCount) -> Result<(), String> {
        fn integer<T: TryFrom<i64>>(value: ValueRef<'_>) -> Result<Option<T>, String> {
            let number = value.as_i64_or_null().map_err(|error| error.to_string())?;
            let narrow = |number| T::try_from(number).map_err(|_| format!("{number} is too large"));
            number.map(narrow).transpose()
        }
        match self {
            Self::Small(values) => values.push(integer(value)?),
            Self::Bucket(values) => {
                let id = value.as_blob().map_err(|error| error.to_string())?;
                values.push(Some(partitions.of_bytes(id).0));
            }
            Self::Int(values) => values.push(integer(value)?),
            Self::Big(values) => values.push(integer(value)?),
            Self::Uuid(values) => {
                let bytes = value.as_blob_or_null().map_err(|error| error.to_string())?;
                let id = bytes.map(Uuid::from_slice).transpose();
                values.push(id.map_err(|error| error.to_string())?);
            }
            Self::Text(values) => {
                let text = value.as_str_or_null().map_err(|error| error.to_string())?;
                values.push(text.map(str::to_owned));
            }
            Self::Bytes(values) => {
                let bytes = value.as_blob_or_null().map_err(|error| error.to_string())?;
                values.push(bytes.map(<[u8]>::to_vec));
            }
            Self::Time(values) => {
                let micros = value.as_i64_or_null().map_err(|error| error.to_string())?;
                let time = |micros: i64| {
                    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
                };
                values.push(micros.map(time).transpose().map_err(|error| error.to_string())?);
            }
        }
        Ok(())
    }
}
