//! Why a run cannot be made.

use std::time::Duration;

/// Why a run cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// Something that is needed is not installed.
    #[error("{0}")]
    Missing(String),
    /// The system refuses something.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A program says that it failed.
    #[error("{what} failed: {words}")]
    Program {
        /// Which.
        what: String,
        /// Its words.
        words: String,
    },
    /// Something takes too long.
    #[error("{what}: not within {within:?}")]
    TooSlow {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
    },
    /// PostgreSQL does not answer the run itself.
    #[error("the run's own connection to PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema cannot be made.
    #[error(transparent)]
    Migrate(#[from] adjutant::store::postgres::MigrateError),
    /// RabbitMQ does not answer the run itself.
    #[error("the run's own connection to RabbitMQ: {0}")]
    Broker(#[from] lapin::Error),
    /// The API has no usable address.
    #[error(transparent)]
    Load(#[from] crate::load::LoadError),
    /// There is no verdict on the database.
    #[error(transparent)]
    Verify(#[from] crate::verify::VerifyError),
    /// A part of the run ended by a panic.
    #[error("a part of the run broke off: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

impl ChaosError {
    /// The system refused `what`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
