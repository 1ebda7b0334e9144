//! Aggregates in memory, bounded by bytes. An entry is only a guess at the stream's end: the unique
//! version in the store is what decides, and a wrong guess costs a second try.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use moka::{notification::RemovalCause, sync::Cache};

use crate::{
    domain::State,
    message::{StreamId, Version},
};

/// An aggregate as it was after some version of its stream.
pub(super) struct CachedAggregate {
    pub(super) state: State,
    pub(super) version: Version,
    /// The version of the stream's newest snapshot.
    pub(super) snapshot_at: Version,
    /// An upper estimate of what it takes: what it was read from.
    pub(super) bytes: u32,
}

/// Bookkeeping of an entry: key, pointers, counts.
const ENTRY_OVERHEAD: u32 = 256;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct AggregateCache {
    entries: Cache<StreamId, Arc<CachedAggregate>>,
    counts: Arc<Counts>,
    limit_bytes: u64,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    evicted_for_size: AtomicU64,
    invalidated: AtomicU64,
}

/// What the cache holds and how well it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    /// Aggregates held.
    pub entries: u64,
    /// Bytes held, as estimated.
    pub bytes: u64,
    /// The most bytes it may hold.
    pub limit_bytes: u64,
    /// Lookups that found the aggregate.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries that had to go because the limit was reached.
    pub evicted_for_size: u64,
    /// Entries dropped because another writer was seen.
    pub invalidated: u64,
}

impl AggregateCache {
    /// A cache of at most `limit_bytes`.
    pub fn with_limit(limit_bytes: u64) -> Self {
        let counts = Arc::new(Counts::default());
        let evictions = counts.clone();
        let entries = Cache::builder()
            .max_capacity(limit_bytes)
            .weigher(|stream: &StreamId, aggregate: &Arc<CachedAggregate>| {
                let key = u32::try_from(stream.as_str().len()).unwrap_or(u32::MAX);
                aggregate.bytes.saturating_add(key).saturating_add(ENTRY_OVERHEAD)
            })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.evicted_for_size.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        Self { entries, counts, limit_bytes }
    }

    pub(super) fn get(&self, stream: &StreamId) -> Option<Arc<CachedAggregate>> {
        let found = self.entries.get(stream);
        let count = if found.is_some() { &self.counts.hits } else { &self.counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn put(&self, stream: StreamId, aggregate: Arc<CachedAggregate>) {
        self.entries.insert(stream, aggregate);
    }

    pub(super) fn invalidate<'a>(&self, streams: impl IntoIterator<Item = &'a StreamId>) {
        for stream in streams {
            self.entries.invalidate(stream);
            self.counts.invalidated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it holds now. Runs pending evictions first, which moka otherwise does only on use.
    pub fn stats(&self) -> CacheStats {
        self.entries.run_pending_tasks();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheStats {
            entries: self.entries.entry_count(),
            bytes: self.entries.weighted_size(),
            limit_bytes: self.limit_bytes,
            hits: read(&self.counts.hits),
            misses: read(&self.counts.misses),
            evicted_for_size: read(&self.counts.evicted_for_size),
            invalidated: read(&self.counts.invalidated),
        }
    }
}
