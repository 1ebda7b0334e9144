//! Runs batches to their end, whatever the store answers.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    AggregateCache, BreakerState, ExecutorSettings, RetryPolicy, StoreClock,
    arrivals::Arrivals,
    batch::{Decisions, Found, Known, Streams, decide_all, replay_all, streams_of},
    breakers::Breakers,
    decider::{Decider, Undecided},
    holds::{self, Holds},
};
use crate::{
    domain::Registry,
    message::{CommandId, Failure, GroupName, Offset, Partition, StreamId},
    observe::names,
    signals::{Applied, Signals},
    store::{
        CommandCommit, CommandEntry, CommittedCommands, Entering, Entry, Fence, LoadedStream,
        NewOutcome, Store, StoreError,
    },
};

/// Entries of one partition, in order.
#[derive(Clone, Debug)]
pub struct Run {
    /// The partition.
    pub partition: Partition,
    /// Where the group's checkpoint is before the first entry; `None`: there is none to move (the
    /// immediate lane).
    pub checkpoint: Option<Offset>,
    /// The entries.
    pub entries: Vec<CommandEntry>,
    /// Processes have vanished this often while they executed its only entry: it becomes `dead`.
    pub crashed: Option<i32>,
}

impl Run {
    /// What is known of its commands before they are tried.
    fn found(&self) -> Found {
        let mut found = Found::default();
        if let Some(crashes) = self.crashed {
            let message = format!("the process vanished {crashes} times while it executed this");
            for entry in &self.entries {
                let failure = Failure::new("crashed", message.as_str());
                found.condemned.insert(entry.command.id, failure);
            }
        }
        found
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum RunEnd {
    /// All its entries are finished, and the checkpoint stands behind them.
    Done,
    /// Another process has moved the checkpoint; nothing was written. Read it again.
    Fenced,
    /// An entry is not in the log at that place; nothing was written. Read the log instead.
    NotInLog,
    /// It could not be done, and trying the same again at once would not help.
    Failed(StoreError),
    /// The group pauses in this process: its breaker is open. What is not among `rest` is finished.
    Suspended {
        /// The entries that are left, as they were.
        rest: Vec<Entry>,
        /// When to come again.
        pause: Duration,
    },
}

/// How a try of a batch ended that the store did not refuse.
enum Step {
    Committed(Box<Done>),
    /// Strict ones that the immediate lane cannot execute in their order; nothing was written.
    FallBack(Vec<CommandId>),
    /// This command's handler did not come back in time; nothing was written.
    TimedOut(CommandId),
    /// Under the lock it showed that the snapshots of these cannot be read; nothing was written.
    WithoutSnapshots(Vec<StreamId>),
}

/// What a transaction did.
#[derive(Default)]
pub(super) struct Done {
    decisions: Decisions,
    pub(super) committed: CommittedCommands,
    /// Of the immediate lane: the outcomes that it wrote.
    pub(super) outcomes: Vec<NewOutcome>,
    /// What earlier tries found out.
    pub(super) found: Found,
    /// A try before it may have taken place.
    pub(super) reply_was_lost: bool,
}

/// How often a transaction that the server rolls back is tried before its batch is split.
const MOST_ROLLBACKS: u32 = 8;

/// Executes commands. Shared by the lanes of a process.
pub struct Executor {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    signals: Signals,
    cache: AggregateCache,
    clock: StoreClock,
    settings: Arc<ExecutorSettings>,
    decider: Decider,
    breakers: Breakers,
    group: GroupName,
    stop: CancellationToken,
}

impl Executor {
    /// An executor of these types on this store. It gives up waiting for an unreachable store when
    /// `stop` is cancelled.
    pub fn new(
        registry: Arc<Registry>,
        store: Arc<dyn Store>,
        signals: Signals,
        clock: StoreClock,
        settings: ExecutorSettings,
        stop: CancellationToken,
    ) -> Self {
        Self {
            registry,
            store,
            signals,
            cache: AggregateCache::with_limit(settings.cache_bytes),
            clock,
            decider: Decider::new(settings.most_hanging),
            breakers: Breakers::new(settings.breaker.clone()),
            settings: Arc::new(settings),
            group: GroupName::commands(),
            stop,
        }
    }

    /// The breakers of command types that failed lately.
    pub fn breakers(&self) -> Vec<(String, BreakerState)> {
        self.breakers.states()
    }

    /// The aggregates it holds.
    pub fn cache(&self) -> &AggregateCache {
        &self.cache
    }

    /// Executes runs of different partitions, in one transaction if nothing goes wrong. A failing
    /// batch is split, by partition and then by halves, until the bad entry stands alone.
    pub async fn execute(&self, runs: Vec<Run>) -> Vec<RunEnd> {
        let runs: Arc<[Run]> = runs.into();
        let mut found = Found::default();
        for run in &*runs {
            found.condemned.extend(run.found().condemned);
        }
        match self.execute_together(&runs, found, None).await {
            Ok(_) => runs.iter().map(|_| RunEnd::Done).collect(),
            Err(error) if runs.len() == 1 => vec![self.execute_split(&runs[0], error).await],
            Err(error) => {
                tracing::debug!(%error, runs = runs.len(), "batch failed; trying each partition alone");
                let mut ends = Vec::with_capacity(runs.len());
                for run in &*runs {
                    ends.push(match self.execute_alone(run.clone(), run.found()).await {
                        Ok(()) => RunEnd::Done,
                        Err(error) => self.execute_split(run, error).await,
                    });
                }
                ends
            }
        }
    }

    async fn execute_alone(&self, run: Run, found: Found) -> Result<(), StoreError> {
        self.execute_together(&[run].into(), found, None).await.map(drop)
    }

    /// A run that failed with `error` when tried whole.
    async fn execute_split(&self, run: &Run, error: StoreError) -> RunEnd {
        match error {
            StoreError::Fenced(Fence::Checkpoint) => RunEnd::Fenced,
            StoreError::Fenced(Fence::NotInLog) => RunEnd::NotInLog,
            StoreError::Unstorable(_) => self.find_unstorable(run, error).await,
            error => RunEnd::Failed(error),
        }
    }

    /// Halves until the command that cannot be stored stands alone; it becomes `dead`.
    async fn find_unstorable(&self, run: &Run, error: StoreError) -> RunEnd {
        let mut todo = vec![(run.clone(), Some(error))];
        while let Some((part, known_error)) = todo.pop() {
            let error = match known_error {
                Some(error) => error,
                None => match self.execute_alone(part.clone(), Found::default()).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            match (error, part.entries.as_slice()) {
                (StoreError::Unstorable(reason), [entry]) => {
                    let mut found = Found::default();
                    found.condemned.insert(entry.command.id, Failure::new("unstorable", reason));
                    if let Err(error) = self.execute_alone(part, found).await {
                        return RunEnd::Failed(error);
                    }
                }
                (StoreError::Unstorable(_), entries) if entries.len() > 1 => {
                    let (head, tail) = entries.split_at(entries.len() / 2);
                    let behind_head = head.last().map(|entry| entry.offset);
                    let checkpoint = part.checkpoint.and(behind_head);
                    todo.push((Run { checkpoint, entries: tail.to_vec(), ..part }, None));
                    let head = Run { entries: head.to_vec(), ..part };
                    todo.push((head, None));
                }
                (StoreError::Fenced(Fence::Checkpoint), _) => return RunEnd::Fenced,
                (StoreError::Fenced(Fence::NotInLog), _) => return RunEnd::NotInLog,
                (error, _) => return RunEnd::Failed(error),
            }
        }
        RunEnd::Done
    }

    /// One transaction for all runs, tried until it took place or cannot. `arrivals` says what of
    /// them enters by the immediate lane.
    pub(super) async fn execute_together(
        &self,
        runs: &Arc<[Run]>,
        found: Found,
        arrivals: Option<&Arrivals>,
    ) -> Result<Done, StoreError> {
        let mut reply_was_lost = false;
        let done = self.try_until_done(runs, found, arrivals, &mut reply_was_lost).await;
        match done {
            // Whoever waits for a command must not hear that nothing was accepted.
            Err(error) if reply_was_lost && arrivals.is_some() => Err(unknown(error)),
            done => done,
        }
    }

    async fn try_until_done(
        &self,
        runs: &Arc<[Run]>,
        found: Found,
        arrivals: Option<&Arrivals>,
        reply_was_lost: &mut bool,
    ) -> Result<Done, StoreError> {
        let started = Instant::now();
        let patience = arrivals.map_or(RetryPolicy::forever(), Arrivals::patience);
        let mut delays = None;
        let mut found = Arc::new(found);
        let admissions = Arc::new(self.breakers.ask(runs));
        let mut exclusively = false;
        let (mut rolled_back, mut held_back) = (0, 0);
        loop {
            let known = Known {
                registry: self.registry.clone(),
                group: self.group.clone(),
                now: self.clock.now(),
                settings: self.settings.clone(),
                found: found.clone(),
                holds: Holds::default(),
                admissions: admissions.clone(),
            };
            let entering = arrivals.map(|arrivals| arrivals.entering(&self.registry, &found));
            let mut tried = self.try_once(runs, known, entering, exclusively).await;
            if let Some(arrivals) = arrivals
                && let Err(StoreError::Fenced(fence)) = &tried
                && arrivals.is_about(fence)
            {
                let found = Arc::make_mut(&mut found);
                match arrivals.look_again(&*self.store, &self.registry, fence, found).await {
                    Ok(()) => continue,
                    Err(error) => tried = Err(error),
                }
            }
            match tried {
                Ok(Step::Committed(mut done)) => {
                    failpoint!(ExecutorCommitted);
                    self.after_commit(runs, &mut done, started.elapsed());
                    done.found = Arc::unwrap_or_clone(found);
                    done.reply_was_lost = *reply_was_lost;
                    return Ok(*done);
                }
                Ok(Step::FallBack(commands)) => {
                    Arc::make_mut(&mut found).fall_back.extend(commands);
                }
                // It counts as a failed attempt, whatever it may still decide; the others' turn.
                Ok(Step::TimedOut(command)) => {
                    Arc::make_mut(&mut found).timed_out.insert(command);
                }
                Ok(Step::WithoutSnapshots(streams)) => {
                    Arc::make_mut(&mut found).without_snapshot.extend(streams);
                }
                // What held a command was decided about meanwhile: look again.
                Err(StoreError::Fenced(Fence::Holds)) if held_back < MOST_ROLLBACKS => {
                    held_back += 1;
                    metrics::counter!("adjutant_executor_conflicts_total").increment(1);
                }
                Err(StoreError::Unknown(why))
                    if planted!(LaneUnknownMeansNo) && arrivals.is_some() =>
                {
                    return Err(StoreError::Unavailable(why));
                }
                Err(StoreError::Fenced(Fence::Outcome)) => {
                    metrics::counter!("adjutant_commands_duplicate_total").increment(1);
                    let ended = self.look_up_ended(runs).await?;
                    Arc::make_mut(&mut found).ended.extend(ended);
                }
                Err(StoreError::Fenced(Fence::StreamVersion)) => {
                    metrics::counter!("adjutant_executor_conflicts_total").increment(1);
                    self.forget(runs);
                    exclusively = true;
                }
                Err(
                    error @ (StoreError::Unavailable(_)
                    | StoreError::Transient(_)
                    | StoreError::Unknown(_)),
                ) => {
                    // After a lost reply to COMMIT the next try carries the same fences: if the
                    // first one took place after all, the checkpoint or an outcome says so.
                    self.forget(runs);
                    exclusively = false;
                    // The server answers, but rolls back again and again: not all need suffer.
                    *reply_was_lost |= matches!(error, StoreError::Unknown(_));
                    rolled_back += u32::from(matches!(error, StoreError::Transient(_)));
                    if rolled_back > MOST_ROLLBACKS {
                        return Err(error);
                    }
                    metrics::counter!("adjutant_executor_retries_total").increment(1);
                    let delays = delays.get_or_insert_with(|| patience.start());
                    let Some(delay) = delays.next_delay() else {
                        return Err(error);
                    };
                    tracing::warn!(%error, ?delay, "the batch is tried again");
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Err(error),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
                Err(error) => {
                    self.forget(runs);
                    return Err(error);
                }
            }
        }
    }

    async fn try_once(
        &self,
        runs: &Arc<[Run]>,
        mut known: Known,
        entering: Option<Entering>,
        exclusively: bool,
    ) -> Result<Step, StoreError> {
        let immediate = entering.is_some();
        let mut entering = entering.unwrap_or_default();
        if immediate && entering.is_empty() {
            return Ok(Step::Committed(Box::default()));
        }
        let asked = holds::streams_to_ask(&self.registry, runs);
        if !asked.is_empty() {
            known.holds = Holds::of(self.store.holds(&asked).await?);
        }
        let needed = streams_of(&self.registry, runs, &known.found);
        if exclusively {
            return self.decide_under_lock(known, runs, &needed, entering, immediate).await;
        }
        let mut streams = Streams::new();
        let mut missing = Vec::new();
        for (stream, state_version) in needed {
            match self.cache.get(&stream) {
                Some(found) => drop(streams.insert(stream, Ok(found))),
                None => missing.push((stream, state_version)),
            }
        }
        let loaded = self.store.load_streams(&missing).await?;
        let again = replay_all(&self.registry, &loaded, &mut streams);
        if !again.is_empty() {
            let loaded = self.store.load_streams(&again).await?;
            replay_all(&self.registry, &loaded, &mut streams);
        }
        let runs = runs.clone();
        let decided =
            self.decider.run(move |progress| decide_all(&known, &runs, streams, progress)).await;
        let mut decisions = match decided {
            Ok(decided) => decided?,
            Err(Undecided::TimedOut(command)) => return Ok(Step::TimedOut(command)),
            Err(undecided) => return Err(StoreError::Internal(undecided.to_string())),
        };
        if !decisions.fall_back.is_empty() {
            return Ok(Step::FallBack(decisions.fall_back));
        }
        failpoint!(ExecutorDecided);
        let commit = std::mem::take(&mut decisions.commit);
        let outcomes = if immediate { commit.outcomes.clone() } else { Vec::new() };
        if planted!(AcceptedNotInTransaction) && !entering.new.is_empty() {
            let new = std::mem::take(&mut entering.new);
            let accepts = Entering { new, ..Entering::default() };
            let alone = CommandCommit { entering: accepts, ..CommandCommit::default() };
            self.store.commit_commands(alone).await?;
        }
        let committed = self.store.commit_commands(CommandCommit { entering, ..commit }).await?;
        Ok(Step::Committed(Box::new(Done { decisions, committed, outcomes, ..Done::default() })))
    }

    async fn decide_under_lock(
        &self,
        known: Known,
        runs: &Arc<[Run]>,
        needed: &[(StreamId, i16)],
        entering: Entering,
        immediate: bool,
    ) -> Result<Step, StoreError> {
        let mut decided = None;
        // Why nothing is to be written.
        let mut instead = None;
        let mut outcomes = Vec::new();
        let decide = |loaded: Vec<LoadedStream>| {
            failpoint!(ExecutorUnderLock);
            let mut streams = Streams::new();
            let unread = replay_all(&self.registry, &loaded, &mut streams);
            if !unread.is_empty() {
                let streams = unread.into_iter().map(|(stream, _)| stream);
                instead = Some(Step::WithoutSnapshots(streams.collect()));
                return Err(StoreError::Internal("snapshots cannot be read".to_owned()));
            }
            let runs = runs.clone();
            let done =
                self.decider.run_here(move |progress| decide_all(&known, &runs, streams, progress));
            let mut decisions = done.map_err(|undecided| {
                if let Undecided::TimedOut(command) = undecided {
                    instead = Some(Step::TimedOut(command));
                }
                StoreError::Internal(undecided.to_string())
            })??;
            if !decisions.fall_back.is_empty() {
                let commands = std::mem::take(&mut decisions.fall_back);
                instead = Some(Step::FallBack(commands));
                return Err(StoreError::Internal("strict commands fall back".to_owned()));
            }
            let commit = std::mem::take(&mut decisions.commit);
            if immediate {
                outcomes.clone_from(&commit.outcomes);
            }
            decided = Some(decisions);
            Ok(commit)
        };
        let partitions = runs.iter().map(|run| run.partition).collect();
        let committed =
            self.store.commit_exclusively(&partitions, needed, &entering, Box::new(decide)).await;
        if let Some(step) = instead {
            return Ok(step);
        }
        let committed = committed?;
        let nothing = || StoreError::Internal("the store committed without a decision".to_owned());
        let decisions = decided.ok_or_else(nothing)?;
        Ok(Step::Committed(Box::new(Done { decisions, committed, outcomes, ..Done::default() })))
    }

    fn after_commit(&self, runs: &[Run], done: &mut Done, took: Duration) {
        let Some(now) = done.committed.recorded_at else { return };
        self.clock.observe(now);
        let decisions = std::mem::take(&mut done.decisions);
        for (stream, aggregate) in decisions.streams {
            if let Ok(aggregate) = aggregate {
                self.cache.put(stream, aggregate);
            }
        }
        self.signals.outbox_written();
        if decisions.schedules_now {
            self.signals.schedule_written();
        }
        if decisions.owes_callbacks {
            self.signals.callbacks_owed();
        }
        self.breakers.record(&decisions.tries);
        let latency = metrics::histogram!(names::LANE_SECONDS, "lane" => "queued");
        let queued = runs.iter().filter(|run| run.checkpoint.is_some());
        for entry in queued.flat_map(|run| &run.entries) {
            latency.record((now - entry.command.accepted_at).as_seconds_f64().max(0.0));
        }
        metrics::histogram!("adjutant_executor_batch_commands")
            .record(decisions.ended.len() as f64);
        metrics::histogram!("adjutant_executor_commit_seconds").record(took.as_secs_f64());
        self.signals.commands_ended(decisions.ended);
        let moved = |run: &Run| {
            let last = run.entries.last()?.offset;
            let group = self.group.clone();
            run.checkpoint.map(|_| Applied { group, partition: run.partition, offset: last })
        };
        self.signals.checkpoints_moved(runs.iter().filter_map(moved).collect());
    }

    async fn look_up_ended(&self, runs: &[Run]) -> Result<Vec<CommandId>, StoreError> {
        let ids: Vec<_> = runs
            .iter()
            .flat_map(|run| run.entries.iter().map(|entry| (run.partition, entry.command.id)))
            .collect();
        let outcomes = self.store.outcomes(&ids).await?;
        Ok(outcomes.into_iter().map(|(id, _)| id).collect())
    }

    /// Another writer may have been there: what the cache holds of these streams is doubtful.
    fn forget(&self, runs: &[Run]) {
        let streams = runs.iter().flat_map(|run| &run.entries).map(|entry| &entry.command.stream);
        self.cache.invalidate(streams);
    }
}

/// A try before this one may have taken place. What can never be stored was not stored by it.
fn unknown(error: StoreError) -> StoreError {
    match error {
        error @ (StoreError::Unknown(_) | StoreError::Unstorable(_)) => error,
        error => StoreError::Unknown(error.to_string()),
    }
}
