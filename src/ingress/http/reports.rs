//! What other parts of the process tell the operator through this API.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{broker::GroupPartition, store::Member};

/// Tells of caches; the executor does.
pub trait CacheReport: Send + Sync {
    /// The present state of every cache of this process.
    fn caches(&self) -> Vec<CacheStats>;
}

/// The state of one cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct CacheStats {
    /// Which cache: `aggregates`.
    pub name: String,
    /// How many entries it holds.
    pub entries: u64,
    /// About how many bytes they take.
    pub bytes: u64,
    /// How many entries it may hold, if that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_entries: Option<u64>,
    /// How many bytes it may take, if that is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// How often something was found.
    pub hits: u64,
    /// How often nothing was found.
    pub misses: u64,
    /// How many entries were evicted, by cause: `size`, `expired`, `replaced`, `explicit`.
    pub evictions: BTreeMap<String, u64>,
}

/// Computes who should own which partitions; membership does.
pub trait OwnershipReport: Send + Sync {
    /// For each of these live members, in order, the partitions that it owns.
    fn owned_by(&self, members: &[Member]) -> Vec<Vec<GroupPartition>>;
}
