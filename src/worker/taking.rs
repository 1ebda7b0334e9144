//! How a partition loop takes its partition, and what it does about an owner that vanished: what that
//! one was at runs once more, then one entry at a time (see [`suspects`](super::suspects)).

use tokio::time::Instant;

use super::{
    EntrySource,
    partition_loop::{Interruption, PartitionLoop, State},
    suspects::{HAND_OVER_WITHIN, LOOK_EVERY, Suspicion},
};
use crate::{
    execute::RetryPolicy,
    message::Offset,
    store::{Entry, StoreError, Taken},
};

impl PartitionLoop {
    /// Takes the partition; whether its last owner vanished (or does not end). `None`: stopped.
    pub(super) async fn take_partition(&self) -> Option<bool> {
        let (group, partition) = (&self.source.group, self.source.partition);
        let mut delays = RetryPolicy::forever().start();
        let since = Instant::now();
        loop {
            let by_force = since.elapsed() >= HAND_OVER_WITHIN;
            let taken =
                self.parts.store.take_partition(group, partition, self.parts.member, by_force);
            let wait = match taken.await {
                Ok(Taken::Released) => return Some(false),
                Ok(Taken::Unreleased) => return Some(true),
                Ok(Taken::Held) => LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(source = %self.source, %error, "the partition cannot be taken; trying again");
                    delays.next_delay().unwrap_or(self.parts.settings.quiet)
                }
            };
            self.wait(wait).await.ok()?;
        }
    }

    /// What the last owner was at, behind its checkpoint. `None`: stopped.
    pub(super) async fn suspect(&self, next: Offset) -> Option<Suspicion> {
        let mut delays = RetryPolicy::forever().start();
        loop {
            match self.parts.store.heads().await {
                Ok(heads) => {
                    let head = heads.of(self.log, self.source.partition);
                    let checkpoint = Offset(next.0 - 1);
                    let window = self.parts.settings.max_entries;
                    let suspicion = Suspicion::behind(checkpoint, window, head);
                    if suspicion.is_empty() {
                        return Some(suspicion);
                    }
                    metrics::counter!("adjutant_suspect_windows_total", "group" => self.source.group.to_string()).increment(1);
                    let before = self.count_window().await?;
                    if before == 0 {
                        tracing::info!(source = %self.source, checkpoint = %checkpoint, "the last owner vanished; what it was at runs again");
                        return Some(suspicion.together());
                    }
                    tracing::warn!(source = %self.source, checkpoint = %checkpoint, "owners vanished here again and again; what they were at runs one by one");
                    return Some(suspicion);
                }
                Err(error) => {
                    tracing::warn!(source = %self.source, %error, "the heads cannot be read; trying again");
                    let delay = delays.next_delay().unwrap_or(self.parts.settings.quiet);
                    self.wait(delay).await.ok()?;
                }
            }
        }
    }

    /// Whether an owner vanished before, and what it was at has not been finished since; this time is
    /// counted in advance. `None`: stopped.
    async fn count_window(&self) -> Option<i32> {
        let (group, partition) = (&self.source.group, self.source.partition);
        let mut delays = RetryPolicy::forever().start();
        loop {
            match self.parts.store.begin_suspect(group, partition, Suspicion::WINDOW).await {
                Ok(before) => return Some(before),
                // It may be counted, and may not: caution costs only time.
                Err(StoreError::Unknown(_)) => return Some(1),
                Err(error) => {
                    tracing::warn!(source = %self.source, %error, "suspect entries cannot be counted; trying again");
                    let delay = delays.next_delay().unwrap_or(self.parts.settings.quiet);
                    self.wait(delay).await.ok()?;
                }
            }
        }
    }

    /// Runs a suspect entry alone in this process, its crash count committed before. Answers it, if
    /// the group pauses instead.
    pub(super) async fn finish_suspect(
        &self,
        state: &mut State,
        entry: Vec<Entry>,
        source: EntrySource,
    ) -> Result<Vec<Entry>, Interruption> {
        let group = &self.source.group;
        let alone = self.parts.suspects.alone().await;
        let crashes = self.count_suspect(state).await?;
        let mut run = self.run_of(state, entry);
        run.alone = true;
        if crashes >= self.parts.settings.crash_limit.max(1) {
            tracing::error!(source = %self.source, offset = %state.next, crashes, "a process vanished whenever this entry ran: it is given up");
            metrics::counter!("adjutant_crashed_entries_total", "group" => group.to_string())
                .increment(1);
            run.crashed = Some(crashes);
        }
        self.finish_run(state, run, source, Some(alone)).await
    }

    /// A count that stays costs caution after the next crash, nothing else.
    pub(super) async fn end_suspects(&self) {
        let ended = self.parts.store.end_suspects(&self.source.group, self.source.partition).await;
        if let Err(error) = ended {
            tracing::warn!(source = %self.source, %error, "crash counts could not be removed");
        }
    }

    /// How often a process vanished at the next entry; this time is counted in advance.
    async fn count_suspect(&self, state: &mut State) -> Result<i32, Interruption> {
        let (group, partition, offset) = (&self.source.group, self.source.partition, state.next);
        let mut delays = RetryPolicy::forever().start();
        loop {
            if let Some(crashes) = state.suspicion.counted(offset) {
                return Ok(crashes);
            }
            match self.parts.store.begin_suspect(group, partition, offset).await {
                Ok(crashes) => state.suspicion.count(offset, crashes),
                // It may be counted: not twice.
                Err(StoreError::Unknown(_)) => state.suspicion.count(offset, 0),
                Err(error) => {
                    tracing::warn!(source = %self.source, %error, "a suspect entry cannot be counted; trying again");
                    self.wait(delays.next_delay().unwrap_or(self.parts.settings.quiet)).await?;
                }
            }
        }
    }
}
