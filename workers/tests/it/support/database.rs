//! A database of one's own, dropped when the test ends.

use adjutant::{message::PartitionCount, store::postgres::migrate};
use sqlx::{Connection, Executor, PgConnection};

pub(crate) struct Database {
    server: String,
    name: String,
}

fn server() -> String {
    std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| "postgres://root@127.0.0.1:5432/test".to_owned())
}

/// The same server, another database.
fn url_of(server: &str, name: &str) -> String {
    let (rest, query) = server.split_once('?').map_or((server, None), |(a, b)| (a, Some(b)));
    let scheme_end = rest.find("://").expect("a URL") + 3;
    let host_end = rest[scheme_end..].find('/').map_or(rest.len(), |slash| scheme_end + slash);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{name}{query}", &rest[..host_end])
}

impl Database {
    /// An empty one, which a process that starts sets up.
    pub(crate) async fn empty() -> Self {
        Self::create("").await
    }

    /// One with Adjutant's schema and 8 partitions.
    pub(crate) async fn migrated() -> Self {
        let database = Self::empty().await;
        migrate(&database.url(), Some(PartitionCount::DEFAULT)).await.expect("migrate");
        database
    }

    /// A copy; nobody may be connected to the original.
    pub(crate) async fn copy(&self) -> Self {
        Self::create(&format!("TEMPLATE {}", self.name)).await
    }

    async fn create(how: &str) -> Self {
        let name = format!("bank_{}", uuid::Uuid::now_v7().simple());
        let server = server();
        let mut connection = PgConnection::connect(&server).await.expect("PostgreSQL is needed");
        let create = format!("CREATE DATABASE {name} {how}");
        connection.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
        Self { server, name }
    }

    pub(crate) fn url(&self) -> String {
        url_of(&self.server, &self.name)
    }

    /// The same database, where `address` stands for the server.
    pub(crate) fn url_through(&self, address: std::net::SocketAddr) -> String {
        let url = self.url();
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        format!("{scheme}://{user}@{address}/{path}")
    }

    /// Where the server listens, as `host:port`, for a proxy.
    pub(crate) fn server_address(&self) -> String {
        let authority = self.server.split("://").nth(1).unwrap().split('/').next().unwrap();
        let place = authority.rsplit('@').next().unwrap();
        if place.contains(':') { place.to_owned() } else { format!("{place}:5432") }
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) -> u64 {
        let mut connection = self.connect().await;
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        let done = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        done.rows_affected()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime of its own: the test's may be shutting down, and `drop` cannot await.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&server).await?;
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                connection.execute(sqlx::AssertSqlSafe(drop)).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            })
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("the test's database could not be dropped");
        }
    }
}
