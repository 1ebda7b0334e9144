//! JSON that is carried, not looked into.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A JSON text that was valid when it came in. It is stored and sent as it is, so that a payload
/// is parsed only by whoever needs its fields.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Arc<str>);

impl RawJson {
    /// Writes a value as JSON.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(|text| Self(text.into()))
    }

    /// Takes a text as it is; the caller vouches that it is JSON (it came from `jsonb` or a parser).
    pub fn from_trusted(text: String) -> Self {
        Self(text.into())
    }

    /// Reads the value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Inside MessagePack the JSON travels as a string; inside JSON, see [`RawJson::to_value`].
impl Serialize for RawJson {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(text.into()))
    }
}

/// PostgreSQL's `jsonb` holds every JSON text but one with the character U+0000.
#[cfg(any(feature = "runtime", feature = "testing"))]
impl RawJson {
    /// Where the character U+0000 stands (JSON pointers, RFC 6901), in keys and in strings.
    /// `value` is the parsed text: JSON can write the character only as an escape, so that most
    /// texts are cleared without a look at it.
    pub(crate) fn nul_pointers(text: &str, value: &serde_json::Value) -> Vec<String> {
        let mut found = Vec::new();
        if text.contains("\\u0000") {
            nul_within(&mut String::new(), value, &mut found);
        }
        found
    }
}

#[cfg(any(feature = "runtime", feature = "testing"))]
fn nul_within(pointer: &mut String, value: &serde_json::Value, found: &mut Vec<String>) {
    use serde_json::Value;
    let length = pointer.len();
    match value {
        Value::String(text) if text.contains('\0') => found.push(pointer.clone()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointer.push('/');
                pointer.push_str(&index.to_string());
                nul_within(pointer, item, found);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (key, item) in fields {
                let escaped = key.replace('~', "~0").replace('/', "~1").replace('\0', "\\u0000");
                pointer.push('/');
                pointer.push_str(&escaped);
                if key.contains('\0') {
                    found.push(pointer.clone());
                }
                nul_within(pointer, item, found);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

impl RawJson {
    /// The value as a JSON tree, for answers that embed it. `null` if the text is no JSON, which
    /// only a bug in its source can bring about.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}
