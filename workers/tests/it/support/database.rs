//! A database of one's own, gone after the test.

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
    /// An empty one with Adjutant's schema and 8 partitions.
    pub(crate) async fn migrated() -> Self {
        let database = Self::create("").await;
        let mut connection = database.connect().await;
        connection.execute("CREATE SCHEMA adjutant").await.unwrap();
        connection.execute(include_str!("../../../migrations/0001_main_path.sql")).await.unwrap();
        let identity = "INSERT INTO adjutant.log_identity (log_id, partitions) \
                        VALUES (gen_random_uuid(), 8)";
        connection.execute(identity).await.unwrap();
        connection.close().await.unwrap();
        database
    }

    /// A copy; nobody may be connected to the original.
    pub(crate) async fn copy(&self) -> Self {
        Self::create(&format!("TEMPLATE {}", self.name)).await
    }

    async fn create(how: &str) -> Self {
        let name = format!("bank_{}", uuid::Uuid::now_v7().simple());
        let server = server();
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let create = format!("CREATE DATABASE {name} {how}");
        connection.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
        Self { server, name }
    }

    pub(crate) fn url(&self) -> String {
        url_of(&self.server, &self.name)
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

    pub(crate) async fn drop(self) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        connection.execute(sqlx::AssertSqlSafe(drop)).await.unwrap();
    }
}
