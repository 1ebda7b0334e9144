//! Transactions in flights: statements are sent together and answered together. A transaction that
//! is dropped in the middle takes its connection with it, so that no connection goes back to the
//! pool inside an open transaction.

use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future::{join, join_all, join3};
use tokio::time::timeout;
use tokio_postgres::{Row, Statement, types::ToSql};

use super::{PostgresStore, errors, pool};
use crate::store::StoreError;

/// How long a flight may take. The server's own limit is shorter; this one is for a server, or
/// something between, that keeps the connection and says nothing.
const DEADLINE: Duration = Duration::from_secs(40);

fn silent() -> StoreError {
    StoreError::Unavailable(format!("no answer within {DEADLINE:?}"))
}

fn unknown() -> StoreError {
    StoreError::Unknown(format!("no answer to COMMIT within {DEADLINE:?}"))
}

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A statement with its parameters.
pub(super) type Step<'a> = (&'a Statement, Params<'a>);

/// A connection with (perhaps) an open transaction.
pub(super) struct Transaction {
    client: Option<Object>,
}

impl PostgresStore {
    /// Takes a connection for a transaction; nothing is sent yet.
    pub(super) async fn transaction(&self) -> Result<Transaction, StoreError> {
        Ok(Transaction { client: Some(self.hot().await?) })
    }
}

impl Transaction {
    /// Prepares a statement (no round trip after a connection's first time).
    pub(super) async fn prepare(&self, sql: &str) -> Result<Statement, StoreError> {
        pool::prepare(self.client()?, sql).await
    }

    /// BEGIN and a first query, in one flight.
    pub(super) async fn begin_with(
        &mut self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client()?;
        let flight = join(client.batch_execute("BEGIN"), client.query(statement, params));
        let Ok((begun, rows)) = timeout(DEADLINE, flight).await else { return Err(silent()) };
        match (begun, rows) {
            // BEGIN was cancelled and the query ran outside of a transaction.
            (Err(error), Ok(rows)) if !rows.is_empty() => Err(StoreError::Internal(format!(
                "BEGIN failed, but the statement behind it took place: {error}"
            ))),
            (Err(error), _) | (Ok(()), Err(error)) => Err(errors::before_commit(error)),
            (Ok(()), Ok(rows)) => Ok(rows),
        }
    }

    /// BEGIN alone: nothing is sent before it took place.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        let sent = self.client()?.batch_execute("BEGIN");
        match timeout(DEADLINE, sent).await {
            Ok(begun) => begun.map_err(errors::before_commit),
            Err(_) => Err(silent()),
        }
    }

    /// A query inside the transaction.
    pub(super) async fn query(
        &mut self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let query = self.client()?.query(statement, params);
        match timeout(DEADLINE, query).await {
            Ok(rows) => rows.map_err(errors::before_commit),
            Err(_) => Err(silent()),
        }
    }

    /// A last query and COMMIT, in one flight. An error of the query makes the COMMIT a ROLLBACK.
    pub(super) async fn commit_with(
        mut self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client()?;
        let flight = join(client.query(statement, params), client.batch_execute("COMMIT"));
        let Ok((rows, committed)) = timeout(DEADLINE, flight).await else { return Err(unknown()) };
        self.finish(rows, committed)
    }

    /// BEGIN, one query and COMMIT, in one flight.
    pub(super) async fn run_with(
        mut self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client()?;
        let flight = join3(
            client.batch_execute("BEGIN"),
            client.query(statement, params),
            client.batch_execute("COMMIT"),
        );
        let Ok((begun, rows, committed)) = timeout(DEADLINE, flight).await else {
            return Err(unknown());
        };
        let rows = begun.and(rows);
        self.finish(rows, committed)
    }

    /// BEGIN, queries and COMMIT, in one flight; the answer is each one's. Should BEGIN fail, each
    /// of them runs on its own.
    pub(super) async fn run_with_all(
        mut self,
        steps: &[Step<'_>],
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        let client = self.client()?;
        // Sent in this order: each is polled first in it.
        let flight = join3(
            client.batch_execute("BEGIN"),
            join_all(steps.iter().map(|step| client.query(step.0, step.1))),
            client.batch_execute("COMMIT"),
        );
        let Ok((begun, rows, committed)) = timeout(DEADLINE, flight).await else {
            return Err(unknown());
        };
        let rows = rows.into_iter().collect::<Result<Vec<_>, _>>();
        self.finish(begun.and(rows), committed)
    }

    /// Ends a transaction that has nothing more to do.
    pub(super) async fn roll_back(mut self) -> Result<(), StoreError> {
        self.client()?.batch_execute("ROLLBACK").await.map_err(errors::before_commit)?;
        self.give_back();
        Ok(())
    }

    fn finish<T>(
        &mut self,
        rows: Result<T, tokio_postgres::Error>,
        committed: Result<(), tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        match (rows, committed) {
            (Ok(rows), Ok(())) => {
                self.give_back();
                Ok(rows)
            }
            // The statement failed and the server answered COMMIT with ROLLBACK.
            (Err(error), Ok(())) => {
                self.give_back();
                Err(errors::after_commit(error))
            }
            (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(errors::after_commit(error)),
        }
    }

    fn client(&self) -> Result<&Object, StoreError> {
        let gone = || StoreError::Internal("the transaction has ended".to_owned());
        self.client.as_ref().ok_or_else(gone)
    }

    /// The transaction is over: the connection may serve others.
    fn give_back(&mut self) {
        drop(self.client.take());
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Not known to be outside a transaction: close it instead of giving it back.
            drop(Object::take(client));
        }
    }
}
