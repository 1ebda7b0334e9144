//! The loop that takes what waits and executes it, some transactions at a time.

use std::{panic::AssertUnwindSafe, sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::{
    answer::End,
    processor::{Shared, Waiting},
    room::{Back, Taken, Ticket, Waits as _},
};
use crate::{
    execute::{Arrival, ArrivalEnd, Enters},
    ingress::{Acceptance, Refusal},
    message::{Attempt, CommandEnvelope, Timestamp},
    observe::names,
    store::{CommandRecord, NewCommand, StoreError},
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
    // What is held stays so until others take it over; who waits is told.
    let left = shared.room().close(|waiting| waiting.held.is_none() && waiting.is_ready());
    for answer in left.into_iter().filter_map(|waiting| waiting.answer) {
        let _ = answer.send(End::Refused(Refusal::Stopping));
    }
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
        let ids: Vec<_> = commands.iter().map(|(_, waiting)| waiting.command.id).collect();
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
        let back = self.tell_all(commands.into_iter().zip(ends).collect()).await;
        if !back.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
        self.room().done(&ids, bytes, &streams, back);
        self.work.notify_one();
        self.report();
    }

    /// Tells callers how their commands ended: first those of whom it is known, then, with one
    /// question each, those whose ids were there and those that must take the queue. Gives back what
    /// this process must try again.
    async fn tell_all(&self, ended: Vec<((Ticket, Box<Waiting>), ArrivalEnd)>) -> Back<Waiting> {
        let mut back = Back::new();
        let (mut known, mut queue) = (Vec::new(), Vec::new());
        for ((ticket, waiting), end) in ended {
            let held = waiting.held;
            let acceptance = |accepted_at: Option<Timestamp>| Acceptance {
                accepted_at: held.or(accepted_at).unwrap_or_else(|| self.parts.clock.now()),
                replay: false,
            };
            match end {
                ArrivalEnd::Ended { outcome, accepted_at } => {
                    self.count(&waiting, outcome.status.as_str());
                    tell(waiting, End::Ended(acceptance(accepted_at), outcome));
                }
                ArrivalEnd::SetAside { accepted_at } => {
                    self.count(&waiting, "set_aside");
                    tell(waiting, End::Elsewhere(acceptance(accepted_at)));
                }
                ArrivalEnd::Known { .. } if held.is_some() => {
                    tell(waiting, End::Elsewhere(acceptance(None)));
                }
                ArrivalEnd::Known { reply_was_lost } => known.push((waiting, reply_was_lost)),
                ArrivalEnd::MustQueue { reply_was_lost } => {
                    self.count(&waiting, "queued");
                    queue.push((waiting, reply_was_lost));
                }
                ArrivalEnd::Refused(error) if held.is_some() => {
                    tracing::error!(%error, command = %waiting.command.id, "it cannot be executed now; trying again");
                    back.push((waiting.command.stream.clone(), ticket, waiting));
                }
                ArrivalEnd::Refused(error) => tell(waiting, End::Refused(refusal_of(error))),
            }
        }
        self.accept_for_the_queue(queue).await;
        self.look_up(known).await;
        back
    }

    /// Strict ones take their places in the log, in their order, before later ones of their streams
    /// run.
    async fn accept_for_the_queue(&self, queue: Vec<(Box<Waiting>, bool)>) {
        if queue.is_empty() {
            return;
        }
        let commands = queue.iter().map(|(waiting, _)| waiting.command.clone()).collect();
        failpoint!(ImmediateMustQueue);
        let accepted = self.parts.commit.accept_together(commands).await;
        failpoint!(ImmediateTookPlace);
        let refused = accepted.as_ref().err().cloned();
        let mut accepted = accepted.unwrap_or_default().into_iter();
        for (waiting, reply_was_lost) in queue {
            let unless_lost = |refusal: Refusal| match refusal {
                // A try before may have accepted it.
                refusal if reply_was_lost => Refusal::Unknown(format!("{refusal:?}")),
                refusal => refusal,
            };
            let otherwise = || refused.clone().unwrap_or_else(broke_off);
            tell(
                waiting,
                match accepted.next() {
                    Some(Ok(acceptance)) => End::Elsewhere(acceptance),
                    Some(Err(refusal)) => End::Refused(unless_lost(refusal)),
                    None => End::Refused(unless_lost(otherwise())),
                },
            );
        }
    }

    /// Ids that were accepted before: of the same commands, or of others?
    async fn look_up(&self, known: Vec<(Box<Waiting>, bool)>) {
        if known.is_empty() {
            return;
        }
        let ids: Vec<_> = known.iter().map(|(waiting, _)| waiting.command.id).collect();
        let found = self.parts.store.commands_with_ids(&ids).await;
        for (waiting, reply_was_lost) in known {
            let end = match &found {
                Ok(records) => {
                    let record = records.iter().find(|record| record.id == waiting.command.id);
                    of_known(&waiting.command, record, reply_was_lost)
                }
                // They are there: nobody may be told that nothing was accepted.
                Err(error) => End::Refused(Refusal::Unknown(error.to_string())),
            };
            tell(waiting, end);
        }
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

/// Nobody may be there any more: what was done is done.
fn tell(mut waiting: Box<Waiting>, end: End) {
    if let Some(answer) = waiting.answer.take() {
        failpoint!(ImmediateAnswering);
        let _ = answer.send(end);
    }
}

fn of_known(command: &NewCommand, record: Option<&CommandRecord>, reply_was_lost: bool) -> End {
    let Some(record) = record else {
        let why = "the command was accepted before, and is gone".to_owned();
        return End::Refused(Refusal::Unavailable(why));
    };
    if record.content_hash != command.content_hash {
        return End::Refused(Refusal::Conflict);
    }
    let acceptance = Acceptance { accepted_at: record.accepted_at, replay: !reply_was_lost };
    match &record.outcome {
        Some(outcome) => End::Ended(acceptance, Box::new(outcome.clone())),
        None => End::Elsewhere(acceptance),
    }
}

fn broke_off() -> Refusal {
    Refusal::Unknown("accepting broke off".into())
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
