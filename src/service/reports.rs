//! What the process tells the operator through the API.

use std::collections::BTreeMap;

use crate::{
    broker::GroupPartition,
    execute::AggregateCache,
    ingress::http::{CacheReport, CacheStats, OwnershipReport},
    message::{GroupName, PartitionCount},
    store::Member,
    worker::{able_members, owner},
};

impl CacheReport for AggregateCache {
    fn caches(&self) -> Vec<CacheStats> {
        let stats = self.stats();
        let evictions = [("size", stats.evicted_for_size), ("explicit", stats.invalidated)];
        vec![CacheStats {
            name: "aggregates".to_owned(),
            entries: stats.entries,
            bytes: stats.bytes,
            max_entries: None,
            max_bytes: Some(stats.limit_bytes),
            hits: stats.hits,
            misses: stats.misses,
            evictions: evictions.map(|(cause, count)| (cause.to_owned(), count)).into(),
        }]
    }
}

/// Computes who should own which partitions, as every member does for itself.
pub struct OwnershipByHash {
    partitions: PartitionCount,
    groups: Vec<GroupName>,
}

impl OwnershipByHash {
    /// For these groups.
    pub fn new(partitions: PartitionCount, groups: Vec<GroupName>) -> Self {
        Self { partitions, groups }
    }
}

impl OwnershipReport for OwnershipByHash {
    fn owned_by(&self, members: &[Member]) -> Vec<Vec<GroupPartition>> {
        let mut owned: BTreeMap<_, Vec<GroupPartition>> = BTreeMap::new();
        for group in &self.groups {
            let able = able_members(members, group);
            for partition in self.partitions.all() {
                if let Some(owner) = owner(able.iter().copied(), group.as_str(), partition) {
                    let group = group.clone();
                    owned.entry(owner).or_default().push(GroupPartition { group, partition });
                }
            }
        }
        members.iter().map(|member| owned.remove(&member.id).unwrap_or_default()).collect()
    }
}
