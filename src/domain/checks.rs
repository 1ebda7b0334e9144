//! What workers refuse whatever the domain says. The test kit refuses the same.

use super::Scope;
use crate::message::{Failure, Partition, Version};

/// The rejection of a command that expects the stream at another version.
pub(crate) fn version_conflict(expected: Option<Version>, current: Version) -> Option<Failure> {
    let expected = expected.filter(|expected| *expected != current)?;
    let message = format!("the stream is at version {current}, the command expects {expected}");
    Some(Failure::new("version_conflict", message))
}

/// Why one of these cannot be a document's key.
pub(crate) fn key_that_is_none(keys: &[String]) -> Option<String> {
    let is_none = |key: &&String| key.is_empty() || key.len() > 512 || key.contains('\0');
    let key = keys.iter().find(is_none)?;
    Some(format!("`{key}` is no key: it must have 1 to 512 bytes and no U+0000"))
}

impl Scope {
    /// Why a document that one partition feeds may not be fed by another.
    pub(crate) fn refuses(self, key: &str, fed_by: Partition, other: Partition) -> Option<String> {
        (self == Self::Stream && fed_by != other)
            .then(|| format!("`{key}` is fed by two partitions: declare Scope::Shared"))
    }
}
