//! Rust values as PostgreSQL columns.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::{
    message::{Failure, Lane, Metadata, Position, RawJson, ReplyAddress},
    store::StoreError,
};

/// A JSON text as `jsonb` (binary format: a version byte and the text).
#[derive(Debug)]
pub(super) struct Jsonb<'a>(pub(super) &'a str);

impl ToSql for Jsonb<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_u8(1);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(column: &Type) -> bool {
        *column == Type::JSONB
    }

    to_sql_checked!();
}

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
    let map: std::collections::BTreeMap<String, i64> = parse(text)?;
    map.into_iter()
        .map(|(partition, offset)| {
            format!("{partition}:{offset}")
                .parse()
                .map_err(|error| StoreError::Corrupt(format!("views.as_of: {error}")))
        })
        .collect()
}

pub(super) fn json_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unstorable(error.to_string()))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}
