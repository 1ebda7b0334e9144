//! Writes what a correct service would have left behind, row by row.

use std::collections::HashMap;

use adjutant::message::{PartitionCount, StreamId};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::support::any_store::{
    AnyStore,
    Cell::{Document, Id, Number, Text, Time},
    Writer,
};

/// Ends of logs and streams while the history is written.
pub(crate) struct History {
    writer: Writer,
    commands: HashMap<i16, i64>,
    events: HashMap<i16, i64>,
    versions: HashMap<String, i64>,
    balances: HashMap<String, Value>,
}

/// How a command ends.
enum Ending {
    Succeeded { event: &'static str, data: Value },
    Rejected,
}

/// What an event is about.
struct Place<'a> {
    partition: i16,
    id: Uuid,
    stream: &'a StreamId,
}

impl History {
    /// Six accounts with deposits, withdrawals and rejected commands, all applied.
    pub(crate) async fn write(store: &AnyStore) -> Vec<Uuid> {
        let mut history = Self {
            writer: store.writer().await,
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
        history.writer.close().await;
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
        let cells = vec![
            Number(bucket.into()),
            Id(id),
            Number(partition.into()),
            Text(stream.to_string()),
            Text(format!("account.{kind}")),
            Document(json!({})),
            Time(now()),
        ];
        let sql = "INSERT INTO adjutant.commands (bucket, id, partition, stream, type, payload,
                       accepted_at, lane, content_hash)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, 1, '')";
        self.writer.write(sql, cells).await;
        let offset = next(&mut self.commands, partition);
        let cells = vec![
            Number(partition.into()),
            Number(offset),
            Id(id),
            Number(bucket.into()),
            Time(now()),
        ];
        let sql = "INSERT INTO adjutant.command_log (partition, \"offset\", command_id, bucket,
                       recorded_at)
                   VALUES ($1, $2, $3, $4, $5)";
        self.writer.write(sql, cells).await;
        let place = Place { partition, id, stream: &stream };
        match ending {
            Ending::Rejected => self.rejected(&place).await,
            Ending::Succeeded { event, data } => self.succeeded(&place, event, &data).await,
        }
        id
    }

    async fn rejected(&mut self, place: &Place<'_>) {
        let version = self.versions.get(place.stream.as_str()).copied().unwrap_or_default();
        let cells = vec![
            Number(place.partition.into()),
            Id(place.id),
            Number(version),
            Document(json!({ "code": "refused" })),
            Time(now()),
        ];
        let sql = "INSERT INTO adjutant.outcomes (partition, command_id, version, error,
                       completed_at, status, events, attempts)
                   VALUES ($1, $2, $3, $4, $5, 2, 0, 1)";
        self.writer.write(sql, cells).await;
    }

    async fn succeeded(&mut self, place: &Place<'_>, event: &str, data: &Value) {
        let offset = next(&mut self.events, place.partition);
        let version = self.versions.entry(place.stream.to_string()).or_default();
        *version += 1;
        let (version, at) = (*version, now());
        let cells = vec![
            Number(place.partition.into()),
            Number(offset),
            Text(place.stream.to_string()),
            Number(version),
            Text(event.to_owned()),
            Document(data.clone()),
            Id(place.id),
            Time(at),
        ];
        let sql = "INSERT INTO adjutant.events (partition, \"offset\", stream, version, type, data,
                       command_id, recorded_at, schema_version)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1)";
        self.writer.write(sql, cells).await;
        let cells = vec![
            Number(place.partition.into()),
            Id(place.id),
            Number(offset),
            Number(version),
            Time(at),
        ];
        let sql = "INSERT INTO adjutant.outcomes (partition, command_id, first_offset, version,
                       completed_at, status, events, attempts)
                   VALUES ($1, $2, $3, $4, $5, 1, 1, 1)";
        self.writer.write(sql, cells).await;
        self.balance(place, offset, version, data).await;
        let entry = json!({
            "kind": event.strip_prefix("account.").unwrap(),
            "amount": data.get("amount").and_then(Value::as_i64).unwrap_or_default(),
            "balance": data.get("balance").and_then(Value::as_i64).unwrap_or_default(),
            "at": at.format(&Rfc3339).unwrap(),
        });
        let key = format!("{}/{version:08}", place.stream.id());
        self.document("statements", key, place.partition, 1, entry, offset).await;
    }

    async fn balance(&mut self, place: &Place<'_>, offset: i64, version: i64, data: &Value) {
        let account = place.stream.id();
        let balance = self.balances.entry(account.to_owned()).or_insert_with(
            || json!({ "owner": data["owner"], "balance": 0, "entries": 0, "status": "open" }),
        );
        if version > 1 {
            balance["balance"] = data["balance"].clone();
            balance["entries"] = (version - 1).into();
        }
        let balance = balance.clone();
        let key = account.to_owned();
        self.document("balances", key, place.partition, version, balance, offset).await;
    }

    async fn document(
        &mut self,
        view: &str,
        key: String,
        partition: i16,
        version: i64,
        value: Value,
        offset: i64,
    ) {
        let cells = vec![
            Text(view.to_owned()),
            Text(key),
            Number(partition.into()),
            Number(version),
            Document(value),
            Document(json!({ partition.to_string(): offset })),
            Time(now()),
        ];
        let sql = "INSERT INTO adjutant.views (view, key, partition, version, value, as_of,
                       updated_at)
                   VALUES ($1, $2, $3, $4, $5, $6, $7)
                   ON CONFLICT (view, key) DO UPDATE SET version = excluded.version,
                       value = excluded.value, as_of = excluded.as_of";
        self.writer.write(sql, cells).await;
    }

    async fn checkpoints(&mut self) {
        let groups = [
            ("commands", &self.commands),
            ("projection.balances", &self.events),
            ("projection.statements", &self.events),
        ];
        for (group, heads) in groups {
            for (partition, head) in heads {
                let cells = vec![
                    Text(group.to_owned()),
                    Number((*partition).into()),
                    Number(*head),
                    Time(now()),
                ];
                let sql = "INSERT INTO adjutant.checkpoints (group_name, partition, reached,
                               moved_at, previous)
                           VALUES ($1, $2, $3, $4, 0)";
                self.writer.write(sql, cells).await;
            }
        }
    }
}

/// To the microsecond, as databases keep it.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(now.microsecond() * 1_000).unwrap()
}

fn next(ends: &mut HashMap<i16, i64>, partition: i16) -> i64 {
    let end = ends.entry(partition).or_default();
    *end += 1;
    *end
}
