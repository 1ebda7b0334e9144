//! Which partition a stream belongs to. The hash is part of the storage format: it never changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

use super::StreamId;

/// One of the P partitions of a database, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub i16);

impl Partition {
    /// The partition as a list index.
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many partitions a database has (1–1024); fixed when it is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCount(i16);

/// A partition count that is not between 1 and 1024.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} is no partition count: it must be 1 to 1024")]
pub struct InvalidPartitionCount(pub i64);

impl PartitionCount {
    /// What a database gets when nothing else is asked for.
    pub const DEFAULT: Self = Self(8);

    /// Checks the bounds.
    pub fn new(count: i64) -> Result<Self, InvalidPartitionCount> {
        match i16::try_from(count) {
            Ok(count @ 1..=1024) => Ok(Self(count)),
            _ => Err(InvalidPartitionCount(count)),
        }
    }

    /// The number.
    pub fn get(self) -> i16 {
        self.0
    }

    /// All partitions in order.
    pub fn all(self) -> impl DoubleEndedIterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }

    /// The partition of a stream: XXH64 (seed 0) of its UTF-8 bytes, modulo this count.
    pub fn of(self, stream: &StreamId) -> Partition {
        self.of_bytes(stream.as_str().as_bytes())
    }

    /// The partition of arbitrary bytes, by the same hash.
    pub fn of_bytes(self, bytes: &[u8]) -> Partition {
        Partition((xxh64(bytes, 0) % u64::from(self.0.unsigned_abs())) as i16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden: computed with the xxHash project's own C code; must hold in every version and language.
    #[test]
    fn the_partition_hash_never_changes() {
        assert_eq!(xxh64(b"account/acc-42", 0), 0xbbd0_bf26_9deb_d645);
        let eight = PartitionCount::DEFAULT;
        let expected = [("account/acc-42", 5), ("account/a", 6), ("order/2026:7", 2)];
        for (stream, partition) in expected {
            let stream: StreamId = stream.parse().expect("valid");
            assert_eq!(eight.of(&stream), Partition(partition), "{stream}");
        }
    }
}
