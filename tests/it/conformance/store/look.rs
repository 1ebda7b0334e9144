//! Looking at what a store holds, by its own questions, and what to commit to it.

use std::sync::Arc;

use adjutant::{
    message::{CommandId, Offset, OutcomeStatus, Partition, Position, RawJson, Route, Version},
    store::{
        CommandCommit, CommandFilter, DocumentWrite, Entry, EventMessage, Fence, LogKind, NewEvent,
        NewOutcome, OutboxRow, Store, StoreError,
    },
};

use crate::support::commands::stream;

pub fn all(store: &Arc<dyn Store>) -> Vec<Partition> {
    store.identity().partitions.all().collect()
}

/// Every entry of a log, by partition.
pub async fn log(store: &Arc<dyn Store>, kind: LogKind) -> Vec<Vec<Entry>> {
    let mut logs = Vec::new();
    for partition in all(store) {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let from = entries.last().map_or(Offset(1), |entry| entry.offset().next());
            let page = store.read_log(kind, partition, from, 100).await.expect("read the log");
            if page.is_empty() {
                break;
            }
            entries.extend(page);
        }
        logs.push(entries);
    }
    logs
}

/// How many entries a log has in all partitions; checks that it has no gap, and that its heads say
/// the same.
pub async fn gapless(store: &Arc<dyn Store>, kind: LogKind) -> usize {
    let logs = log(store, kind).await;
    let heads = store.heads().await.expect("heads");
    for (i, entries) in logs.iter().enumerate() {
        let offsets: Vec<i64> = entries.iter().map(|entry| entry.offset().0).collect();
        let expected: Vec<i64> = (1..=entries.len() as i64).collect();
        assert_eq!(offsets, expected, "partition {i}");
        assert_eq!(heads.of(kind, Partition(i as i16)), Offset(entries.len() as i64));
    }
    logs.iter().map(Vec::len).sum()
}

pub async fn commands(store: &Arc<dyn Store>) -> usize {
    let filter = CommandFilter::default();
    store.commands(&filter, None, 4_000).await.expect("commands").items.len()
}

pub async fn outbox(store: &Arc<dyn Store>) -> Vec<OutboxRow> {
    store.read_outbox(&all(store), 0, &[], 100_000).await.expect("read the outbox").rows
}

/// How many entries the outbox tells of.
pub async fn told(store: &Arc<dyn Store>, is: fn(&Route) -> bool) -> i32 {
    outbox(store).await.iter().filter(|row| is(&row.route)).map(|row| row.entries).sum()
}

pub async fn has_outcome(store: &Arc<dyn Store>, commit: &CommandCommit) -> bool {
    let outcome = &commit.outcomes[0];
    let asked = [(outcome.partition, outcome.command_id)];
    !store.outcomes(&asked).await.expect("outcomes").is_empty()
}

#[track_caller]
pub fn assert_fenced<T: std::fmt::Debug>(result: Result<T, StoreError>, fence: Fence) {
    match result {
        Err(StoreError::Fenced(held)) if held == fence => {}
        other => panic!("expected {fence:?}, got {other:?}"),
    }
}

/// A payload that no store takes.
pub fn unstorable() -> RawJson {
    RawJson::from_trusted("{\"amount\": \"\\u0000\"}".into())
}

/// An event of a command that is in no log, as the immediate lane would write it.
pub fn appended(store: &Arc<dyn Store>, counter: &str, version: i64) -> CommandCommit {
    let stream = stream(counter);
    let partition = store.identity().partitions.of(&stream);
    let command_id = CommandId::generate();
    let data =
        RawJson::encode(&serde_json::json!({ "amount": 1, "total": version })).expect("json");
    CommandCommit {
        events: vec![NewEvent {
            stream: stream.clone(),
            partition,
            version: Version(version),
            event_type: "counter.added".into(),
            schema_version: 1,
            data,
            command_id,
            metadata: Default::default(),
        }],
        outcomes: vec![NewOutcome {
            command_id,
            partition,
            log_offset: None,
            decided_on: Some(stream),
            status: OutcomeStatus::Succeeded,
            events: 1,
            version: Version(version),
            reply: None,
            error: None,
            attempts: 1,
            reply_to: None,
            callback: None,
        }],
        messages: vec![EventMessage { partition, events: 1, body: b"told".to_vec() }],
        ..CommandCommit::default()
    }
}

/// The same command, turned down.
pub fn rejected(store: &Arc<dyn Store>, counter: &str, version: i64) -> CommandCommit {
    let mut commit = appended(store, counter, version);
    commit.events.clear();
    commit.messages.clear();
    commit.outcomes[0].status = OutcomeStatus::Rejected;
    commit.outcomes[0].events = 0;
    commit
}

pub fn document(key: &str, partition: Partition, version: i64) -> DocumentWrite {
    DocumentWrite {
        key: key.into(),
        version,
        value: Some(RawJson::encode(&version).expect("json")),
        as_of: vec![Position { partition, offset: Offset(version) }],
        partition: Some(partition),
    }
}
