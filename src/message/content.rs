//! What makes two commands with one id "the same".

#[cfg(feature = "runtime")]
use sha2::{Digest, Sha256};

use super::{StreamId, Timestamp, Version};

/// SHA-256 of a command's content (see [`CommandContent`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash(pub [u8; 32]);

/// The parts of a command that a repetition must repeat.
#[derive(Clone, Copy, Debug)]
pub struct CommandContent<'a> {
    /// The wire name.
    pub command_type: &'a str,
    /// The stream.
    pub stream: &'a StreamId,
    /// The payload.
    pub payload: &'a serde_json::Value,
    /// Not to be started before.
    pub not_before: Option<Timestamp>,
    /// Not to be started after.
    pub not_after: Option<Timestamp>,
    /// The version the stream must have.
    pub expected_version: Option<Version>,
}

#[cfg(feature = "runtime")]
impl CommandContent<'_> {
    /// The hash over every part; the payload in canonical form (RFC 8785), so that the order of
    /// its keys and its white space make no difference. Fields are length-prefixed.
    pub fn hash(&self) -> Result<ContentHash, serde_json::Error> {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.command_type.as_bytes());
        part(self.stream.as_str().as_bytes());
        part(&serde_json_canonicalizer::to_vec(self.payload)?);
        // RFC 8785 writes every number as a double, which makes neighbours beyond 2^53 the same:
        // those are added as they are. A payload without them keeps its plain canonical form.
        let mut beyond = String::new();
        integers_beyond_doubles(self.payload, &mut beyond);
        if !beyond.is_empty() {
            part(beyond.as_bytes());
        }
        // The lane is no part of it: the same command may be sent to either (docs/adr/0006). Its
        // place in the hash stays, so that hashes that are stored keep their meaning.
        part(b"queued");
        for time in [self.not_before, self.not_after] {
            let micros = time.map(|time| time.unix_timestamp_nanos() / 1_000);
            part(micros.map(|micros| micros.to_string()).unwrap_or_default().as_bytes());
        }
        let version = self.expected_version.map(|version| version.to_string());
        part(version.unwrap_or_default().as_bytes());
        Ok(ContentHash(hasher.finalize().into()))
    }
}

/// The integers that a double cannot hold exactly, in the order of sorted keys.
#[cfg(feature = "runtime")]
fn integers_beyond_doubles(value: &serde_json::Value, found: &mut String) {
    use serde_json::Value;
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if magnitude.is_some_and(|magnitude| magnitude > EXACT) {
                found.push_str(&number.to_string());
                found.push(' ');
            }
        }
        Value::Array(items) => {
            for item in items {
                integers_beyond_doubles(item, found);
            }
        }
        Value::Object(fields) => {
            // serde_json keeps keys sorted unless some crate switches `preserve_order` on.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            for (_, item) in fields {
                integers_beyond_doubles(item, found);
            }
        }
        _ => {}
    }
}
