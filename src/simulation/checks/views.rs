//! Every view is the fold of all events, document by document; where a key is parked, of those up to
//! its cursor. What is parked is accounted for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{EventFact, Evidence};
use crate::{
    domain::{Document, EventRecord, Fold, ProjectionType, Service, StoredEvent},
    message::{CommandId, Offset, Partition, Position, RawJson, Timestamp, Version},
};

pub(super) fn check(service: &Service, evidence: &Evidence, violations: &mut Vec<String>) {
    for projection in service.registry().projections() {
        let view = projection.name();
        let waiting = Waiting::of(view, evidence);
        match fold(service, projection.as_ref(), &evidence.events, &waiting) {
            Err(error) => violations.push(format!("view {view} cannot be folded: {error}")),
            Ok(folded) => compare(view, folded, evidence, violations),
        }
    }
    check_parked(evidence, violations);
}

/// What is parked has a dead letter that somebody can act on, and what waits has its event and its key.
fn check_parked(evidence: &Evidence, violations: &mut Vec<String>) {
    for parked in &evidence.parked {
        let expected = if parked.state == 1 { 1 } else { 2 };
        if parked.dead_letter != Some(expected) {
            violations.push(format!("{parked:?} has not the dead letter that its state needs"));
        }
    }
    let events: BTreeSet<(i16, i64)> =
        evidence.events.iter().map(|event| (event.partition, event.offset)).collect();
    for reference in &evidence.references {
        let is_parked = evidence.parked.iter().any(|parked| {
            parked.scope == 2 && parked.group == reference.group && parked.key == reference.key
        });
        if !is_parked || !events.contains(&(reference.partition, reference.offset)) {
            violations.push(format!("{reference:?} waits, but not for an event and a parked key"));
        }
    }
}

/// What a view has not applied, because its key is parked or a person decided so.
struct Waiting<'e> {
    /// The last offset applied to each parked stream.
    streams: BTreeMap<&'e str, i64>,
    /// For each document, the events that wait for it.
    references: BTreeSet<(&'e str, i16, i64)>,
    /// For each stream or document, the events that were discarded.
    discards: BTreeSet<(&'e str, i16, i64)>,
}

impl<'e> Waiting<'e> {
    fn of(view: &str, evidence: &'e Evidence) -> Self {
        let group = format!("projection.{view}");
        let parked = evidence.parked.iter().filter(|it| it.group == group && it.scope == 1);
        let references = evidence.references.iter().filter(|it| it.group == group);
        let discards = evidence.discards.iter().filter(|it| it.group == group);
        Self {
            streams: parked.map(|it| (it.key.as_str(), it.cursor)).collect(),
            references: references.map(|it| (it.key.as_str(), it.partition, it.offset)).collect(),
            discards: discards.map(|it| (it.key.as_str(), it.partition, it.offset)).collect(),
        }
    }

    /// Whether the stream's event has not been applied to anything.
    fn holds(&self, event: &EventFact) -> bool {
        let stream = event.stream.as_str();
        self.streams.get(stream).is_some_and(|cursor| event.offset > *cursor)
            || self.discards.contains(&(stream, event.partition, event.offset))
    }

    fn holds_for(&self, document: &str, event: &EventFact) -> bool {
        let waits = (document, event.partition, event.offset);
        self.references.contains(&waits) || self.discards.contains(&waits)
    }
}

/// A document: how often it changed, and its value.
type Folded = (i64, Option<String>);

fn compare(
    view: &str,
    mut folded: BTreeMap<String, Folded>,
    evidence: &Evidence,
    violations: &mut Vec<String>,
) {
    for document in evidence.documents.iter().filter(|document| document.view == view) {
        let stored = (document.version, document.value.clone());
        let expected = folded.remove(&document.key);
        if expected.as_ref() != Some(&stored) {
            violations.push(format!(
                "{view}/{} is {stored:?}, but the fold of its events is {expected:?}",
                document.key
            ));
        }
    }
    for (key, expected) in folded {
        violations.push(format!("{view}/{key} is missing; its fold is {expected:?}"));
    }
}

fn fold(
    service: &Service,
    projection: &dyn ProjectionType,
    events: &[EventFact],
    waiting: &Waiting<'_>,
) -> Result<BTreeMap<String, Folded>, String> {
    let mut documents: BTreeMap<String, (i64, Document)> = BTreeMap::new();
    let wanted = |event: &&EventFact| projection.wants(&event.event_type) && !waiting.holds(event);
    for event in events.iter().filter(wanted) {
        let record = record(service, event)?;
        for key in projection.keys(&record) {
            if waiting.holds_for(&key, event) {
                continue;
            }
            if !documents.contains_key(&key) {
                let absent = projection.read(None).map_err(|error| error.to_string())?;
                documents.insert(key.clone(), (0, absent));
            }
            let Some((changes, document)) = documents.get_mut(&key) else { continue };
            let fold = projection.apply(&key, document, &record);
            if fold.map_err(|error| error.to_string())? == Fold::Changed {
                *changes += 1;
            }
        }
    }
    let written = documents.into_iter().filter(|(_, (changes, _))| *changes > 0);
    written
        .map(|(key, (changes, document))| {
            let value = projection.write(&document).map_err(|error| error.to_string())?;
            Ok((key, (changes, value.map(|value| value.as_str().to_owned()))))
        })
        .collect()
}

fn record(service: &Service, event: &EventFact) -> Result<EventRecord, String> {
    let data = RawJson::from_trusted(event.data.clone());
    let stored = StoredEvent {
        event_type: &event.event_type,
        schema_version: event.schema_version,
        data: &data,
    };
    let decoded = service.registry().decode_event(&stored).map_err(|error| error.to_string())?;
    let metadata = event.metadata.as_deref().map(serde_json::from_str).transpose();
    let recorded_at = Timestamp::from_unix_timestamp_nanos(i128::from(event.recorded_at) * 1_000);
    Ok(EventRecord {
        decoded,
        stream: event.stream.parse().map_err(|error| format!("{}: {error}", event.stream))?,
        version: Version(event.version),
        position: Position { partition: Partition(event.partition), offset: Offset(event.offset) },
        recorded_at: recorded_at.map_err(|error| error.to_string())?,
        event_type: event.event_type.clone(),
        schema_version: event.schema_version,
        data,
        command_id: CommandId(event.command),
        metadata: metadata.map_err(|error| error.to_string())?.unwrap_or_default(),
    })
}
