//! The loop that takes what waits and executes it, some transactions at a time.

use std::{panic::AssertUnwindSafe, sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::{
    answer::End,
    processor::{Shared, Waiting},
    room::{Back, Taken},
};
use crate::{
    execute::{Arrival, ArrivalEnd, Enters},
    ingress::{Acceptance, Refusal},
    message::{Attempt, CommandEnvelope, Timestamp},
    observe::names,
    store::{NewCommand, StoreError},
};

/// How often other tasks that are ready get a turn before a batch is closed.
const YIELDS: usize = 4;
/// How long what is held and could not be executed waits.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(shared: Arc<Shared>) {
    let transactions = shared.parts.settings.transactions.max(1);
    let most = (shared.parts.settings.executions / transactions).max(1);
    let slots = Arc::new(Semaphore::new(transactions));
    let stop = shared.parts.stop.clone();
    let _ = stop.run_until_cancelled(take_turns(&shared, &slots, most)).await;
    // Whoever holds all slots knows that nothing runs any more.
    let _ = slots.acquire_many(u32::try_from(transactions).unwrap_or(u32::MAX)).await;
}

async fn take_turns(shared: &Arc<Shared>, slots: &Arc<Semaphore>, most: usize) {
    loop {
        // It is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        while !shared.room().has_work() {
            shared.work.notified().await;
        }
        // Requests that are here already get their turn first: no waiting, only fairness.
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        let taken = shared.room().take(most);
        let shared = shared.clone();
        tokio::spawn(async move {
            shared.execute(taken).await;
            drop(slot);
        });
    }
}

impl Shared {
    async fn execute(self: &Arc<Self>, taken: Taken<Waiting>) {
        let (commands, streams, bytes) = taken.into_parts();
        let count = commands.len();
        self.report();
        failpoint!(ImmediateTaken);
        let arrivals = commands.iter().map(|(_, waiting)| self.arrival(waiting)).collect();
        let executing = self.parts.executor.execute_arrivals(arrivals);
        // User code is caught where it is called; a panic that comes this far must not end the lane.
        let ends = AssertUnwindSafe(executing).catch_unwind().await.unwrap_or_else(|_| {
            let broken = || StoreError::Unknown("executing panicked".to_owned());
            commands.iter().map(|_| ArrivalEnd::Refused(broken())).collect()
        });
        failpoint!(ImmediateEnded);
        let mut back = Back::new();
        for ((ticket, waiting), end) in commands.into_iter().zip(ends) {
            if let Some(waiting) = self.tell(waiting, end).await {
                back.push((waiting.command.stream.clone(), ticket, waiting));
            }
        }
        if !back.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
        self.room().done(count, bytes, &streams, back);
        self.work.notify_one();
        self.report();
    }

    fn arrival(&self, waiting: &Waiting) -> Arrival {
        let command = &waiting.command;
        let accepted_at = waiting.held.unwrap_or_else(|| self.parts.clock.now());
        Arrival {
            partition: self.partitions.of(&command.stream),
            command: envelope(command, accepted_at),
            enters: match waiting.held {
                Some(_) => Enters::Held,
                None => Enters::New(Box::new(command.clone())),
            },
        }
    }

    /// Tells the caller how it ended; gives it back if this process must go on trying.
    async fn tell(&self, mut waiting: Box<Waiting>, end: ArrivalEnd) -> Option<Box<Waiting>> {
        let held = waiting.held;
        let acceptance = |accepted_at: Option<Timestamp>| Acceptance {
            accepted_at: held.or(accepted_at).unwrap_or_else(|| self.parts.clock.now()),
            replay: false,
        };
        let end = match end {
            ArrivalEnd::Ended { outcome, accepted_at } => {
                self.count(&waiting, outcome.status.as_str());
                End::Ended(acceptance(accepted_at), outcome)
            }
            ArrivalEnd::SetAside { accepted_at } => {
                self.count(&waiting, "set_aside");
                End::Elsewhere(acceptance(accepted_at))
            }
            ArrivalEnd::Known { .. } if held.is_some() => End::Elsewhere(acceptance(None)),
            ArrivalEnd::Known { reply_was_lost } => {
                self.look_up(&waiting.command, reply_was_lost).await
            }
            ArrivalEnd::MustQueue => {
                self.count(&waiting, "queued");
                failpoint!(ImmediateMustQueue);
                let accepted = self.parts.commit.accept(waiting.command.clone()).await;
                failpoint!(ImmediateTookPlace);
                match accepted {
                    Ok(acceptance) => End::Elsewhere(acceptance),
                    Err(refusal) => End::Refused(refusal),
                }
            }
            ArrivalEnd::Refused(error) if held.is_some() => {
                tracing::error!(%error, command = %waiting.command.id, "it cannot be executed now; trying again");
                return Some(waiting);
            }
            ArrivalEnd::Refused(error) => End::Refused(refusal_of(error)),
        };
        if let Some(answer) = waiting.answer.take() {
            failpoint!(ImmediateAnswering);
            // Nobody there any more: what was done is done.
            let _ = answer.send(end);
        }
        None
    }

    /// The id was accepted before: the same command, or another one?
    async fn look_up(&self, command: &NewCommand, reply_was_lost: bool) -> End {
        match self.parts.store.command(command.id).await {
            Ok(Some(record)) if record.content_hash != command.content_hash => {
                End::Refused(Refusal::Conflict)
            }
            Ok(Some(record)) => {
                let acceptance =
                    Acceptance { accepted_at: record.accepted_at, replay: !reply_was_lost };
                match record.outcome {
                    Some(outcome) => End::Ended(acceptance, Box::new(outcome)),
                    None => End::Elsewhere(acceptance),
                }
            }
            Ok(None) => End::Refused(Refusal::Unavailable(
                "the command was accepted before, and is gone".into(),
            )),
            Err(error) if reply_was_lost => End::Refused(Refusal::Unknown(error.to_string())),
            Err(error) => End::Refused(refusal_of(error)),
        }
    }

    fn count(&self, waiting: &Waiting, how: &'static str) {
        let took = waiting.arrived.elapsed();
        self.stats.executed.fetch_add(1, Ordering::Relaxed);
        self.stats.latencies.record(took);
        metrics::counter!(names::IMMEDIATE_EXECUTED_TOTAL, "ended" => how).increment(1);
        metrics::histogram!(names::LANE_SECONDS, "lane" => "immediate").record(took.as_secs_f64());
    }

    fn report(&self) {
        let (commands, bytes, running) = self.room().load();
        metrics::gauge!(names::IMMEDIATE_WAITING).set((commands - running) as f64);
        metrics::gauge!(names::IMMEDIATE_WAITING_BYTES).set(bytes as f64);
        metrics::gauge!(names::IMMEDIATE_RUNNING).set(running as f64);
    }
}

fn envelope(command: &NewCommand, accepted_at: Timestamp) -> CommandEnvelope {
    CommandEnvelope {
        id: command.id,
        command_type: command.command_type.clone(),
        stream: command.stream.clone(),
        payload: command.payload.clone(),
        metadata: command.metadata.clone(),
        expected_version: command.expected_version,
        reply_to: command.reply_to.clone(),
        accepted_at,
        attempt: Attempt::FIRST,
        first_offset: None,
        edit: 0,
        not_after: command.not_after,
        callback_url: command.callback_url.clone(),
    }
}

fn refusal_of(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(why) | StoreError::Transient(why) => Refusal::Unavailable(why),
        StoreError::Unknown(why) => Refusal::Unknown(why),
        StoreError::Unstorable(why) => Refusal::Unstorable(why),
        other => Refusal::Internal(other.to_string()),
    }
}
