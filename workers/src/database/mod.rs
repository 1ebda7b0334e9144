//! Asks databases about a run: the audit, and the measurement of a load. The service has stores of
//! its own, and nothing here shares code with them.
//!
//! One `Connection` speaks to either kind of database, one `Row` answers for it; a `Question`
//! is written once where both understand it. SQLite's file is attached under the name that the
//! schema has in PostgreSQL, `adjutant`.

mod connection;
mod error;
mod postgres;
mod question;
mod row;
mod snapshot;
mod source;
mod sqlite;

pub use error::DatabaseError;
pub use source::Source;

pub(crate) use connection::{Connection, Rows};
pub(crate) use postgres::connect;
pub(crate) use question::{Parameter, Question};
pub(crate) use row::Row;
pub(crate) use snapshot::Snapshot;
