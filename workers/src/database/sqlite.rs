//! Questions to a SQLite file. SQLite waits for the disk in the thread that asks, so each question
//! is asked in a thread for that, which hands on its rows through a bounded channel.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{OpenFlags, types::Value};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{DatabaseError, Parameter, Question, row::SqliteRow};

/// Rows are handed on in batches: waking the reader costs more than reading a row.
const BATCH: usize = 256;
/// Batches that may wait to be read.
const BATCHES: usize = 4;
/// How long a lock may be waited for. Readers of a WAL wait only while it is being recovered.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a file, which it cannot write. The file is the schema `adjutant`. If nobody else
/// has it open, an empty write-ahead log stays behind: only who may write can take it away.
pub(crate) struct SqliteConnection(Arc<Mutex<rusqlite::Connection>>);

/// An answer, as it comes.
pub(crate) struct SqliteRows {
    batches: mpsc::Receiver<Batch>,
    current: std::vec::IntoIter<SqliteRow>,
    ended: bool,
}

/// Some rows. An empty batch says that there are no more: a thread that ends without a word must
/// not look like the end of the answer.
type Batch = Result<Vec<SqliteRow>, DatabaseError>;

impl SqliteConnection {
    pub(super) async fn open(file: PathBuf) -> Result<Self, DatabaseError> {
        let connection = blocking(move || {
            let path = file.to_str().ok_or_else(|| DatabaseError::Path(file.clone()))?;
            // What is attached is opened like the (empty) main database: only for reading.
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = rusqlite::Connection::open_with_flags(":memory:", flags)?;
            connection.busy_timeout(PATIENCE)?;
            connection.execute("ATTACH ?1 AS adjutant", [path])?;
            // 16 MiB of pages; sorts beyond as much go to temporary files.
            let settings = "PRAGMA temp_store = file; PRAGMA cache_size = -16384;
                            PRAGMA adjutant.cache_size = -16384";
            connection.execute_batch(settings)?;
            Ok(connection)
        });
        Ok(Self(Arc::new(Mutex::new(connection.await?))))
    }

    /// Asks; the next question waits until this answer is read or dropped.
    pub(super) fn ask(&self, question: Question) -> SqliteRows {
        let (sender, batches) = mpsc::channel(BATCHES);
        let connection = self.0.clone();
        spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let last =
                read(&connection, &question, |batch| sender.blocking_send(Ok(batch)).is_ok());
            // An error here says that nobody reads any more.
            let _ = match last {
                Ok(()) => sender.blocking_send(Ok(Vec::new())),
                Err(error) => sender.blocking_send(Err(error.into())),
            };
        });
        SqliteRows { batches, current: Vec::new().into_iter(), ended: false }
    }

    /// Changes whenever another connection has committed.
    pub(super) async fn data_version(&self) -> Result<i64, DatabaseError> {
        self.run(|connection| {
            connection.query_row("PRAGMA adjutant.data_version", [], |row| row.get(0))
        })
        .await
    }

    /// Keeps the state of this moment: a transaction sees the file as at its first question.
    pub(super) async fn begin(&self) -> Result<(), DatabaseError> {
        self.run(|connection| {
            connection.execute_batch("BEGIN")?;
            let first = "SELECT count(*) FROM adjutant.sqlite_schema";
            connection.query_row(first, [], |row| row.get::<_, i64>(0)).map(drop)
        })
        .await
    }

    pub(super) async fn end(&self) -> Result<(), DatabaseError> {
        self.run(|connection| connection.execute_batch("ROLLBACK")).await
    }

    async fn run<T: Send + 'static>(
        &self,
        what: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let connection = self.0.clone();
        blocking(move || Ok(what(&connection.lock().unwrap_or_else(PoisonError::into_inner))?))
            .await
    }
}

impl SqliteRows {
    pub(super) async fn next(&mut self) -> Result<Option<SqliteRow>, DatabaseError> {
        loop {
            if let Some(row) = self.current.next() {
                return Ok(Some(row));
            }
            if self.ended {
                return Ok(None);
            }
            let batch = self.batches.recv().await.ok_or(DatabaseError::Interrupted)??;
            self.ended = batch.is_empty();
            self.current = batch.into_iter();
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, DatabaseError> {
    spawn_blocking(work).await.unwrap_or(Err(DatabaseError::Interrupted))
}

/// Reads an answer to its end, or until nobody wants the next batch.
fn read(
    connection: &rusqlite::Connection,
    question: &Question,
    mut hand_on: impl FnMut(Vec<SqliteRow>) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(question.sqlite)?;
    let columns: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
    let parameter = question.parameter.as_ref().map(|parameter| match parameter {
        Parameter::Json(value) => Value::Text(value.to_string()),
        Parameter::Time(time) => Value::Integer((time.unix_timestamp_nanos() / 1_000) as i64),
    });
    let mut rows = statement.query(rusqlite::params_from_iter(parameter))?;
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(row) = rows.next()? {
        let values = (0..columns.len()).map(|n| row.get(n)).collect::<rusqlite::Result<_>>()?;
        batch.push(SqliteRow { columns: columns.clone(), values });
        if batch.len() == BATCH
            && !hand_on(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))
        {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        hand_on(batch);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: &str =
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
                        SELECT n FROM n";

    /// An empty file that SQLite takes for a database, removed when dropped.
    struct Empty(PathBuf);

    impl Empty {
        async fn open() -> (Self, SqliteConnection) {
            let file = std::env::temp_dir().join(format!("empty-{}", uuid::Uuid::now_v7()));
            std::fs::write(&file, "").unwrap();
            let connection = SqliteConnection::open(file.clone()).await.unwrap();
            (Self(file), connection)
        }
    }

    impl Drop for Empty {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_in_order() {
        let (_file, connection) = Empty::open().await;
        let mut rows = connection.ask(Question::plain(MANY));
        for n in 1..=10_000 {
            assert_eq!(rows.next().await.unwrap().unwrap().values[0], Value::Integer(n));
        }
        assert!(rows.next().await.unwrap().is_none());
        assert!(rows.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_to_its_end_does_not_hinder_the_next() {
        let (_file, connection) = Empty::open().await;
        let mut rows = connection.ask(Question::plain(MANY));
        assert!(rows.next().await.unwrap().is_some());
        drop(rows);
        let mut rows = connection.ask(Question::plain("SELECT 7"));
        assert_eq!(rows.next().await.unwrap().unwrap().values[0], Value::Integer(7));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_an_error() {
        let (_file, connection) = Empty::open().await;
        let breaks =
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
                      SELECT CASE WHEN n < 1000 THEN n ELSE json('{') END FROM n";
        let mut rows = connection.ask(Question::plain(breaks));
        let mut read = 0;
        let error = loop {
            match rows.next().await {
                Ok(row) => read += i32::from(row.expect("not the end").values.len() == 1),
                Err(error) => break error,
            }
        };
        assert!(read > 0);
        assert!(error.to_string().contains("malformed JSON"), "{error}");
    }

    #[tokio::test]
    async fn a_file_cannot_be_written() {
        let (_file, connection) = Empty::open().await;
        let write = connection.run(|it| it.execute_batch("CREATE TABLE adjutant.new (n)")).await;
        assert!(write.unwrap_err().to_string().contains("readonly"));
    }
}
