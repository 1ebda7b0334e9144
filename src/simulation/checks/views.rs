//! Every view is the fold of all events, document by document.

use std::collections::BTreeMap;

use super::super::{EventFact, Evidence};
use crate::{
    domain::{Document, EventRecord, Fold, ProjectionType, Service, StoredEvent},
    message::{CommandId, Offset, Partition, Position, RawJson, Timestamp, Version},
};

pub(super) fn check(service: &Service, evidence: &Evidence, violations: &mut Vec<String>) {
    for projection in service.registry().projections() {
        let view = projection.name();
        match fold(service, projection.as_ref(), &evidence.events) {
            Err(error) => violations.push(format!("view {view} cannot be folded: {error}")),
            Ok(folded) => compare(view, folded, evidence, violations),
        }
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
) -> Result<BTreeMap<String, Folded>, String> {
    let mut documents: BTreeMap<String, (i64, Document)> = BTreeMap::new();
    for event in events.iter().filter(|event| projection.wants(&event.event_type)) {
        let record = record(service, event)?;
        for key in projection.keys(&record) {
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
