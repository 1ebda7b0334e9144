//! Writes what a correct service would have left behind, row by row.

use std::collections::HashMap;

use adjutant::message::{PartitionCount, StreamId};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::support::any_store::{
    AnyStore,
    Cell::{Bytes, Document, Id, Number, Text, Time},
    Writer,
};

/// Ends of logs and streams while the history is written.
pub(crate) struct History {
    writer: Writer,
    commands: HashMap<i16, i64>,
    events: HashMap<i16, i64>,
    versions: HashMap<String, i64>,
    balances: HashMap<String, Shown>,
}

/// How a command ends.
enum Ending {
    Succeeded { event: &'static str, data: Value },
    Rejected,
}

/// The document of a view, and the last event that touched it.
#[derive(Default)]
struct Shown {
    partition: i16,
    version: i64,
    offset: i64,
    document: Value,
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
        for (account, balance) in std::mem::take(&mut history.balances) {
            history.document("balances", account, balance).await;
        }
        history.checkpoints().await;
        history.writer.close().await;
        ids
    }

    /// A command whose time comes in an hour.
    pub(crate) async fn schedule(store: &AnyStore) -> Uuid {
        let mut writer = store.writer().await;
        let stream = StreamId::new("account", "later").unwrap();
        let partition = PartitionCount::DEFAULT.of(&stream).0;
        let id = Uuid::now_v7();
        let bucket = PartitionCount::DEFAULT.of_bytes(id.as_bytes()).0;
        let due = now() + time::Duration::HOUR;
        let command = [
            ("bucket", Number(bucket.into())),
            ("id", Id(id)),
            ("partition", Number(partition.into())),
            ("stream", Text(stream.to_string())),
            ("type", Text("account.open".to_owned())),
            ("lane", Number(1)),
            ("payload", Document(json!({}))),
            ("not_before", Time(due)),
            ("content_hash", Bytes(Vec::new())),
            ("accepted_at", Time(now())),
        ];
        writer.insert("commands", command).await;
        let wait = [
            ("partition", Number(partition.into())),
            ("due_at", Time(due)),
            ("command_id", Id(id)),
            ("bucket", Number(bucket.into())),
            ("reason", Text("not_before".to_owned())),
        ];
        writer.insert("schedule", wait).await;
        writer.close().await;
        id
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
        let command = [
            ("bucket", Number(bucket.into())),
            ("id", Id(id)),
            ("partition", Number(partition.into())),
            ("stream", Text(stream.to_string())),
            ("type", Text(format!("account.{kind}"))),
            ("lane", Number(1)),
            ("payload", Document(json!({}))),
            ("content_hash", Bytes(Vec::new())),
            ("accepted_at", Time(now())),
        ];
        self.writer.insert("commands", command).await;
        let entry = [
            ("partition", Number(partition.into())),
            ("\"offset\"", Number(next(&mut self.commands, partition))),
            ("command_id", Id(id)),
            ("bucket", Number(bucket.into())),
            ("recorded_at", Time(now())),
        ];
        self.writer.insert("command_log", entry).await;
        let place = Place { partition, id, stream: &stream };
        match ending {
            Ending::Rejected => self.rejected(&place).await,
            Ending::Succeeded { event, data } => self.succeeded(&place, event, &data).await,
        }
        id
    }

    async fn rejected(&mut self, place: &Place<'_>) {
        let version = self.versions.get(place.stream.as_str()).copied().unwrap_or_default();
        let outcome = [
            ("partition", Number(place.partition.into())),
            ("command_id", Id(place.id)),
            ("status", Number(2)),
            ("events", Number(0)),
            ("version", Number(version)),
            ("error", Document(json!({ "code": "refused" }))),
            ("attempts", Number(1)),
            ("completed_at", Time(now())),
        ];
        self.writer.insert("outcomes", outcome).await;
    }

    async fn succeeded(&mut self, place: &Place<'_>, event: &str, data: &Value) {
        let offset = next(&mut self.events, place.partition);
        let version = self.versions.entry(place.stream.to_string()).or_default();
        *version += 1;
        let (version, at) = (*version, now());
        let row = [
            ("partition", Number(place.partition.into())),
            ("\"offset\"", Number(offset)),
            ("stream", Text(place.stream.to_string())),
            ("version", Number(version)),
            ("type", Text(event.to_owned())),
            ("schema_version", Number(1)),
            ("data", Document(data.clone())),
            ("command_id", Id(place.id)),
            ("recorded_at", Time(at)),
        ];
        self.writer.insert("events", row).await;
        let outcome = [
            ("partition", Number(place.partition.into())),
            ("command_id", Id(place.id)),
            ("status", Number(1)),
            ("first_offset", Number(offset)),
            ("events", Number(1)),
            ("version", Number(version)),
            ("attempts", Number(1)),
            ("completed_at", Time(at)),
        ];
        self.writer.insert("outcomes", outcome).await;
        self.balance(place, offset, version, data);
        let entry = json!({
            "kind": event.strip_prefix("account.").unwrap(),
            "amount": data.get("amount").and_then(Value::as_i64).unwrap_or_default(),
            "balance": data.get("balance").and_then(Value::as_i64).unwrap_or_default(),
            "at": at.format(&Rfc3339).unwrap(),
        });
        let key = format!("{}/{version:08}", place.stream.id());
        let entry = Shown { partition: place.partition, version: 1, offset, document: entry };
        self.document("statements", key, entry).await;
    }

    fn balance(&mut self, place: &Place<'_>, offset: i64, version: i64, data: &Value) {
        let balance = self.balances.entry(place.stream.id().to_owned()).or_insert_with(|| Shown {
            document: json!({ "owner": data["owner"], "balance": 0, "entries": 0, "status": "open" }),
            partition: place.partition,
            ..Shown::default()
        });
        if version > 1 {
            balance.document["balance"] = data["balance"].clone();
            balance.document["entries"] = (version - 1).into();
        }
        (balance.version, balance.offset) = (version, offset);
    }

    async fn document(&mut self, view: &str, key: String, content: Shown) {
        let Shown { partition, version, offset, document } = content;
        let row = [
            ("view", Text(view.to_owned())),
            ("key", Text(key)),
            ("partition", Number(partition.into())),
            ("version", Number(version)),
            ("value", Document(document)),
            ("as_of", Document(json!({ partition.to_string(): offset }))),
            ("updated_at", Time(now())),
        ];
        self.writer.insert("views", row).await;
    }

    async fn checkpoints(&mut self) {
        let groups = [
            ("commands", &self.commands),
            ("projection.balances", &self.events),
            ("projection.statements", &self.events),
        ];
        for (group, heads) in groups {
            for (partition, head) in heads {
                let checkpoint = [
                    ("group_name", Text(group.to_owned())),
                    ("partition", Number((*partition).into())),
                    ("previous", Number(0)),
                    ("reached", Number(*head)),
                    ("moved_at", Time(now())),
                ];
                self.writer.insert("checkpoints", checkpoint).await;
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
