//! Setting the database up, and checking that this release may run on it.

use std::str::FromStr;

use sqlx::{
    Connection, PgConnection, PgPool, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

use super::errors;
use crate::{
    message::{LogId, PartitionCount},
    store::{Identity, StoreError},
};

macro_rules! migrations {
    ($($version:literal: $file:literal, $what:literal;)+) => {
        &[$(($version, $what, include_str!(concat!("../../../migrations/", $file)))),+]
    };
}

/// Version, description, SQL. Append-only.
const MIGRATIONS: &[(i64, &str, &str)] = migrations! {
    1: "0001_main_path.sql", "main path";
    2: "0002_failures.sql", "failures";
    3: "0003_parked_keys.sql", "parked keys";
    4: "0004_dead_letter_jobs.sql", "dead letter jobs";
    5: "0005_housekeeping.sql", "housekeeping";
    6: "0006_immediate_lane.sql", "immediate lane";
    7: "0007_recurring.sql", "recurring";
    8: "0008_callbacks.sql", "callbacks";
    9: "0009_cancellation.sql", "cancellation";
    10: "0010_due_for_lanes.sql", "due for lanes";
};

/// As the migrator wants them. (Its macro reads the folder at compile time, for which it builds the
/// whole driver a second time.)
fn migrations() -> Vec<Migration> {
    let migration = |(version, description, sql): &(i64, &'static str, &'static str)| {
        let sql = sql.into_sql_str();
        Migration::new(*version, (*description).into(), MigrationType::Simple, sql, false)
    };
    MIGRATIONS.iter().map(migration).collect()
}

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
    let mut migrator = Migrator::with_migrations(migrations());
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
    let newest = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    /// One that is not in the list would never be applied.
    #[test]
    fn every_file_of_the_folder_is_a_migration_and_none_is_passed_over() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "sql"))
            .map(|path| {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        let listed: Vec<_> = MIGRATIONS
            .iter()
            .map(|(version, what, sql)| {
                (format!("{version:04}_{}", what.replace(' ', "_")), (*sql).to_owned())
            })
            .collect();
        assert_eq!(listed, files);
    }
}
