//! A database of a test's own, dropped when the test ends.

use std::{
    hash::{Hash as _, Hasher as _},
    sync::Arc,
};

use adjutant::{
    message::PartitionCount,
    store::postgres::{PostgresSettings, PostgresStore, migrate, new_log_id},
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
        Self::like(&mut server().await, "template1").await
    }

    /// A copy of one that nobody is connected to.
    async fn like(server: &mut PgConnection, template: &str) -> Self {
        let name = format!("adjutant_{}", uuid::Uuid::new_v4().simple());
        run(server, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Self { url: replace_database(&server_url(), &name), name }
    }

    /// A database that is set up, with 8 partitions.
    pub async fn migrated() -> Self {
        Self::with_partitions(8).await
    }

    /// A copy of one that was set up once: that takes longer than many a test. It is a log of its own.
    pub async fn with_partitions(partitions: i64) -> Self {
        let mut server = server().await;
        let template = template(&mut server, partitions).await;
        let database = Self::like(&mut server, &template).await;
        new_log_id(&database.url).await.expect("a new name");
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

async fn server() -> PgConnection {
    PgConnection::connect(&server_url()).await.expect("PostgreSQL is needed")
}

async fn run(connection: &mut PgConnection, sql: String) {
    let text = sql.clone();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.expect(&text);
}

/// A database that is set up, of these migrations: made by whoever needs it first. The processes of all
/// tests share it.
async fn template(server: &mut PgConnection, partitions: i64) -> String {
    let name = format!("adjutant_template_{:016x}_{partitions}", migrations());
    if is_there(server, &name).await {
        return name;
    }
    run(server, format!("SELECT pg_advisory_lock({TEMPLATES})")).await;
    if !is_there(server, &name).await {
        let unfinished = format!("{name}_unfinished");
        run(server, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await;
        run(server, format!("CREATE DATABASE {unfinished}")).await;
        let count = PartitionCount::new(partitions).expect("count");
        let url = replace_database(&server_url(), &unfinished);
        migrate(&url, Some(count)).await.expect("migrate");
        run(server, format!("ALTER DATABASE {unfinished} RENAME TO {name}")).await;
    }
    run(server, format!("SELECT pg_advisory_unlock({TEMPLATES})")).await;
    name
}

async fn is_there(server: &mut PgConnection, database: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(server)
        .await
        .expect("databases")
}

/// The key of the lock under which templates are made.
const TEMPLATES: i64 = 0x61_646a_7465_6d70;

/// Changes with any of them.
fn migrations() -> u64 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("migrations")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let mut hasher = std::hash::DefaultHasher::new();
    for file in files {
        std::fs::read(file).expect("a migration").hash(&mut hasher);
    }
    hasher.finish()
}

fn replace_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, ""), |(base, query)| (base, query));
    let slash = base.rfind('/').expect("the URL names a database");
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{}/{name}{query}", &base[..slash])
}
