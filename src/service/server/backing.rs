//! Where a service keeps its truth, and its road: PostgreSQL and RabbitMQ, or both in this process.

#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::sync::Arc;
#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
use std::time::Duration;

use super::ServerError;
use crate::{
    broker::Broker,
    message::{GroupName, PartitionCount},
    store::Store,
};

/// Where a service keeps what it must not lose, and how its parts reach each other.
#[derive(Clone, Debug)]
pub enum Backing {
    /// PostgreSQL and RabbitMQ: any number of processes.
    #[cfg(all(feature = "postgres", feature = "rabbitmq"))]
    Services(Box<ServicesSettings>),
    /// A SQLite database in a directory and a broker in this process: one process with all roles,
    /// nothing to install. The same guarantees; what is answered is on disk.
    #[cfg(feature = "embedded")]
    Embedded(EmbeddedSettings),
}

/// PostgreSQL and RabbitMQ.
#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
#[derive(Clone, Debug)]
pub struct ServicesSettings {
    /// The database.
    pub database: crate::store::postgres::PostgresSettings,
    /// Whether migrations that are missing are applied at start.
    pub migrate_at_start: bool,
    /// How many partitions a database gets that is not initialised yet.
    pub partitions: Option<PartitionCount>,
    /// How long the start waits for a database that does not answer.
    pub database_patience: Duration,
    /// The broker.
    pub broker: crate::broker::rabbitmq::RabbitSettings,
}

#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
impl ServicesSettings {
    /// The defaults for a database and a broker at these URLs.
    pub fn new(database_url: impl Into<String>, amqp_url: impl Into<String>) -> Self {
        Self {
            database: crate::store::postgres::PostgresSettings::new(database_url),
            migrate_at_start: true,
            partitions: None,
            database_patience: Duration::from_mins(1),
            broker: crate::broker::rabbitmq::RabbitSettings::new(amqp_url),
        }
    }
}

/// Everything in one process.
#[cfg(feature = "embedded")]
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The directory of the database; it is made if it is missing. One process at a time.
    pub directory: PathBuf,
    /// How many partitions a database gets that is not initialised yet.
    pub partitions: Option<PartitionCount>,
}

#[cfg(feature = "embedded")]
impl EmbeddedSettings {
    /// The name of the database within the directory.
    pub const DATABASE: &'static str = "adjutant.sqlite";
    /// The directory of a service that was told of none.
    pub const DIRECTORY: &'static str = "adjutant-data";
    /// A file of this name in the directory says where its data lives now: it is served no more.
    pub const MOVED: &'static str = "MOVED";

    /// The defaults for a database in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), partitions: None }
    }
}

/// A store and a broker that were opened, and what must be read from them from time to time.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) broker: Arc<dyn Broker>,
    /// `None`: they keep their gauges themselves.
    pub(super) readings: Option<Box<dyn Readings>>,
}

/// What must be asked for from time to time.
#[async_trait::async_trait]
pub(super) trait Readings: Send + Sync {
    /// Reads and sets the gauges.
    async fn take(&self, groups: &[GroupName]);
}

impl Backing {
    pub(super) async fn open(&self) -> Result<Opened, ServerError> {
        match self {
            #[cfg(all(feature = "postgres", feature = "rabbitmq"))]
            Self::Services(settings) => services::open(settings).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(settings) => embedded::open(settings).await,
        }
    }
}

#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
mod services {
    use super::{Arc, GroupName, Opened, Readings, ServerError, ServicesSettings, Store as _};
    use crate::{
        broker::rabbitmq::RabbitBroker,
        execute::RetryPolicy,
        observe::names,
        store::{
            StoreError,
            postgres::{MigrateError, PostgresStore, migrate},
        },
    };

    pub(super) async fn open(settings: &ServicesSettings) -> Result<Opened, ServerError> {
        let store = connect(settings).await?;
        let rabbit = RabbitBroker::new(settings.broker.clone(), store.identity().partitions)?;
        Ok(Opened {
            store: store.clone(),
            broker: Arc::new(rabbit.clone()),
            readings: Some(Box::new(Asked { store, rabbit })),
        })
    }

    struct Asked {
        store: Arc<PostgresStore>,
        rabbit: RabbitBroker,
    }

    #[async_trait::async_trait]
    impl Readings for Asked {
        async fn take(&self, groups: &[GroupName]) {
            match self.store.oldest_snapshot_age().await {
                Ok(seconds) => metrics::gauge!("adjutant_oldest_snapshot_seconds").set(seconds),
                Err(error) => {
                    tracing::debug!(%error, "the age of the oldest snapshot is not known");
                }
            }
            match self.rabbit.queue_depths(groups).await {
                Ok(depths) => {
                    for (queue, messages, consumers) in depths {
                        let labels = [("queue", queue)];
                        metrics::gauge!(names::QUEUE_MESSAGES, &labels).set(f64::from(messages));
                        metrics::gauge!("adjutant_queue_consumers", &labels)
                            .set(f64::from(consumers));
                    }
                }
                Err(error) => tracing::debug!(%error, "the queues' depths are not known"),
            }
        }
    }

    async fn connect(settings: &ServicesSettings) -> Result<Arc<PostgresStore>, ServerError> {
        let mut delays = RetryPolicy::within(settings.database_patience).start();
        loop {
            let error = match try_connect(settings).await {
                Ok(store) => return Ok(store),
                Err(
                    error @ (ServerError::Migrate(MigrateError::Connect(_))
                    | ServerError::Store(
                        StoreError::Unavailable(_) | StoreError::Transient(_),
                    )),
                ) => error,
                Err(error) => return Err(error),
            };
            let Some(delay) = delays.next_delay() else { return Err(error) };
            tracing::warn!(%error, "the database is not there yet");
            tokio::time::sleep(delay).await;
        }
    }

    async fn try_connect(settings: &ServicesSettings) -> Result<Arc<PostgresStore>, ServerError> {
        if settings.migrate_at_start {
            let migrated = migrate(&settings.database.url, settings.partitions).await?;
            tracing::debug!(version = migrated.version, "the schema is up to date");
        }
        Ok(Arc::new(PostgresStore::connect(settings.database.clone()).await?))
    }
}

#[cfg(feature = "embedded")]
mod embedded {
    use super::{Arc, EmbeddedSettings, Opened, ServerError, Store as _};
    use crate::store::StoreError;
    use crate::{
        broker::local::{LocalBroker, LocalSettings},
        store::sqlite::{SqliteSettings, SqliteStore},
    };

    pub(super) async fn open(settings: &EmbeddedSettings) -> Result<Opened, ServerError> {
        let moved = settings.directory.join(EmbeddedSettings::MOVED);
        if let Ok(place) = std::fs::read_to_string(&moved) {
            return Err(ServerError::Moved { marker: moved, place: place.trim().to_owned() });
        }
        let path = settings.directory.join(EmbeddedSettings::DATABASE);
        let settings =
            SqliteSettings { partitions: settings.partitions, ..SqliteSettings::new(path) };
        // Migrations and recovery read and write the disk.
        let opened = tokio::task::spawn_blocking(|| SqliteStore::open(settings)).await;
        let store = Arc::new(opened.map_err(|error| StoreError::Internal(error.to_string()))??);
        let broker = LocalBroker::new(LocalSettings::default(), store.identity().partitions);
        Ok(Opened { store, broker: Arc::new(broker), readings: None })
    }
}
