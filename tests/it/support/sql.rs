//! States of a store that no operation brings about, written by SQL in the store's own words.

use std::{future::Future, pin::Pin, sync::Arc};

use adjutant::{dead_letter::DeadLetterState, message::Timestamp, store::DeadLetter};
use uuid::Uuid;

type Run = dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// A way to run statements.
pub struct Sql {
    is_postgres: bool,
    run: Arc<Run>,
}

impl Sql {
    pub fn postgres(pool: sqlx::PgPool) -> Self {
        let run = move |sql: String| {
            let pool = pool.clone();
            let done = async move {
                let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await;
                done.map(drop).map_err(|error| error.to_string())
            };
            Box::pin(done) as Pin<Box<dyn Future<Output = _> + Send>>
        };
        Self { is_postgres: true, run: Arc::new(run) }
    }

    #[cfg(feature = "simulation")]
    pub fn sqlite(store: Arc<adjutant::store::sqlite::SqliteStore>) -> Self {
        let run = move |sql: String| {
            let store = store.clone();
            let done = async move { store.tamper(sql).await.map_err(|error| error.to_string()) };
            Box::pin(done) as Pin<Box<dyn Future<Output = _> + Send>>
        };
        Self { is_postgres: false, run: Arc::new(run) }
    }

    pub async fn run(&self, sql: impl Into<String>) -> Result<(), String> {
        (self.run)(sql.into()).await
    }

    pub fn table(&self, name: &str) -> String {
        if self.is_postgres { format!("adjutant.{name}") } else { name.to_owned() }
    }

    pub fn id(&self, id: Uuid) -> String {
        if self.is_postgres { format!("'{id}'::uuid") } else { format!("x'{}'", id.simple()) }
    }

    pub fn time(&self, time: Timestamp) -> String {
        let micros = time.unix_timestamp_nanos() / 1_000;
        if self.is_postgres {
            format!("'epoch'::timestamptz + {micros} * interval '1 microsecond'")
        } else {
            micros.to_string()
        }
    }

    pub fn text(&self, text: &str) -> String {
        format!("'{}'", text.replace('\'', "''"))
    }

    fn json(&self, value: &impl serde::Serialize) -> String {
        self.text(&serde_json::to_string(value).expect("JSON"))
    }

    /// Writes dead letters, and nothing but them.
    pub async fn bury(&self, letters: &[DeadLetter]) {
        let table = self.table("dead_letters");
        for letters in letters.chunks(500) {
            let rows: Vec<String> = letters.iter().map(|letter| self.row(letter)).collect();
            let sql = format!(
                "INSERT INTO {table} (partition, id, kind, group_name, key, type, command_id,
                    \"offset\", error, fingerprint, attempts, died_at, state, state_at)
                 VALUES {}",
                rows.join(",")
            );
            self.run(sql).await.expect("bury");
        }
    }

    fn row(&self, letter: &DeadLetter) -> String {
        let offset = letter.offset.map_or("NULL".to_owned(), |offset| offset.0.to_string());
        format!(
            "({}, {}, {}, {}, {}, {}, {}, {offset}, {}, {}, {}, {}, {}, {})",
            letter.partition.0,
            self.id(letter.id.0),
            letter.kind.code(),
            self.text(letter.group.as_str()),
            self.text(&letter.key),
            self.text(&letter.type_name),
            self.id(letter.command_id.0),
            self.json(&letter.error),
            self.text(&letter.fingerprint),
            letter.attempts,
            self.time(letter.died_at),
            letter.state.code(),
            self.time(letter.state_at),
        )
    }

    /// Writes a hold: 1 holds, 2 waits.
    pub async fn hold(
        &self,
        partition: i16,
        bucket: i16,
        stream: &str,
        first_offset: i64,
        command: Uuid,
        state: i16,
    ) {
        let (table, stream, id) = (self.table("holds"), self.text(stream), self.id(command));
        let since = self.time(Timestamp::UNIX_EPOCH);
        let (column, bucket) = if self.is_postgres {
            ("bucket, ", format!("{bucket}, "))
        } else {
            ("", String::new())
        };
        let sql = format!(
            "INSERT INTO {table} (partition, stream, first_offset, command_id, {column}state,
                attempt, edit, since)
             VALUES ({partition}, {stream}, {first_offset}, {id}, {bucket}{state}, 1, 0, {since})"
        );
        self.run(sql).await.expect("hold");
    }

    /// Writes attempts that failed.
    pub async fn attempt(&self, letter: &DeadLetter, attempt: i32) {
        let sql = format!(
            "INSERT INTO {} (partition, command_id, attempt, error, failed_at, next_due_at)
             VALUES ({}, {}, {attempt}, {}, {}, NULL)",
            self.table("attempts"),
            letter.partition.0,
            self.id(letter.command_id.0),
            self.json(&letter.error),
            self.time(letter.died_at),
        );
        self.run(sql).await.expect("attempt");
    }

    /// As if a retry had ended.
    pub async fn set_state(&self, letter: &DeadLetter, state: DeadLetterState) {
        let (table, id) = (self.table("dead_letters"), self.id(letter.id.0));
        let sql = format!("UPDATE {table} SET state = {} WHERE id = {id}", state.code());
        self.run(sql).await.expect("set the state");
    }
}
