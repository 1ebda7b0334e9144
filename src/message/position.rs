//! Places in a log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Partition;

/// An entry's place in its log: 1, 2, 3 … without a gap, in commit order (0: before the first).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The place that follows.
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The place `n` further on.
    pub fn plus(self, n: usize) -> Self {
        Self(self.0.saturating_add(n as i64))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition and an offset in its event log, written `7:1042`: what an outcome returns and a
/// query can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The offset in that partition's event log.
    pub offset: Offset,
}

/// A text that is no position.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is no position: write `partition:offset`, for example `7:1042`")]
pub struct InvalidPosition(pub String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once(':').and_then(|(partition, offset)| {
            let partition: i16 = partition.parse().ok()?;
            let offset: i64 = offset.parse().ok()?;
            (partition >= 0 && offset >= 0)
                .then_some(Self { partition: Partition(partition), offset: Offset(offset) })
        });
        parsed.ok_or_else(|| InvalidPosition(text.to_owned()))
    }
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
