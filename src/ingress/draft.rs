//! The shape of a command as a caller writes it, before anything is checked but types.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use super::{Problem, ProblemCode};
use crate::message::{CommandId, Metadata, Timestamp};

/// The fields of `POST /v1/commands`. Unknown ones are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft<'a> {
    #[serde(default)]
    pub(super) id: Option<CommandId>,
    #[serde(rename = "type", borrow)]
    pub(super) command_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) stream: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) payload: &'a RawValue,
    #[serde(default)]
    pub(super) lane: Option<LaneWord>,
    #[serde(default)]
    pub(super) expected_version: Option<i64>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) not_before: Option<Timestamp>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) not_after: Option<Timestamp>,
    #[serde(default, borrow)]
    pub(super) callback_url: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "metadata")]
    pub(super) metadata: Option<Metadata>,
}

/// The lanes that a caller may name, delivered or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LaneWord {
    Queued,
    Immediate,
    ImmediateOrQueued,
}

impl<'a> Draft<'a> {
    /// Reads JSON; the payload is only skipped over, for whoever knows its type.
    pub(super) fn read(text: &'a str) -> Result<Self, Problem> {
        object(text)?;
        serde_json::from_str(text).map_err(|error| json_problem(&error))
    }
}

/// Refuses JSON that is no object: serde reads a struct from an array, too, field by field.
pub(super) fn object(text: &str) -> Result<(), Problem> {
    if text.trim_start().starts_with('{') {
        return Ok(());
    }
    let _: IgnoredAny = serde_json::from_str(text).map_err(|error| json_problem(&error))?;
    Err(Problem::new(ProblemCode::InvalidField, "it must be a JSON object"))
}

/// The same for metadata: its names, not an array of values in their order.
fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Metadata>, D::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Option<Metadata>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("metadata as a JSON object")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
            Metadata::deserialize(MapAccessDeserializer::new(fields)).map(Some)
        }
    }
    from.deserialize_any(Object)
}

/// UTF-8 first, so that a wrong byte is named as what it is.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(ProblemCode::MalformedJson, format!("not UTF-8: a wrong byte at {at}"))
    })
}

/// Says whether the text is no JSON, or JSON of another shape.
pub(super) fn json_problem(error: &serde_json::Error) -> Problem {
    if error.is_data() {
        return Problem::new(ProblemCode::InvalidField, error.to_string());
    }
    let said = error.to_string();
    let detail = if said.starts_with("recursion limit exceeded") {
        format!("nested more than {MAX_DEPTH} levels deep")
    } else if said.starts_with("number out of range") {
        format!("a number does not fit 64 bits: {said}")
    } else {
        said
    };
    Problem::new(ProblemCode::MalformedJson, detail)
}

/// How deep JSON may be nested: the limit of serde_json.
const MAX_DEPTH: usize = 127;
