//! The truth on PostgreSQL 15 and later.
//!
//! Two pools: *hot* (deadpool-postgres: pipelined statements, transactions that survive a dropped
//! future) for intake, executor, relay and projections; *read* (sqlx) for questions of people.
//! All SQL of the product stands in this folder and in `migrations/`.

mod append;
mod callbacks;
mod cancellation;
mod columns;
mod commit;
mod dead_letter_actions;
mod dead_letters;
mod entering;
mod errors;
mod failures;
mod hints;
mod housekeeping;
mod intake;
mod jobs;
mod logs;
mod members;
mod migrate;
mod new_commands;
mod notices;
mod outbox;
mod parking;
mod pool;
mod queries;
mod recurring;
mod replaying;
mod streams;
mod suspects;
mod transaction;
mod views;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::PgPool;

pub use migrate::{MigrateError, Migrated, migrate, new_log_id};

use super::{HintParts, Identity, Store, StoreError};
use crate::message::{CommandId, PartitionCount, Timestamp};

/// How to reach and use a database.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`.
    pub url: String,
    /// Connections of the hot pool.
    pub hot_connections: usize,
    /// Connections of the read pool.
    pub read_connections: u32,
    /// How long a statement may run.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How long making a connection, or waiting for a free one, may take.
    pub connect_timeout: Duration,
}

impl PostgresSettings {
    /// The defaults, for a database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            hot_connections: 8,
            read_connections: 4,
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// A [`Store`] on PostgreSQL.
pub struct PostgresStore {
    settings: PostgresSettings,
    hot: deadpool_postgres::Pool,
    read: PgPool,
    identity: Identity,
    /// Transactions before this one have left no row in the outbox.
    depth_bound: AtomicU64,
}

impl PostgresStore {
    /// Connects to a database that was migrated (see [`migrate`]) and checks that this release may
    /// run on it.
    pub async fn connect(settings: PostgresSettings) -> Result<Self, StoreError> {
        let hot = pool::hot(&settings)?;
        let read = pool::read(&settings)?;
        let identity = migrate::check(&read).await?;
        Ok(Self { settings, hot, read, identity, depth_bound: AtomicU64::new(0) })
    }

    /// A session of each pool, for a test that reads their settings.
    pub async fn session_settings(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let client = self.hot().await?;
        let row = client.query_one("SELECT current_setting($1)", &[&name]).await;
        let hot: String = row.map_err(errors::before_commit)?.get(0);
        let read: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&self.read)
            .await
            .map_err(errors::read)?;
        Ok(vec![hot, read])
    }

    /// The age of the oldest snapshot that keeps dead rows from being removed, in seconds (0: there
    /// is none). A pinned one makes queue tables slow; watch it.
    pub async fn oldest_snapshot_age(&self) -> Result<f64, StoreError> {
        sqlx::query_scalar(
            "SELECT COALESCE(max(EXTRACT(EPOCH FROM clock_timestamp() - xact_start)), 0)::float8
               FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()",
        )
        .fetch_one(&self.read)
        .await
        .map_err(errors::read)
    }

    async fn hot(&self) -> Result<deadpool_postgres::Object, StoreError> {
        self.hot.get().await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    fn partitions(&self) -> PartitionCount {
        self.identity.partitions
    }

    /// The bucket of a command's id: see `docs/adr/0001`.
    fn bucket(&self, id: CommandId) -> i16 {
        self.partitions().of_bytes(id.0.as_bytes()).0
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn pass_hints(self: Arc<Self>, parts: HintParts) -> Vec<tokio::task::JoinHandle<()>> {
        self.start_hints(parts)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let client = self.hot().await?;
        let statement = pool::prepare(&client, "SELECT clock_timestamp()").await?;
        let row = client.query_one(&statement, &[]).await.map_err(errors::before_commit)?;
        Ok(row.get(0))
    }
}
