//! A database of a test's own, dropped when the test ends.

use std::sync::Arc;

use adjutant::{
    message::PartitionCount,
    store::postgres::{PostgresSettings, PostgresStore, migrate},
};
use sqlx::{Connection, PgConnection, PgPool};

/// Where the server is.
pub fn server_url() -> String {
    std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| "postgres://root@127.0.0.1:5432/test".to_owned())
}

pub struct Database {
    pub url: String,
    name: String,
}

impl Database {
    /// An empty database.
    pub async fn empty() -> Self {
        let name = format!("adjutant_{}", uuid::Uuid::new_v4().simple());
        let mut server = PgConnection::connect(&server_url()).await.expect("PostgreSQL is needed");
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut server).await.expect("create database");
        let url = replace_database(&server_url(), &name);
        Self { url, name }
    }

    /// A database that is set up, with 8 partitions.
    pub async fn migrated() -> Self {
        Self::with_partitions(8).await
    }

    pub async fn with_partitions(partitions: i64) -> Self {
        let database = Self::empty().await;
        let count = PartitionCount::new(partitions).expect("count");
        migrate(&database.url, Some(count)).await.expect("migrate");
        database
    }

    pub async fn store(&self) -> Arc<PostgresStore> {
        self.store_through(&self.url).await
    }

    /// A store that reaches the database by another address (a proxy's).
    pub async fn store_through(&self, url: &str) -> Arc<PostgresStore> {
        let settings = PostgresSettings::new(url);
        Arc::new(PostgresStore::connect(settings).await.expect("connect"))
    }

    /// For looking at tables.
    pub async fn pool(&self) -> PgPool {
        sqlx::postgres::PgPoolOptions::new()
            .max_connections(3)
            .connect(&self.url)
            .await
            .expect("connect")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut server = PgConnection::connect(&server_url()).await?;
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut server).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            })
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("the test's database could not be dropped");
        }
    }
}

fn replace_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, query)| (base, query));
    let slash = base.rfind('/').expect("the URL names a database");
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{}/{name}{query}", &base[..slash])
}
