//! The loop that takes what waits, and the step that commits it.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Entry, Refusal,
    batch::{Batch, Holder, Settled},
    room::Room,
};
use crate::{
    execute::retry::{Retries, RetryPolicy},
    ingress::CommitSettings,
    observe::names,
    signals::Signals,
    store::{Accepted, NewCommand, Store, StoreError},
};

/// How often other tasks that are ready get a turn before a batch is closed.
const YIELDS: usize = 4;

/// Commits batches, several at a time.
pub(super) struct Committer {
    store: Arc<dyn Store>,
    signals: Signals,
    room: Room,
    batch_commands: usize,
    batch_bytes: usize,
    in_flight: u32,
    give_up_after: Duration,
    retry: RetryPolicy,
    metrics: CommitMetrics,
}

impl Committer {
    pub(super) fn new(
        store: Arc<dyn Store>,
        signals: Signals,
        room: Room,
        settings: &CommitSettings,
    ) -> Self {
        let give_up_after = settings.give_up_after();
        Self {
            store,
            signals,
            room,
            batch_commands: settings.batch_commands.max(1),
            batch_bytes: settings.batch_bytes,
            in_flight: u32::try_from(settings.in_flight.max(1)).unwrap_or(u32::MAX),
            give_up_after,
            retry: RetryPolicy::within(give_up_after),
            metrics: CommitMetrics::default(),
        }
    }

    /// Runs until it is stopped, or every handle is gone, and everything is answered.
    pub(super) async fn run(
        self,
        mut arrivals: mpsc::UnboundedReceiver<Entry>,
        stop: CancellationToken,
    ) {
        let this = Arc::new(self);
        let slots = Arc::new(Semaphore::new(this.in_flight as usize));
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let first = tokio::select! {
                    biased;
                    first = arrivals.recv() => first,
                    () = stop.cancelled(), if !arrivals.is_closed() => {
                        // What was sent before is still received.
                        arrivals.close();
                        continue;
                    }
                };
                let Some(first) = first else { break };
                waiting.push_back(first);
            }
            let Some(slot) = this.free_slot(&slots, &mut waiting).await else { continue };
            // Requests that are here already get their turn first: no waiting, only fairness.
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            // What arrived while the slot was not free shares this commit.
            while let Ok(entry) = arrivals.try_recv() {
                waiting.push_back(entry);
            }
            let batch = Batch::of(this.take(&mut waiting));
            let committer = this.clone();
            tokio::spawn(async move {
                committer.commit(batch).await;
                drop(slot);
            });
        }
        // Whoever holds all slots knows that no commit runs any more.
        let _ = slots.acquire_many(this.in_flight).await;
    }

    /// Waits for a slot, but not longer than the oldest entry may wait; then it refuses that one.
    async fn free_slot(
        &self,
        slots: &Arc<Semaphore>,
        waiting: &mut VecDeque<Entry>,
    ) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let deadline = waiting.front()?.arrived + self.give_up_after;
        tokio::select! {
            biased;
            slot = slots.clone().acquire_owned() => slot.ok(),
            () = tokio::time::sleep_until(deadline) => {
                if let Some(entry) = waiting.pop_front() {
                    let refusal = Err(Refusal::Unavailable("the store takes too long".into()));
                    let answers = vec![refusal; entry.commands.len()];
                    let _ = entry.answer.send(answers);
                }
                None
            }
        }
    }

    fn take(&self, waiting: &mut VecDeque<Entry>) -> Vec<Entry> {
        let (mut commands, mut bytes, mut taken) = (0, 0, Vec::new());
        while commands < self.batch_commands && bytes < self.batch_bytes {
            let Some(entry) = waiting.pop_front() else { break };
            commands += entry.commands.len();
            bytes += entry.bytes;
            taken.push(entry);
        }
        taken
    }

    async fn commit(&self, mut batch: Batch) {
        let started = tokio::time::Instant::now();
        let commands = std::mem::take(&mut batch.commands);
        self.metrics.batch_size.record(commands.len() as f64);
        let settled = self.settle(commands).await;
        let accepted = |s: &&Settled| matches!(s, Ok(holder) if !holder.acceptance.replay);
        let new = settled.iter().filter(accepted).count();
        if new > 0 {
            self.signals.outbox_written();
        }
        self.metrics.duration.record(started.elapsed().as_secs_f64());
        batch.answer(&settled);
        self.room.report();
    }

    /// Accepts a batch. One that cannot be stored is split until the bad command stands alone, the
    /// first half first, so that the order of the others is kept.
    fn settle<'a>(
        &'a self,
        commands: Vec<NewCommand>,
    ) -> Pin<Box<dyn Future<Output = Vec<Settled>> + Send + 'a>> {
        Box::pin(async move {
            let mut commands = commands;
            match self.accept_with_retries(&commands).await {
                Ok(settled) => settled,
                Err(failure) if failure.may_be_one_command && commands.len() > 1 => {
                    let rest = commands.split_off(commands.len() / 2);
                    let mut settled = self.settle(commands).await;
                    settled.extend(self.settle(rest).await);
                    settled
                }
                Err(failure) => vec![Err(failure.refusal); commands.len()],
            }
        })
    }

    /// Accepts a batch, again if the store asks for it. Ids make it safe to do so even when it is
    /// unknown whether the last try took place.
    async fn accept_with_retries(&self, commands: &[NewCommand]) -> Result<Vec<Settled>, Failure> {
        let mut retries: Option<Retries> = None;
        let mut reply_was_lost = false;
        loop {
            let error = match self.store.accept(commands.to_vec()).await {
                Ok(accepted) => return Ok(settled(commands, accepted, reply_was_lost)),
                Err(error) => error,
            };
            reply_was_lost |= matches!(error, StoreError::Unknown(_));
            if !error.is_retryable() && !matches!(error, StoreError::Unknown(_)) {
                return Err(Failure::of(error, reply_was_lost));
            }
            self.metrics.retries.increment(1);
            tracing::warn!(%error, commands = commands.len(), "a batch was not accepted");
            if !retries.get_or_insert_with(|| self.retry.start()).wait().await {
                return Err(Failure::of(error, reply_was_lost));
            }
        }
    }
}

fn settled(commands: &[NewCommand], accepted: Vec<Accepted>, reply_was_lost: bool) -> Vec<Settled> {
    let pairs = commands.iter().zip(accepted);
    pairs
        .map(|(command, accepted)| {
            let holder = Holder::of(command, accepted, reply_was_lost);
            if !holder.acceptance.replay {
                tracing::debug!(
                    command = %command.id, stream = %command.stream,
                    trace_id = command.metadata.trace_id(), "command accepted"
                );
            }
            Ok(holder)
        })
        .collect()
}

/// Why a batch was not accepted.
struct Failure {
    refusal: Refusal,
    /// One command may be to blame, so the others deserve another try.
    may_be_one_command: bool,
}

impl Failure {
    fn of(error: StoreError, reply_was_lost: bool) -> Self {
        let why = error.to_string();
        let may_be_one_command =
            matches!(error, StoreError::Unstorable(_) | StoreError::Internal(_));
        let refusal = match error {
            // What can never be stored was not stored by the try whose reply was lost either.
            StoreError::Unstorable(why) => Refusal::Unstorable(why),
            _ if reply_was_lost && !planted!(UnknownMeansNo) => Refusal::Unknown(why),
            StoreError::Unavailable(_) | StoreError::Transient(_) => Refusal::Unavailable(why),
            _ => {
                tracing::error!(error = %why, "a batch was not accepted");
                Refusal::Internal(why)
            }
        };
        Self { refusal, may_be_one_command }
    }
}

struct CommitMetrics {
    batch_size: metrics::Histogram,
    duration: metrics::Histogram,
    retries: metrics::Counter,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self {
            batch_size: metrics::histogram!(names::INTAKE_BATCH_COMMANDS),
            duration: metrics::histogram!(names::INTAKE_COMMIT_SECONDS),
            retries: metrics::counter!(names::INTAKE_COMMIT_RETRIES_TOTAL),
        }
    }
}
