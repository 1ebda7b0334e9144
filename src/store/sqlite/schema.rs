//! The schema: numbered SQL files, applied in one transaction when a file is opened. The number of
//! the last one stands in `PRAGMA user_version`.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

use crate::{
    message::{LogId, PartitionCount},
    store::Identity,
};

const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_main_path.sql"),
    include_str!("../../../migrations/sqlite/0002_failures.sql"),
    include_str!("../../../migrations/sqlite/0003_parked_keys.sql"),
    include_str!("../../../migrations/sqlite/0004_dead_letter_jobs.sql"),
    include_str!("../../../migrations/sqlite/0005_housekeeping.sql"),
    include_str!("../../../migrations/sqlite/0006_immediate_lane.sql"),
    include_str!("../../../migrations/sqlite/0007_recurring.sql"),
    include_str!("../../../migrations/sqlite/0008_callbacks.sql"),
    include_str!("../../../migrations/sqlite/0009_cancellation.sql"),
    include_str!("../../../migrations/sqlite/0010_due_for_lanes.sql"),
];

/// `PRAGMA application_id` of our files: "ADJT".
const APPLICATION: i64 = 0x4144_4a54;

/// The newest schema that this release knows.
pub(super) const NEWEST: i64 = MIGRATIONS.len() as i64;

/// Why a schema cannot be used.
pub(super) enum SchemaError {
    /// Another program's database.
    NotOurs,
    /// A newer release's.
    Newer(i64),
    /// The identity is not readable.
    Damaged(String),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// What an empty database gets.
pub(super) struct NewIdentity {
    pub(super) log_id: LogId,
    pub(super) partitions: PartitionCount,
    /// Microseconds since 1970.
    pub(super) now: i64,
}

/// Applies what is missing, initialises an empty database, and answers what is fixed.
pub(super) fn migrate(connection: &Connection, new: &NewIdentity) -> Result<Identity, SchemaError> {
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let applied = number("user_version")?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if tables > 0 && number("application_id")? != APPLICATION {
        return Err(SchemaError::NotOurs);
    }
    if applied > NEWEST {
        return Err(SchemaError::Newer(applied));
    }
    for (sql, migration) in MIGRATIONS.iter().zip(1_i64..) {
        if migration > applied {
            connection.execute_batch(sql)?;
            connection.pragma_update(None, "user_version", migration)?;
        }
    }
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.execute(
        "INSERT INTO log_identity (only_row, log_id, partitions, initialised_at)
         VALUES (1, ?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![new.log_id.0.as_bytes(), new.partitions.get(), new.now],
    )?;
    let identity = identity(connection)?;
    transaction.commit()?;
    Ok(identity)
}

fn identity(connection: &Connection) -> Result<Identity, SchemaError> {
    let row = connection
        .query_row("SELECT log_id, partitions FROM log_identity", (), |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let (log_id, partitions) =
        row.ok_or_else(|| SchemaError::Damaged("log_identity is empty".into()))?;
    let partitions =
        PartitionCount::new(partitions).map_err(|error| SchemaError::Damaged(error.to_string()))?;
    Ok(Identity { log_id: LogId(Uuid::from_bytes(log_id)), partitions })
}
