//! A group in this process: a partition loop for every partition that it should own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    EntryStats, GroupHandler, HeadWatch, OneSuspect, Ownership,
    combine::{Combiner, Pace, Share},
    partition_loop::PartitionLoop,
};
use crate::{
    broker::{Broker, GroupPartition},
    execute::RetryPolicy,
    latest,
    message::{GroupName, MemberId, Partition},
    store::{LogKind, Store},
};

/// How a group works.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// How many messages may be unacknowledged per partition.
    pub prefetch: u16,
    /// How many entries go into one run, and about as many into one transaction.
    pub max_entries: usize,
    /// How transactions are spread under load.
    pub pace: Pace,
    /// After how long without a delivery the log's head is looked at.
    pub quiet: Duration,
    /// How often a process may vanish while it runs an entry alone, before the entry is given up.
    pub crash_limit: i32,
    /// How often a run that failed is tried again.
    pub failure_retry: RetryPolicy,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            prefetch: 64,
            max_entries: 512,
            pace: Pace { interval: Duration::from_millis(30), from_entries: 32 },
            quiet: Duration::from_secs(1),
            crash_limit: 3,
            failure_retry: RetryPolicy {
                initial: Duration::from_secs(1),
                max_interval: Duration::from_secs(30),
                ..RetryPolicy::forever()
            },
        }
    }
}

/// What a group needs.
pub struct GroupParts {
    /// Its name.
    pub group: GroupName,
    /// The log it consumes.
    pub log: LogKind,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The road.
    pub broker: Arc<dyn Broker>,
    /// Finishes entries.
    pub handler: Arc<dyn GroupHandler>,
    /// This process.
    pub member: MemberId,
    /// Shared by all groups of the process.
    pub suspects: OneSuspect,
    /// How it works.
    pub settings: GroupSettings,
}

/// Runs a group until stopped; starts and ends loops as ownership moves. Ending a loop lets it
/// finish what it has in hand.
pub async fn run_group(
    parts: GroupParts,
    heads: HeadWatch,
    stats: EntryStats,
    mut ownership: latest::Receiver<Ownership>,
    stop: CancellationToken,
) {
    let partitions = usize::from(parts.store.identity().partitions.get().unsigned_abs());
    let share = Arc::new(Share { owned: AtomicUsize::new(0), partitions });
    let mut loops = Loops {
        combiner: Combiner::start(
            parts.handler.clone(),
            parts.settings.max_entries,
            parts.settings.pace,
            share.clone(),
        ),
        parts: Arc::new(parts),
        share,
        heads,
        stats,
        running: BTreeMap::new(),
    };
    loop {
        let owned = ownership.take().groups.get(&loops.parts.group).cloned();
        loops.reconcile(&owned.unwrap_or_default());
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = ownership.changed() => if changed.is_err() { break },
            // Looks after loops that ended by themselves, which only a bug makes them do.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    loops.end_all().await;
}

struct Loops {
    parts: Arc<GroupParts>,
    combiner: Combiner,
    share: Arc<Share>,
    heads: HeadWatch,
    stats: EntryStats,
    running: BTreeMap<Partition, (CancellationToken, AbortOnDropHandle<()>)>,
}

impl Loops {
    fn reconcile(&mut self, owned: &[Partition]) {
        for (partition, (stop, _)) in &self.running {
            if !owned.contains(partition) {
                stop.cancel();
            }
        }
        self.running.retain(|partition, (stop, task)| {
            if task.is_finished() && !stop.is_cancelled() {
                tracing::error!(group = %self.parts.group, %partition, "a partition loop ended by itself; it starts again");
            }
            !task.is_finished()
        });
        for partition in owned {
            // One that is still ending is started when it has ended.
            if !self.running.contains_key(partition) {
                self.start(*partition);
            }
        }
        self.share.owned.store(owned.len(), Ordering::Relaxed);
        metrics::gauge!("adjutant_partitions_owned", "group" => self.parts.group.to_string())
            .set(owned.len() as f64);
    }

    fn start(&mut self, partition: Partition) {
        let stop = CancellationToken::new();
        let partition_loop = PartitionLoop {
            source: GroupPartition { group: self.parts.group.clone(), partition },
            log: self.parts.log,
            parts: self.parts.clone(),
            combiner: self.combiner.clone(),
            heads: self.heads.clone(),
            counts: self.stats.of(&self.parts.group),
            stop: stop.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(partition_loop.run()));
        self.running.insert(partition, (stop, task));
    }

    async fn end_all(self) {
        for (stop, _) in self.running.values() {
            stop.cancel();
        }
        for (partition, (_, task)) in self.running {
            if let Err(error) = task.await {
                tracing::error!(group = %self.parts.group, %partition, %error, "a partition loop ended badly");
            }
        }
    }
}
