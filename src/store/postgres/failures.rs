//! The parameter `f` of `commit_commands`: what is written when something of a batch failed, came
//! back or waits. Batches without any of it use the function's older form.

use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{PostgresStore, columns::Jsonb, pool};
use crate::{
    message::{Attempt, CommandId, Offset, Partition, StreamId},
    store::{
        CommandCommit, Hold, HoldState, LetGo, NewDeadLetter, NewFailure, SetAside, StoreError,
        postgres::{columns, errors},
    },
};

/// Served by holds_pkey.
const HOLDS: &str = "
    SELECT h.partition, h.stream, h.first_offset, h.command_id, h.state, h.attempt, h.edit
      FROM unnest($1::smallint[], $2::text[]) AS n(partition, stream)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.holds f
                          WHERE f.partition = n.partition AND f.stream = n.stream OFFSET 0) AS h
     ORDER BY h.partition, h.stream, h.first_offset";

/// The JSON text; `None` if there is nothing to write.
pub(super) fn of(store: &PostgresStore, commit: &CommandCommit) -> Option<Failures> {
    let mut fields = Map::new();
    let mut add = |name: &str, items: Vec<Value>| {
        if !items.is_empty() {
            fields.insert(name.to_owned(), items.into());
        }
    };
    add("aside", commit.set_aside.iter().map(|it| aside(store, it)).collect());
    add("failed", commit.failures.iter().map(failed).collect());
    add("dead", commit.dead_letters.iter().map(dead).collect());
    let retried = |(partition, id): &(Partition, CommandId)| json!({ "p": partition, "id": id });
    add("retried", commit.retried.iter().map(retried).collect());
    add("let_go", commit.let_go.iter().map(let_go).collect());
    add("holds", commit.holds.iter().map(|it| hold(store, it)).collect());
    (!fields.is_empty()).then(|| Failures(Value::Object(fields).to_string()))
}

/// The commands that are to come back or to wait: their partitions and ids.
pub(super) fn coming_back(commit: &CommandCommit) -> (Vec<i16>, Vec<Uuid>) {
    commit.coming_back().map(|(partition, id)| (partition.0, id.0)).unzip()
}

/// The parameter's text.
pub(super) struct Failures(String);

impl Failures {
    pub(super) fn param(&self) -> Jsonb<'_> {
        Jsonb(&self.0)
    }
}

fn aside(store: &PostgresStore, it: &SetAside) -> Value {
    json!({
        "p": it.partition, "id": it.command_id, "bucket": store.bucket(it.command_id),
        "delay_ms": it.delay_ms, "reason": it.reason, "attempt": it.attempt,
        "first_offset": it.first_offset, "edit": it.edit,
    })
}

fn failed(it: &NewFailure) -> Value {
    json!({
        "p": it.partition, "id": it.command_id, "attempt": it.attempt, "error": it.error,
        "delay_ms": it.next_due_ms,
    })
}

fn dead(it: &NewDeadLetter) -> Value {
    json!({
        "p": it.partition, "id": it.id, "stream": it.stream, "type": it.command_type,
        "command_id": it.command_id, "offset": it.offset, "error": it.error,
        "fingerprint": it.fingerprint, "attempts": it.attempts,
    })
}

fn let_go(it: &LetGo) -> Value {
    json!({ "p": it.partition, "stream": it.stream, "first_offset": it.first_offset })
}

fn hold(store: &PostgresStore, it: &Hold) -> Value {
    json!({
        "p": it.partition, "stream": it.stream, "first_offset": it.first_offset,
        "id": it.command_id, "bucket": store.bucket(it.command_id), "state": it.state.code(),
        "attempt": it.attempt, "edit": it.edit,
    })
}

impl PostgresStore {
    pub(super) async fn read_holds(
        &self,
        streams: &[(Partition, StreamId)],
    ) -> Result<Vec<Hold>, StoreError> {
        let client = self.hot().await?;
        let holds = pool::prepare(&client, HOLDS).await?;
        let partitions: Vec<i16> = streams.iter().map(|(partition, _)| partition.0).collect();
        let names: Vec<&str> = streams.iter().map(|(_, stream)| stream.as_str()).collect();
        let rows = client.query(&holds, &[&partitions, &names]).await;
        rows.map_err(errors::before_commit)?.iter().map(read_hold).collect()
    }
}

fn read_hold(row: &Row) -> Result<Hold, StoreError> {
    let unknown = || StoreError::Corrupt("unknown state of a hold".to_owned());
    Ok(Hold {
        partition: Partition(row.get(0)),
        stream: columns::stream(row.get(1))?,
        first_offset: Offset(row.get(2)),
        command_id: CommandId(row.get(3)),
        state: HoldState::from_code(row.get(4)).ok_or_else(unknown)?,
        attempt: Attempt(row.get(5)),
        edit: row.get(6),
    })
}
