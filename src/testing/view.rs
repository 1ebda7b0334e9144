//! A view under test: folds events into documents with the worker's code and rules, and checks on
//! the way what production relies on.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    diff,
    wire::{call, nul_pointers},
};
use crate::{
    domain::{
        AggregateType, Document, EventRecord, Fold, ProjectionType, Scope, StoredEvent,
        key_that_is_none,
    },
    message::{EventEnvelope, Partition, Position, RawJson, StreamId, Timestamp},
};

/// A document as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    /// `None`: deleted, or never there.
    pub(super) value: Option<RawJson>,
    /// The number of its changes.
    pub(super) version: i64,
}

pub(super) type Rows = BTreeMap<String, Row>;

/// An event in its log.
#[derive(Clone)]
pub(super) struct LogEntry {
    pub(super) aggregate: Arc<dyn AggregateType>,
    pub(super) position: Position,
    pub(super) recorded_at: Timestamp,
    pub(super) event: EventEnvelope,
}

pub(super) struct View {
    projection: Arc<dyn ProjectionType>,
    /// The documents before any event.
    start: Rows,
    pub(super) rows: Rows,
    /// Every event so far.
    log: Vec<LogEntry>,
    fed_by: BTreeMap<String, (StreamId, Partition)>,
}

impl View {
    pub(super) fn new(projection: Arc<dyn ProjectionType>) -> Self {
        let (start, rows, log, fed_by) = Default::default();
        Self { projection, start, rows, log, fed_by }
    }

    pub(super) fn name(&self) -> &'static str {
        self.projection.name()
    }

    pub(super) fn wants(&self, event_type: &str) -> bool {
        self.projection.wants(event_type)
    }

    /// Puts a document there, as it would be stored.
    pub(super) fn put(&mut self, key: String, row: Row) -> Result<(), String> {
        if let Some(reason) = key_that_is_none(std::slice::from_ref(&key)) {
            return Err(reason);
        }
        self.read(&key, &row)?;
        self.start.insert(key.clone(), row.clone());
        self.rows.insert(key, row);
        Ok(())
    }

    /// Folds these events, in order. An error leaves the documents as they were before.
    pub(super) fn fold(&mut self, entries: &[LogEntry]) -> Result<(), Trouble> {
        let mut fed_by = self.fed_by.clone();
        for entry in entries {
            let at = |reason| Trouble::Stops(format!("the event at {}: {reason}", entry.position));
            self.check_keys(entry, &mut fed_by).map_err(at)?;
        }
        // One event a batch: every document is written and read again between two of its events.
        let mut rows = self.rows.clone();
        for entry in entries {
            self.fold_batch(&mut rows, std::slice::from_ref(entry)).map_err(Trouble::Stops)?;
        }
        let mut at_once = self.rows.clone();
        self.fold_batch(&mut at_once, entries).map_err(Trouble::Broken)?;
        if let Some(difference) = difference(&rows, &at_once) {
            return Err(Trouble::Broken(format!(
                "the documents depend on how their events are batched: they do not survive being \
                 stored, or `apply` is not pure (expected: batches of one; actual: one batch)\n\
                 {difference}"
            )));
        }
        let mut log = self.log.clone();
        log.extend_from_slice(entries);
        self.check_order(&log, &rows).map_err(Trouble::Broken)?;
        (self.rows, self.log, self.fed_by) = (rows, log, fed_by);
        Ok(())
    }

    /// The keys an event touches, as far as the worker lets it touch them.
    fn check_keys(
        &self,
        entry: &LogEntry,
        fed_by: &mut BTreeMap<String, (StreamId, Partition)>,
    ) -> Result<(), String> {
        for key in self.keys(entry, &record(entry)?)? {
            let (stream, partition) = (&entry.event.stream, entry.position.partition);
            let (first, fed) =
                fed_by.entry(key.clone()).or_insert_with(|| (stream.clone(), partition));
            if let Some(reason) = self.projection.scope().refuses(&key, *fed, partition) {
                return Err(reason);
            }
            if self.projection.scope() == Scope::Stream && first != stream {
                return Err(format!(
                    "`{key}` is fed by two streams, {first} and {stream}, which only happen to \
                     be in one partition: declare Scope::Shared"
                ));
            }
        }
        Ok(())
    }

    fn keys(&self, entry: &LogEntry, record: &EventRecord) -> Result<Vec<String>, String> {
        if !self.wants(&entry.event.event_type) {
            return Ok(Vec::new());
        }
        let keys = call("`keys`", || self.projection.keys(record))?;
        key_that_is_none(&keys).map_or(Ok(keys), Err)
    }

    /// As the worker folds a batch: reads each document once, applies all events, writes it once.
    fn fold_batch(&self, rows: &mut Rows, entries: &[LogEntry]) -> Result<(), String> {
        let mut open: BTreeMap<String, (Document, i64)> = BTreeMap::new();
        for entry in entries {
            let at = |reason| format!("the event at {}: {reason}", entry.position);
            let record = record(entry).map_err(at)?;
            for key in self.keys(entry, &record).map_err(at)? {
                if !open.contains_key(&key) {
                    let row = rows.get(&key).cloned().unwrap_or_default();
                    open.insert(key.clone(), (self.read(&key, &row)?, 0));
                }
                let Some((document, changes)) = open.get_mut(&key) else { continue };
                let apply = || self.projection.apply(&key, document, &record);
                let applied = call("`apply`", apply).map_err(at)?;
                let applied = applied.map_err(|error| at(error.to_string()))?;
                *changes += i64::from(applied == Fold::Changed);
            }
        }
        for (key, (document, changes)) in open {
            if changes == 0 {
                continue;
            }
            let row = Row {
                value: self.write(&key, &document)?,
                version: rows.get(&key).map_or(0, |row| row.version) + changes,
            };
            self.read(&key, &row)?;
            rows.insert(key, row);
        }
        Ok(())
    }

    fn read(&self, key: &str, row: &Row) -> Result<Document, String> {
        let what = format!("reading the document `{key}`");
        call(&what, || self.projection.read(row.value.as_ref()))?.map_err(|error| {
            let json = row.value.as_ref().map_or("null", RawJson::as_str);
            format!("the document `{key}` cannot be read back: {error}\nits JSON: {json}")
        })
    }

    fn write(&self, key: &str, document: &Document) -> Result<Option<RawJson>, String> {
        let what = format!("writing the document `{key}`");
        let value = call(&what, || self.projection.write(document))?;
        let value = value.map_err(|error| format!("`{key}` cannot be written: {error}"))?;
        match value.as_ref().map(nul_pointers).unwrap_or_default().first() {
            None => Ok(value),
            Some(pointer) => Err(format!(
                "the document `{key}` cannot be stored: `{pointer}` holds the character U+0000"
            )),
        }
    }

    /// Between partitions there is no order: folding them one after the other, in either order,
    /// must give the same documents.
    fn check_order(&self, log: &[LogEntry], rows: &Rows) -> Result<(), String> {
        let first = log.first().map(|entry| entry.position.partition);
        if log.iter().all(|entry| Some(entry.position.partition) == first) {
            return Ok(());
        }
        let mut sorted = log.to_vec();
        for descending in [false, true] {
            sorted.sort_by_key(|entry| {
                let partition = entry.position.partition.0;
                if descending { -partition } else { partition }
            });
            let mut others = self.start.clone();
            let order = "partitions have no order among them, and in another order";
            self.fold_batch(&mut others, &sorted)
                .map_err(|reason| format!("{order} the projection stops at {reason}"))?;
            if let Some(difference) = difference(rows, &others) {
                return Err(format!("{order} the documents differ:\n{difference}"));
            }
        }
        Ok(())
    }
}

/// Why a fold has no result.
pub(super) enum Trouble {
    /// The projection stops at an event, as a worker's would.
    Stops(String),
    /// The projection breaks what production relies on.
    Broken(String),
}

/// The event as projections see it, decoded (and upcast) anew.
fn record(entry: &LogEntry) -> Result<EventRecord, String> {
    let event = entry.event.clone();
    let stored = StoredEvent {
        event_type: &event.event_type,
        schema_version: event.schema_version,
        data: &event.data,
    };
    let decoded = call("decoding it", || entry.aggregate.decode_event(&stored))?;
    Ok(EventRecord {
        decoded: Some(decoded.map_err(|error| error.to_string())?),
        stream: event.stream,
        version: event.version,
        position: entry.position,
        recorded_at: entry.recorded_at,
        event_type: event.event_type,
        schema_version: event.schema_version,
        data: event.data,
        command_id: event.command_id,
        metadata: event.metadata,
    })
}

/// All documents, for people and comparisons; deleted ones are not there.
pub(super) fn shown(rows: &Rows) -> Value {
    let present = rows.iter().filter_map(|(key, row)| Some((key, row.value.as_ref()?)));
    present.map(|(key, value)| (key.clone(), value.to_value())).collect()
}

fn difference(expected: &Rows, actual: &Rows) -> Option<String> {
    let (expected, actual) = (shown(expected), shown(actual));
    (expected != actual).then(|| diff::json(&expected, &actual))
}
