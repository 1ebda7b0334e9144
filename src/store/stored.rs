//! How values stand in columns: the same words, numbers and JSON in every store.

use std::collections::BTreeMap;

use super::{KeyScope, Replay, StoreError};
use crate::{
    dead_letter::DeadLetterState,
    message::{
        ContentHash, Failure, GroupName, Lane, Metadata, Offset, Partition, Position, RawJson,
        ReplyAddress, StreamId,
    },
};

pub(super) fn lane_code(lane: Lane) -> i16 {
    match lane {
        Lane::Queued => 1,
        Lane::Immediate => 2,
    }
}

pub(super) fn lane(code: i16) -> Result<Lane, StoreError> {
    match code {
        1 => Ok(Lane::Queued),
        2 => Ok(Lane::Immediate),
        _ => Err(StoreError::Corrupt(format!("there is no lane {code}"))),
    }
}

pub(super) fn stream(text: &str) -> Result<StreamId, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt(format!("stream `{text}`: {error}")))
}

pub(super) fn content_hash(bytes: &[u8]) -> Result<ContentHash, StoreError> {
    let hash =
        bytes.try_into().map_err(|_| StoreError::Corrupt("content_hash is not 32 bytes".into()));
    hash.map(ContentHash)
}

/// The positions of `events` events from the first offset on.
pub(super) fn positions(partition: Partition, first: Option<i64>, events: i32) -> Vec<Position> {
    first.map_or_else(Vec::new, |first| {
        (first..first + i64::from(events))
            .map(|offset| Position { partition, offset: Offset(offset) })
            .collect()
    })
}

/// Metadata as JSON; `None` if there is none.
pub(super) fn metadata_json(metadata: &Metadata) -> Result<Option<String>, StoreError> {
    (!metadata.is_empty()).then(|| json_text(metadata)).transpose()
}

pub(super) fn metadata(text: Option<&str>) -> Result<Metadata, StoreError> {
    text.map_or(Ok(Metadata::default()), parse)
}

pub(super) fn reply_to(text: Option<&str>) -> Result<Option<ReplyAddress>, StoreError> {
    text.map(parse).transpose()
}

pub(super) fn failure(text: Option<&str>) -> Result<Option<Failure>, StoreError> {
    text.map(parse).transpose()
}

/// A log entry names a correction of its payload that is not there.
pub(super) fn no_edit() -> StoreError {
    StoreError::Corrupt("the correction of a command's payload is missing".to_owned())
}

pub(super) fn raw(text: Option<String>) -> Option<RawJson> {
    text.map(RawJson::from_trusted)
}

/// `{ "7": 1042 }`, as `views.as_of` keeps it.
pub(super) fn as_of_json(positions: &[Position]) -> String {
    let pairs: Vec<_> =
        positions.iter().map(|p| format!("\"{}\":{}", p.partition, p.offset)).collect();
    format!("{{{}}}", pairs.join(","))
}

pub(super) fn as_of(text: &str) -> Result<Vec<Position>, StoreError> {
    let map: BTreeMap<String, i64> = parse(text)?;
    map.into_iter()
        .map(|(partition, offset)| {
            format!("{partition}:{offset}")
                .parse()
                .map_err(|error| StoreError::Corrupt(format!("views.as_of: {error}")))
        })
        .collect()
}

/// The headers of an outbox row as a JSON object.
pub(super) fn headers_json(headers: &[(String, String)]) -> Result<String, StoreError> {
    let map: serde_json::Map<_, _> =
        headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    json_text(&map)
}

pub(super) fn headers(text: Option<&str>) -> Result<Vec<(String, String)>, StoreError> {
    let map: BTreeMap<String, String> = text.map_or(Ok(BTreeMap::new()), parse)?;
    Ok(map.into_iter().collect())
}

pub(super) fn json_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unstorable(error.to_string()))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// `parked_keys.state`: what was asked for, if anything.
pub(super) fn replay(state: i16) -> Result<Option<Replay>, StoreError> {
    match state {
        1 => Ok(None),
        2 => Ok(Some(Replay::Retry)),
        3 => Ok(Some(Replay::Discard)),
        _ => Err(StoreError::Corrupt(format!("there is no state {state} of a parked key"))),
    }
}

pub(super) fn replay_code(replay: Replay) -> i16 {
    match replay {
        Replay::Retry => 2,
        Replay::Discard => 3,
    }
}

/// What a dead letter is when its replay has ended, well or not.
pub(super) fn closed_by(replay: Option<Replay>) -> DeadLetterState {
    match replay {
        Some(Replay::Discard) => DeadLetterState::Discarded,
        Some(Replay::Retry) | None => DeadLetterState::Resolved,
    }
}

pub(super) fn key_scope(code: i16) -> Result<KeyScope, StoreError> {
    KeyScope::from_code(code)
        .ok_or_else(|| StoreError::Corrupt(format!("there is no scope {code} of a parked key")))
}

/// The group that maintains a view.
pub(super) fn group_of(view: &str) -> GroupName {
    GroupName::projection(view)
}

/// How many bytes of payload a page of waiting events holds about, at most (and at least one event).
pub(super) const WAITING_BYTES: i64 = 4 * 1024 * 1024;
