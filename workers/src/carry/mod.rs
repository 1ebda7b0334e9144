//! `bank move`: carries everything from an embedded database over to PostgreSQL, in one transaction,
//! and compares every row there with what was read here before it commits.

mod source;
mod tables;
mod target;

use std::path::PathBuf;

use adjutant::store::postgres::MigrateError;

use crate::config::SecretUrl;
use source::Source;
use tables::TABLES;
use target::Target;

/// How many rows go at a time.
const PAGE: usize = 2_000;

/// Why nothing was carried over.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The directory holds no database of ours, or it cannot be read.
    #[error("{path} cannot be read as an embedded database: {reason}")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Only this direction exists.
    #[error(
        "{0} is no PostgreSQL; `bank move` carries an embedded database's directory over to postgres://…"
    )]
    NoTarget(String),
    /// There is something already.
    #[error(
        "{table} of the target is not empty ({rows} rows); nothing was changed. Move into a database of its own"
    )]
    NotEmpty {
        /// Which table.
        table: &'static str,
        /// How many rows it has.
        rows: i64,
    },
    /// Somebody serves it.
    #[error("{0} processes serve the target; they keep what they know of its log. Stop them first")]
    Served(i64),
    /// It was carried over, but that could not be written down.
    #[error(
        "everything was carried over, but {path} could not be written: {reason}. Do not serve this directory any more"
    )]
    Marker {
        /// The marker.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The target was set up for another number of partitions.
    #[error(
        "the target has {target} partitions and the source {source_partitions}; that number is fixed when a database is initialised. Move into a database that is not initialised yet"
    )]
    Partitions {
        /// Of the target.
        target: i16,
        /// Of the source.
        source_partitions: i16,
    },
    /// What stands there is not what was written.
    #[error("{table}: {same} of {rows} rows arrived as they were; nothing was committed")]
    Differs {
        /// Which table.
        table: &'static str,
        /// How many rows were carried.
        rows: i64,
        /// How many are equal.
        same: i64,
    },
    /// The target cannot be set up.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The target does not take it.
    #[error("the target does not take it: {0}")]
    Target(#[from] sqlx::Error),
}

impl MoveError {
    /// Whether it was asked for wrongly.
    pub fn is_misuse(&self) -> bool {
        matches!(
            self,
            Self::NoTarget(_) | Self::NotEmpty { .. } | Self::Partitions { .. } | Self::Served(_)
        )
    }
}

/// What was carried over: each table and how many rows, all of which were compared.
pub type Moved = Vec<(&'static str, i64)>;

/// Moves. The source must not be served meanwhile. Its data is only read; afterwards a marker says
/// where it lives now, so that it is not served by mistake.
pub async fn carry(directory: PathBuf, url: &str) -> Result<Moved, MoveError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(MoveError::NoTarget(SecretUrl::new(url).to_string()));
    }
    let place = SecretUrl::new(url).to_string();
    let source = Source::open(directory)?;
    let mut target = Target::open(url, &source.identity()).await?;
    let mut moved = Moved::new();
    for table in TABLES {
        let mut rows = 0;
        let mut pages = source.read(table, PAGE);
        while let Some(page) = pages.recv().await {
            let page = page.map_err(|reason| source.error(reason))?;
            target.write(table, &page).await?;
            let same = target.count_same(table, &page).await?;
            rows += page.rows as i64;
            if same != page.rows as i64 {
                return Err(MoveError::Differs { table: table.name, rows: page.rows as i64, same });
            }
        }
        let there = target.count(table).await?;
        if there != rows {
            return Err(MoveError::Differs { table: table.name, rows, same: there });
        }
        moved.push((table.name, rows));
    }
    target.commit().await?;
    source.mark_moved(&place)?;
    Ok(moved)
}
