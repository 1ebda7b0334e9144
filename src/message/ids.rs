//! Identifiers. Each is a type of its own, so that none can stand in for another.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, time-ordered id (UUID version 7, RFC 9562).
            pub fn generate() -> Self {
                Self(crate::chance::new_id())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// Names one command; the caller may choose it, and it is the idempotency key.
    CommandId
}
uuid_id! {
    /// Names the log that a database holds: written at initialisation, changed after a restore.
    LogId
}
uuid_id! {
    /// Names one incarnation of a process; a restarted process is another member.
    MemberId
}

/// A stream's version: the number of its events, counted 1, 2, 3 … (0: no event yet).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub i64);

impl Version {
    /// The version that the next event of the stream gets.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many times a command was tried; the first try is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub i32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try that follows.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a consumer of a log: `commands`, or `projection.{name}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupName(Arc<str>);

impl GroupName {
    /// The group of the command executor, which consumes the command log.
    pub fn commands() -> Self {
        Self("commands".into())
    }

    /// The group of the projection `name`, which consumes the event log.
    pub fn projection(name: &str) -> Self {
        Self(format!("projection.{name}").into())
    }

    /// A name as it was stored.
    #[cfg(any(feature = "postgres", feature = "embedded"))]
    pub(crate) fn from_stored(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as it stands in SQL, queues and metrics.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a stream: `{aggregate type}/{aggregate id}`, for example `account/acc-42`.
///
/// The type is `[a-z][a-z0-9_]*`, the id 1–128 bytes of `[A-Za-z0-9._~:-]`. One string everywhere:
/// HTTP, SQL and the partition hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Arc<str>);

/// Why a text is no stream name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStreamId {
    /// There is no `/` between type and id.
    #[error("a stream is named `type/id`, for example `account/acc-42`; there is no `/` in it")]
    NoSlash,
    /// The part before the `/` is not `[a-z][a-z0-9_]*` of at most 64 bytes.
    #[error(
        "the aggregate type (before the `/`) must match [a-z][a-z0-9_]* and have at most 64 bytes"
    )]
    Type,
    /// The part after the `/` is not 1–128 bytes of `[A-Za-z0-9._~:-]`.
    #[error("the aggregate id (after the `/`) must be 1 to 128 bytes of [A-Za-z0-9._~:-]")]
    Id,
}

impl StreamId {
    /// Puts a stream's name together from its two parts.
    pub fn new(aggregate_type: &str, id: &str) -> Result<Self, InvalidStreamId> {
        format!("{aggregate_type}/{id}").parse()
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The aggregate type: what stands before the `/`.
    pub fn aggregate_type(&self) -> &str {
        self.0.split_once('/').map_or("", |(kind, _)| kind)
    }

    /// The aggregate id: what stands after the `/`.
    pub fn id(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, id)| id)
    }
}

/// Whether `name` may name an aggregate type, a message or a projection: `[a-z][a-z0-9_]*`, ≤ 64 bytes.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_aggregate_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~:-".contains(&b))
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = text.split_once('/').ok_or(InvalidStreamId::NoSlash)?;
        if !is_name(kind) {
            return Err(InvalidStreamId::Type);
        }
        if !is_aggregate_id(id) {
            return Err(InvalidStreamId::Id);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for StreamId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_name_is_a_type_a_slash_and_an_id() {
        let stream: StreamId = "account/acc-42".parse().expect("valid");
        assert_eq!(stream.aggregate_type(), "account");
        assert_eq!(stream.id(), "acc-42");
        assert_eq!("account".parse::<StreamId>(), Err(InvalidStreamId::NoSlash));
        assert_eq!("Account/1".parse::<StreamId>(), Err(InvalidStreamId::Type));
        assert_eq!("account/".parse::<StreamId>(), Err(InvalidStreamId::Id));
        assert_eq!("account/a/b".parse::<StreamId>(), Err(InvalidStreamId::Id));
        assert_eq!("account/ä".parse::<StreamId>(), Err(InvalidStreamId::Id));
        let long = format!("account/{}", "x".repeat(129));
        assert_eq!(long.parse::<StreamId>(), Err(InvalidStreamId::Id));
    }
}
