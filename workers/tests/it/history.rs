//! Writes what a correct service would have left behind, row by row.

use std::collections::HashMap;

use adjutant::message::{PartitionCount, StreamId};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::database::Database;

/// Ends of logs and streams while the history is written.
pub(crate) struct History {
    connection: PgConnection,
    commands: HashMap<i16, i64>,
    events: HashMap<i16, i64>,
    versions: HashMap<String, i64>,
    balances: HashMap<String, Value>,
}

/// How a command ends.
pub(crate) enum Ending {
    Succeeded { event: &'static str, data: Value },
    Rejected,
}

impl History {
    /// Six accounts with deposits, withdrawals and rejected commands, all applied.
    pub(crate) async fn write(database: &Database) -> Vec<Uuid> {
        let mut history = Self {
            connection: database.connect().await,
            commands: HashMap::new(),
            events: HashMap::new(),
            versions: HashMap::new(),
            balances: HashMap::new(),
        };
        let mut ids = Vec::new();
        for account in ["a", "acc-4", "acc-4-1", "acc-42", "z", "Z"] {
            ids.push(history.opened(account).await);
            for balance in [100, 200, 300] {
                ids.push(history.deposited(account, 100, balance).await);
            }
            ids.push(history.command(account, "withdraw", Ending::Rejected).await);
            let data = json!({ "amount": 50, "balance": 250 });
            let ending = Ending::Succeeded { event: "account.withdrawn", data };
            ids.push(history.command(account, "withdraw", ending).await);
        }
        ids.push(history.command("nobody", "deposit", Ending::Rejected).await);
        history.checkpoints().await;
        history.connection.close().await.unwrap();
        ids
    }

    async fn opened(&mut self, account: &str) -> Uuid {
        let event = "account.opened";
        let data = json!({ "owner": format!("owner of {account}") });
        self.command(account, "open", Ending::Succeeded { event, data }).await
    }

    async fn deposited(&mut self, account: &str, amount: i64, balance: i64) -> Uuid {
        let event = "account.deposited";
        let data = json!({ "amount": amount, "balance": balance });
        self.command(account, "deposit", Ending::Succeeded { event, data }).await
    }

    async fn command(&mut self, account: &str, kind: &str, ending: Ending) -> Uuid {
        let stream = StreamId::new("account", account).unwrap();
        let partition = PartitionCount::DEFAULT.of(&stream).0;
        let id = Uuid::now_v7();
        let bucket = PartitionCount::DEFAULT.of_bytes(id.as_bytes()).0;
        sqlx::query(
            "INSERT INTO adjutant.commands (bucket, id, partition, stream, type, lane, payload,
                 content_hash, accepted_at)
             VALUES ($1, $2, $3, $4, $5, 1, '{}', '', clock_timestamp())",
        )
        .bind(bucket)
        .bind(id)
        .bind(partition)
        .bind(stream.as_str())
        .bind(format!("account.{kind}"))
        .execute(&mut self.connection)
        .await
        .unwrap();
        let offset = next(&mut self.commands, partition);
        sqlx::query("INSERT INTO adjutant.command_log VALUES ($1, $2, $3, $4, clock_timestamp())")
            .bind(partition)
            .bind(offset)
            .bind(id)
            .bind(bucket)
            .execute(&mut self.connection)
            .await
            .unwrap();
        match ending {
            Ending::Rejected => self.rejected(partition, id, stream.as_str()).await,
            Ending::Succeeded { event, data } => {
                self.succeeded(partition, id, &stream, event, data).await;
            }
        }
        id
    }

    async fn rejected(&mut self, partition: i16, id: Uuid, stream: &str) {
        let version = self.versions.get(stream).copied().unwrap_or_default();
        sqlx::query(
            "INSERT INTO adjutant.outcomes (partition, command_id, status, events, version, error,
                 attempts, completed_at)
             VALUES ($1, $2, 2, 0, $3, '{\"code\": \"refused\"}', 1, clock_timestamp())",
        )
        .bind(partition)
        .bind(id)
        .bind(version)
        .execute(&mut self.connection)
        .await
        .unwrap();
    }

    async fn succeeded(
        &mut self,
        partition: i16,
        id: Uuid,
        stream: &StreamId,
        event: &str,
        data: Value,
    ) {
        let offset = next(&mut self.events, partition);
        let version = self.versions.entry(stream.to_string()).or_default();
        *version += 1;
        let version = *version;
        let at: OffsetDateTime = sqlx::query_scalar(
            "INSERT INTO adjutant.events (partition, \"offset\", stream, version, type,
                 schema_version, data, command_id, recorded_at)
             VALUES ($1, $2, $3, $4, $5, 1, $6, $7, clock_timestamp()) RETURNING recorded_at",
        )
        .bind(partition)
        .bind(offset)
        .bind(stream.as_str())
        .bind(version)
        .bind(event)
        .bind(&data)
        .bind(id)
        .fetch_one(&mut self.connection)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO adjutant.outcomes (partition, command_id, status, first_offset, events,
                 version, attempts, completed_at)
             VALUES ($1, $2, 1, $3, 1, $4, 1, clock_timestamp())",
        )
        .bind(partition)
        .bind(id)
        .bind(offset)
        .bind(version)
        .execute(&mut self.connection)
        .await
        .unwrap();
        self.views(partition, offset, stream, version, event, &data, at).await;
    }

    #[allow(clippy::too_many_arguments)]
    async fn views(
        &mut self,
        partition: i16,
        offset: i64,
        stream: &StreamId,
        version: i64,
        event: &str,
        data: &Value,
        at: OffsetDateTime,
    ) {
        let account = stream.id();
        let balance = self.balances.entry(account.to_owned()).or_insert_with(
            || json!({ "owner": data["owner"], "balance": 0, "entries": 0, "status": "open" }),
        );
        if version > 1 {
            balance["balance"] = data["balance"].clone();
            balance["entries"] = (version - 1).into();
        }
        let balance = balance.clone();
        let entry = json!({
            "kind": event.strip_prefix("account.").unwrap(),
            "amount": data.get("amount").and_then(Value::as_i64).unwrap_or_default(),
            "balance": data.get("balance").and_then(Value::as_i64).unwrap_or_default(),
            "at": at.format(&time::format_description::well_known::Rfc3339).unwrap(),
        });
        let as_of = json!({ partition.to_string(): offset });
        let entry_key = format!("{account}/{version:08}");
        let documents =
            [("balances", account, version, balance), ("statements", entry_key.as_str(), 1, entry)];
        for (view, key, version, value) in documents {
            sqlx::query(
                "INSERT INTO adjutant.views VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())
                 ON CONFLICT (view, key) DO UPDATE SET version = EXCLUDED.version,
                     value = EXCLUDED.value, as_of = EXCLUDED.as_of",
            )
            .bind(view)
            .bind(key)
            .bind(partition)
            .bind(version)
            .bind(value)
            .bind(&as_of)
            .execute(&mut self.connection)
            .await
            .unwrap();
        }
    }

    async fn checkpoints(&mut self) {
        let groups = [
            ("commands", &self.commands),
            ("projection.balances", &self.events),
            ("projection.statements", &self.events),
        ];
        for (group, heads) in groups {
            for (partition, head) in heads {
                sqlx::query(
                    "INSERT INTO adjutant.checkpoints (group_name, partition, previous, reached)
                     VALUES ($1, $2, 0, $3)",
                )
                .bind(group)
                .bind(partition)
                .bind(head)
                .execute(&mut self.connection)
                .await
                .unwrap();
            }
        }
    }
}

fn next(ends: &mut HashMap<i16, i64>, partition: i16) -> i64 {
    let end = ends.entry(partition).or_default();
    *end += 1;
    *end
}
