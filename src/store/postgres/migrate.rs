//! Setting the database up, and checking that this release may run on it.

use std::str::FromStr;

use sqlx::{Connection, PgConnection, PgPool, migrate::Migrator};

use super::errors;
use crate::{
    message::{LogId, PartitionCount},
    store::{Identity, StoreError},
};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The release that is running.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Why a database cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The URL is none.
    #[error("the database URL is not valid: {0}")]
    Url(sqlx::Error),
    /// Not reachable.
    #[error("the database cannot be reached: {0}")]
    Connect(sqlx::Error),
    /// A migration failed or was changed after it was applied.
    #[error("cannot migrate: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("cannot set the database up: {0}")]
    Database(#[from] sqlx::Error),
    /// The partition count is fixed already.
    #[error(
        "this database was initialised with {found} partitions; {asked} were asked for, but the \
         number cannot change (ask for {found}, or start with an empty database)"
    )]
    PartitionCount {
        /// What the database has.
        found: i16,
        /// What was asked for.
        asked: i16,
    },
}

/// What was found or made.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// The log's name.
    pub log_id: LogId,
    /// How many partitions there are.
    pub partitions: i16,
    /// The newest migration.
    pub version: i64,
}

/// Applies the migrations that are missing, over a connection of its own (the migrator holds a
/// session-level advisory lock, so that several processes may start at once), and initialises the
/// log. `partitions`: `None` takes what is there, or the default.
pub async fn migrate(
    url: &str,
    partitions: Option<PartitionCount>,
) -> Result<Migrated, MigrateError> {
    let mut connection = connect(url).await?;
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    migrator.create_schema("adjutant");
    migrator.dangerous_set_table_name("adjutant._sqlx_migrations");
    // A newer release may have migrated already; whether this one may run is decided by `check`.
    migrator.set_ignore_missing(true);
    migrator.run(&mut connection).await?;
    let count = partitions.unwrap_or(PartitionCount::DEFAULT).get();
    sqlx::query(
        "INSERT INTO adjutant.log_identity (log_id, partitions) VALUES ($1, $2)
         ON CONFLICT DO NOTHING",
    )
    .bind(LogId::generate().0)
    .bind(count)
    .execute(&mut connection)
    .await?;
    let (log_id, found): (uuid::Uuid, i16) =
        sqlx::query_as("SELECT log_id, partitions FROM adjutant.log_identity")
            .fetch_one(&mut connection)
            .await?;
    let version: i64 =
        sqlx::query_scalar("SELECT COALESCE(max(version), 0) FROM adjutant._sqlx_migrations")
            .fetch_one(&mut connection)
            .await?;
    connection.close().await?;
    match partitions {
        Some(asked) if asked.get() != found => {
            Err(MigrateError::PartitionCount { found, asked: asked.get() })
        }
        _ => Ok(Migrated { log_id: LogId(log_id), partitions: found, version }),
    }
}

/// Gives the log a new name, after the database was restored from a backup: messages of the old
/// one, which may still be in the broker, are then never applied. All processes must be stopped.
pub async fn new_log_id(url: &str) -> Result<LogId, MigrateError> {
    let mut connection = connect(url).await?;
    let log_id = LogId::generate();
    sqlx::query("UPDATE adjutant.log_identity SET log_id = $1")
        .bind(log_id.0)
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    Ok(log_id)
}

async fn connect(url: &str) -> Result<PgConnection, MigrateError> {
    let options = sqlx::postgres::PgConnectOptions::from_str(url).map_err(MigrateError::Url)?;
    let options = options
        .ssl_mode(super::pool::Encryption::of(url).for_sqlx())
        .application_name("adjutant migrate");
    PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)
}

/// Reads what was fixed at initialisation; refuses a dirty schema, one that is not set up, and one
/// that needs a newer release.
pub(super) async fn check(pool: &PgPool) -> Result<Identity, StoreError> {
    let dirty: Option<i64> = sqlx::query_scalar(
        "SELECT version FROM adjutant._sqlx_migrations WHERE NOT success LIMIT 1",
    )
    .fetch_optional(pool)
    .await
    .map_err(errors::read)?;
    if let Some(version) = dirty {
        return Err(StoreError::Schema(format!(
            "migration {version} stopped half-way; look at the database, repair it, remove its \
             row from adjutant._sqlx_migrations and migrate again"
        )));
    }
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let applied: i64 =
        sqlx::query_scalar("SELECT COALESCE(max(version), 0) FROM adjutant._sqlx_migrations")
            .fetch_one(pool)
            .await
            .map_err(errors::read)?;
    if applied < newest {
        return Err(StoreError::Schema(format!(
            "the database is at migration {applied}, this release needs {newest}; run the \
             `migrate` command"
        )));
    }
    let oldest: Vec<String> = sqlx::query_scalar("SELECT oldest_release FROM adjutant.releases")
        .fetch_all(pool)
        .await
        .map_err(errors::read)?;
    if let Some(needed) = oldest.iter().find(|needed| release(needed) > release(RELEASE)) {
        return Err(StoreError::Schema(format!(
            "the database was migrated for release {needed} or newer, this is {RELEASE}; start a \
             newer release"
        )));
    }
    let (log_id, partitions): (uuid::Uuid, i16) =
        sqlx::query_as("SELECT log_id, partitions FROM adjutant.log_identity")
            .fetch_one(pool)
            .await
            .map_err(errors::read)?;
    let partitions = PartitionCount::new(i64::from(partitions))
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Identity { log_id: LogId(log_id), partitions })
}

/// `1.2.3` as numbers; what follows a `-` or `+` does not count.
fn release(text: &str) -> Vec<u64> {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    core.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}
