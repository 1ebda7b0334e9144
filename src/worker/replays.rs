//! Replays of parked keys that people asked for: whoever owns a key's partition makes its steps, one
//! key after the other, so that a long one does not hold up the rest. That two owners may be at it for
//! a moment does no harm: the key's cursor is moved by compare-and-set (law 5).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{OneSuspect, Ownership, ProjectionHandler, projection::ReplayTerms};
use crate::{
    execute::BreakerState,
    latest,
    message::{GroupName, MemberId, Partition},
    observe::names,
    signals::Signals,
    store::{Store, StoreError},
};

/// How many keys of a partition are in turn at a time.
const AT_A_TIME: usize = 64;
/// How often the keys that are parked are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What replaying needs.
pub struct ReplayParts {
    /// The groups of this process.
    pub handlers: Vec<Arc<ProjectionHandler>>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Hints of this process.
    pub signals: Signals,
    /// Which partitions are its own.
    pub ownership: latest::Receiver<Ownership>,
    /// This process.
    pub member: MemberId,
    /// Shared with all groups of the process: what may crash it runs alone.
    pub suspects: OneSuspect,
    /// How often a process may vanish at an event before its key waits for a person again.
    pub crash_limit: i32,
    /// How often it looks.
    pub poll: Duration,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Replays what is asked for until stopped.
pub async fn run_replays(parts: ReplayParts) {
    let handlers: BTreeMap<GroupName, Arc<ProjectionHandler>> =
        parts.handlers.iter().map(|handler| (handler.group().clone(), handler.clone())).collect();
    let mut replays = Replays { handlers, count_at: Instant::now(), parts };
    loop {
        replays.count().await;
        let went_on = replays.round().await;
        let pause = if went_on { Duration::ZERO } else { replays.parts.poll };
        tokio::select! {
            biased;
            () = replays.parts.stop.cancelled() => return,
            () = replays.parts.signals.replay_hint() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Replays {
    handlers: BTreeMap<GroupName, Arc<ProjectionHandler>>,
    count_at: Instant,
    parts: ReplayParts,
}

impl Replays {
    /// One step of each key in turn; whether any of them got further.
    async fn round(&mut self) -> bool {
        let owned = self.owned();
        if owned.is_empty() {
            return false;
        }
        let keys = match self.parts.store.keys_to_replay(&owned, AT_A_TIME).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::debug!(%error, "it cannot be asked what to replay; asking again");
                return false;
            }
        };
        let terms = ReplayTerms { member: self.parts.member, crash_limit: self.parts.crash_limit };
        let mut went_on = false;
        for key in keys {
            if self.parts.stop.is_cancelled() {
                return false;
            }
            let Some(handler) = self.handlers.get(&key.name.group) else { continue };
            let name = key.name.key.clone();
            // A step that was begun before and did not take place may be what makes processes vanish.
            let alone = if key.begun > 0 { Some(self.parts.suspects.alone().await) } else { None };
            let ended = handler.replay_step(key, terms).await;
            drop(alone);
            match ended {
                Ok(()) => went_on = true,
                Err(StoreError::Fenced(fence)) => {
                    tracing::debug!(group = %handler.group(), key = name, ?fence, "another was faster");
                }
                Err(error) => {
                    tracing::warn!(group = %handler.group(), key = name, %error, "the replay is interrupted; it goes on from there");
                }
            }
        }
        went_on
    }

    fn owned(&mut self) -> Vec<(GroupName, Partition)> {
        let groups = self.parts.ownership.take().groups;
        // A group that pauses has no use for replays: they would fail for the same reason.
        let goes_on = |it: &Arc<ProjectionHandler>| it.breaker().state() == BreakerState::Closed;
        let ours =
            groups.into_iter().filter(|(group, _)| self.handlers.get(group).is_some_and(goes_on));
        ours.flat_map(|(group, partitions)| {
            partitions.into_iter().map(move |partition| (group.clone(), partition))
        })
        .collect()
    }

    async fn count(&mut self) {
        if Instant::now() < self.count_at {
            return;
        }
        self.count_at = Instant::now() + COUNT_EVERY;
        match self.parts.store.parked_counts().await {
            Ok(counts) => {
                for group in self.handlers.keys() {
                    let keys = counts.iter().find(|count| count.group == *group);
                    metrics::gauge!(names::PARKED_KEYS, "group" => group.to_string())
                        .set(keys.map_or(0.0, |count| count.keys as f64));
                }
            }
            Err(error) => tracing::debug!(%error, "parked keys cannot be counted"),
        }
    }
}
