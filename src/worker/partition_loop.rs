//! The loop of one partition of one group. It tracks one integer, the next offset: that entry runs;
//! lower ones are duplicates; a higher one shows a hole, which is read from the log first (law 4).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::MutexGuard,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    EntrySource, GroupParts, HandlerRun, HeadWatch,
    combine::Combiner,
    heads::Following,
    road::{Event, Road},
    source::{Arrival, look_at},
    stats::Counts,
    suspects::Suspicion,
};
use crate::{
    broker::{BrokerError, Delivery, GroupPartition},
    execute::{Retries, RetryPolicy, RunEnd},
    message::{LogId, Offset},
    store::{Entry, ForeignMessage, LogKind, StoreError},
};

pub(super) struct PartitionLoop {
    pub(super) source: GroupPartition,
    pub(super) log: LogKind,
    pub(super) parts: Arc<GroupParts>,
    pub(super) combiner: Combiner,
    pub(super) heads: HeadWatch,
    pub(super) counts: Arc<Counts>,
    pub(super) stop: CancellationToken,
}

/// Why the loop goes no further.
#[derive(Debug)]
pub(super) enum Interruption {
    /// It was told to stop.
    Stopped,
    /// The checkpoint is elsewhere: read it again and go on from there.
    Moved,
    /// The road is broken: open it again.
    Road(BrokerError),
    /// What the road brought is not in the log; trust the log only, up to the present head.
    NotInLog,
}

impl From<BrokerError> for Interruption {
    fn from(error: BrokerError) -> Self {
        Self::Road(error)
    }
}

impl PartitionLoop {
    pub(super) async fn run(self) {
        let road =
            Road::new(self.parts.broker.clone(), self.source.clone(), self.parts.settings.prefetch);
        let mut state = State {
            next: Offset(1),
            road,
            following: None,
            log_was_ahead: false,
            suspicion: Suspicion::default(),
            failures: self.parts.settings.failure_retry.start(),
        };
        let mut read_checkpoint = true;
        let Some(mut unreleased) = self.take_partition().await else { return };
        while !self.stop.is_cancelled() {
            if read_checkpoint {
                self.parts.handler.partition_starts(self.source.partition);
                let Some(next) = self.next_after_checkpoint().await else { return };
                state.next = next;
                read_checkpoint = false;
                if unreleased {
                    let Some(suspicion) = self.suspect(next).await else { return };
                    state.suspicion = suspicion;
                    unreleased = false;
                }
            }
            match self.follow(&mut state).await {
                Interruption::Stopped => break,
                Interruption::Moved => {
                    tracing::debug!(source = %self.source, "the checkpoint was moved by another process");
                    metrics::counter!("adjutant_checkpoint_fenced_total", "group" => self.source.group.to_string()).increment(1);
                    // What it holds unacknowledged would fill its window for ever.
                    state.road.close(Duration::ZERO);
                    read_checkpoint = true;
                }
                Interruption::Road(error) => {
                    tracing::info!(source = %self.source, %error, "the road is interrupted");
                    state.road.close(Duration::from_millis(500));
                }
                Interruption::NotInLog => {
                    tracing::error!(source = %self.source, next = %state.next, "a message is not in the log; it is not applied");
                    let reason = "its entries are not in the log";
                    self.record_foreign(Some(self.parts.store.identity().log_id), reason).await;
                    state.road.close(Duration::from_secs(1));
                    read_checkpoint = true;
                }
            }
        }
        let (group, partition) = (&self.source.group, self.source.partition);
        let released = self.parts.store.release_partition(group, partition, self.parts.member);
        if let Err(error) = released.await {
            tracing::warn!(source = %self.source, %error, "the partition could not be released; its next owner is careful");
        }
        if let Err(error) = state.road.acknowledge().await {
            tracing::debug!(source = %self.source, %error, "the last acknowledgement was lost");
        }
    }

    /// Applies what comes until something interrupts it.
    async fn follow(&self, state: &mut State) -> Interruption {
        let mut look_at_head = Instant::now() + self.parts.settings.quiet;
        loop {
            let step = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Interruption::Stopped,
                // Before the road: what it brings may be of no use for as long as it likes.
                () = sleep_until(look_at_head), if !planted!(RoadTrusted) => {
                    look_at_head = Instant::now() + self.parts.settings.quiet;
                    self.catch_up(state).await
                }
                () = next_head(&mut state.following) => {
                    let (before, head) = (state.next, self.heads.latest(self.log, self.source.partition));
                    let applied = self.apply_log(state, head).await;
                    state.log_was_ahead |= state.next > before;
                    applied
                }
                event = state.road.next() => match event {
                    Ok(Event::Delivery(delivery)) => {
                        let before = state.next;
                        let applied = self.apply_deliveries(state, delivery).await;
                        if state.next > before {
                            look_at_head = Instant::now() + self.parts.settings.quiet;
                        }
                        applied
                    }
                    Ok(Event::AcksDue) => state.road.acknowledge().await.map_err(Interruption::from),
                    Ok(Event::Opened) => Ok(()),
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(interruption) = step {
                return interruption;
            }
        }
    }

    /// Nothing of use was delivered for a while. Is the log's head of a second ago ahead, then the
    /// road lost something, or another consumer is the active one: the log is read, and followed
    /// until the road brings something again.
    async fn catch_up(&self, state: &mut State) -> Result<(), Interruption> {
        let head = self.heads.a_second_ago(self.log, self.source.partition);
        self.show_lag(state);
        let useful = std::mem::take(&mut state.log_was_ahead);
        if !state.road.is_open() || state.next <= head {
            state.following.get_or_insert_with(|| self.heads.follow());
        } else if !useful {
            state.following = None;
        }
        if state.next <= head {
            self.apply_log(state, head).await?;
        }
        Ok(())
    }

    fn show_lag(&self, state: &State) {
        let latest = self.heads.latest(self.log, self.source.partition);
        let lag = (latest.0 + 1 - state.next.0).max(0);
        metrics::gauge!(
            "adjutant_group_lag_entries", "group" => self.source.group.to_string(),
            "partition" => self.source.partition.to_string()
        )
        .set(lag as f64);
    }

    /// Applies the log from the next offset up to `to`.
    async fn apply_log(&self, state: &mut State, to: Offset) -> Result<(), Interruption> {
        while state.next <= to {
            // A long way to go must not hold up a process that is told to stop.
            if self.stop.is_cancelled() {
                return Err(Interruption::Stopped);
            }
            let left = usize::try_from(to.0 - state.next.0 + 1).unwrap_or(usize::MAX);
            let limit = left.min(self.parts.settings.max_entries);
            let entries = self.read_log(state.next, limit).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let hole =
                entries.iter().zip(0..).find(|(entry, i)| entry.offset() != state.next.plus(*i));
            if let Some((entry, _)) = hole {
                // Law 4 says that this cannot be; going on would skip an entry for ever.
                tracing::error!(source = %self.source, next = %state.next, found = %entry.offset(), "the log has a hole");
                metrics::counter!("adjutant_log_holes_total").increment(1);
                self.wait(Duration::from_secs(5)).await?;
                return Ok(());
            }
            self.finish(state, entries, EntrySource::Log).await?;
        }
        Ok(())
    }

    async fn read_log(&self, from: Offset, limit: usize) -> Result<Vec<Entry>, Interruption> {
        let mut delays = RetryPolicy::forever().start();
        loop {
            match self.parts.store.read_log(self.log, self.source.partition, from, limit).await {
                Ok(entries) => return Ok(entries),
                Err(error) => {
                    tracing::warn!(source = %self.source, %error, "the log cannot be read; trying again");
                    self.wait(delays.next_delay().unwrap_or(self.parts.settings.quiet)).await?;
                }
            }
        }
    }

    /// Takes this delivery and those that wait behind it as one run.
    async fn apply_deliveries(
        &self,
        state: &mut State,
        first: Delivery,
    ) -> Result<(), Interruption> {
        let ours = self.parts.store.identity().log_id;
        let mut run = Vec::new();
        let mut last_tag = None;
        let mut next = Some(first);
        let mut interrupted = None;
        while let Some(delivery) = next.take() {
            let expected = state.next.plus(run.len());
            match look_at(&delivery, self.log, ours, expected) {
                Arrival::Duplicate => {
                    state.following = None;
                    self.count_duplicate();
                }
                Arrival::Foreign { log_id, reason } => {
                    self.warn_foreign(log_id, &reason);
                    self.record_foreign(log_id, &reason).await;
                }
                Arrival::Entries(entries) => {
                    state.following = None;
                    let first = entries.first().map_or(expected, Entry::offset);
                    if first > expected && !planted!(HoleSkipped) {
                        // Finish what is in hand, then read the hole from the log.
                        self.finish_and_ack(state, std::mem::take(&mut run), last_tag.take())
                            .await?;
                        self.apply_log(state, Offset(first.0 - 1)).await?;
                        if state.next != first {
                            // The hole is not in the log (yet): take the delivery up again later.
                            return Err(Interruption::Road(BrokerError::Unavailable(format!(
                                "offset {first} arrived, but the log ends before it"
                            ))));
                        }
                    }
                    run.extend(entries);
                }
            }
            last_tag = Some(delivery.tag);
            if run.len() < self.parts.settings.max_entries {
                match state.road.take_ready() {
                    Some(Ok(delivery)) => next = Some(delivery),
                    Some(Err(error)) => interrupted = Some(error),
                    None => {}
                }
            }
        }
        self.finish_and_ack(state, run, last_tag).await?;
        interrupted.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn finish_and_ack(
        &self,
        state: &mut State,
        run: Vec<Entry>,
        tag: Option<u64>,
    ) -> Result<(), Interruption> {
        if !run.is_empty() {
            self.finish(state, run, EntrySource::Broker).await?;
        }
        if let Some(tag) = tag {
            state.road.finished(tag).await?;
        }
        Ok(())
    }

    /// Has entries finished by the handler, suspect ones each alone; returns when the checkpoint
    /// stands behind them.
    async fn finish(
        &self,
        state: &mut State,
        mut entries: Vec<Entry>,
        source: EntrySource,
    ) -> Result<(), Interruption> {
        while let Some(first) = entries.first() {
            let suspect = state.suspicion.covers(first.offset());
            // No run is longer than the window that the next owner would suspect.
            let most = if suspect { 1 } else { self.parts.settings.max_entries.max(1) };
            let rest = entries.split_off(most.min(entries.len()));
            let mut left = if suspect {
                self.finish_suspect(state, entries, source).await?
            } else {
                let run = self.run_of(state, entries);
                self.finish_run(state, run, source, None).await?
            };
            if state.suspicion.is_over(state.next) {
                self.end_suspects().await;
            }
            left.extend(rest);
            entries = left;
        }
        Ok(())
    }

    pub(super) fn run_of(&self, state: &State, entries: Vec<Entry>) -> HandlerRun {
        HandlerRun::new(self.source.partition, Offset(state.next.0 - 1), entries)
    }

    /// Answers what is left of the run, if the group pauses; it has waited by then.
    pub(super) async fn finish_run(
        &self,
        state: &mut State,
        run: HandlerRun,
        source: EntrySource,
        alone: Option<MutexGuard<'_, ()>>,
    ) -> Result<Vec<Entry>, Interruption> {
        let count = run.entries.len();
        let started = Instant::now();
        let end = self.combiner.finish(run).await;
        // Another suspect may run while this loop waits after a failure.
        drop(alone);
        let (left, pause) = match end {
            None => return Err(Interruption::Stopped),
            Some(RunEnd::Done) => (Vec::new(), None),
            Some(RunEnd::Suspended { rest, pause }) => (rest, Some(pause)),
            Some(RunEnd::Fenced) => return Err(Interruption::Moved),
            Some(RunEnd::NotInLog) => return Err(Interruption::NotInLog),
            Some(RunEnd::Failed(error)) => {
                let delay = state.failures.next_delay().unwrap_or(self.parts.settings.quiet);
                self.report_failure(&error, delay);
                self.wait(delay).await?;
                // Part of the run may have been finished before the entry that failed.
                return Err(Interruption::Moved);
            }
        };
        let finished = count - left.len().min(count);
        state.failures = self.parts.settings.failure_retry.start();
        state.next = state.next.plus(finished);
        self.count(source, finished, started);
        if let Some(pause) = pause {
            self.show_lag(state);
            // What is in hand stays so, unacknowledged: to open the road again and again would use
            // up the deliveries of its messages.
            self.wait(pause).await?;
        }
        Ok(left)
    }

    fn count(&self, source: EntrySource, count: usize, started: Instant) {
        if count == 0 {
            return;
        }
        self.counts.add(source, count as u64);
        let group = self.source.group.to_string();
        let source = match source {
            EntrySource::Broker => "broker",
            EntrySource::Log => "log",
        };
        metrics::counter!("adjutant_group_entries_total", "group" => group.clone(), "source" => source)
            .increment(count as u64);
        metrics::histogram!("adjutant_group_run_seconds", "group" => group.clone())
            .record(started.elapsed().as_secs_f64());
        metrics::histogram!("adjutant_group_run_entries", "group" => group).record(count as f64);
    }

    fn report_failure(&self, error: &StoreError, delay: Duration) {
        tracing::error!(source = %self.source, %error, ?delay, "the group cannot go on; trying again");
        metrics::counter!("adjutant_group_failures_total", "group" => self.source.group.to_string())
            .increment(1);
    }

    async fn next_after_checkpoint(&self) -> Option<Offset> {
        let mut delays = RetryPolicy::forever().start();
        loop {
            match self.parts.store.checkpoints(&self.source.group).await {
                Ok(checkpoints) => {
                    let reached = checkpoints.get(self.source.partition.index()).copied();
                    return Some(reached.unwrap_or_default().next());
                }
                Err(error) => {
                    tracing::warn!(source = %self.source, %error, "the checkpoint cannot be read; trying again");
                    self.wait(delays.next_delay().unwrap_or(self.parts.settings.quiet))
                        .await
                        .ok()?;
                }
            }
        }
    }

    pub(super) async fn wait(&self, delay: Duration) -> Result<(), Interruption> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Interruption::Stopped),
            () = sleep(delay) => Ok(()),
        }
    }

    fn count_duplicate(&self) {
        metrics::counter!("adjutant_duplicate_messages_total", "group" => self.source.group.to_string())
            .increment(1);
    }

    fn warn_foreign(&self, log_id: Option<LogId>, reason: &str) {
        let log_id = log_id.map(|id| id.to_string()).unwrap_or_default();
        tracing::warn!(source = %self.source, log_id, "a message is not applied: {reason}");
        metrics::counter!("adjutant_foreign_messages_total", "group" => self.source.group.to_string())
            .increment(1);
    }

    async fn record_foreign(&self, log_id: Option<LogId>, reason: &str) {
        let message = ForeignMessage {
            group: self.source.group.clone(),
            partition: self.source.partition,
            log_id,
            reason: reason.to_owned(),
            count: 1,
        };
        if let Err(error) = self.parts.store.record_foreign(&[message]).await {
            tracing::warn!(%error, "a foreign message could not be recorded; it is counted in the metrics");
        }
    }
}

pub(super) struct State {
    pub(super) next: Offset,
    road: Road,
    /// While the road brings nothing: the newest heads.
    following: Option<Following>,
    /// Whether following brought entries since the last look.
    log_was_ahead: bool,
    /// What the last owner was at, if it vanished.
    pub(super) suspicion: Suspicion,
    /// The waits after runs that failed one after another.
    failures: Retries,
}

async fn next_head(following: &mut Option<Following>) {
    match following {
        Some(following) => following.next().await,
        None => std::future::pending().await,
    }
}
