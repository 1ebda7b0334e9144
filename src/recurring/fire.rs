//! Firing: read what is due, decide what is owed, accept it, settle. Each step is a transaction of its
//! own. After a crash between two of them the next process finds what is owed written down; runs that
//! were accepted already are found by their ids.

use std::time::Duration;

use tokio::time::Instant;

use super::{RecurringParts, Run, Schedule, missed};
use crate::{
    message::{Partition, Timestamp},
    observe::names,
    store::{
        Accepted, CommandTemplate, DecidedRuns, DueRecurring, NewCommand, RecurringCommand,
        RecurringName, SettledRuns, StoreError, Turn,
    },
};

/// How many recurring commands are fired together.
const PAGE: i64 = 32;
/// How many runs one transaction accepts, and how many bytes of payload it carries about.
const BATCH_RUNS: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// So many that cannot be read are passed over; behind more of them, others wait.
const MOST_UNREADABLE: usize = 1_000;
/// After how long they are looked at again: a person may have changed them.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Runs until stopped.
pub(super) async fn run(parts: RecurringParts) {
    let (poll, stop) = (parts.settings.poll, parts.stop.clone());
    let mut firing =
        Firing { parts, unreadable: Vec::new(), look_again: Instant::now(), is_held_up: false };
    loop {
        let wait = if firing.is_on_duty() { firing.fire_all().await } else { poll };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Firing {
    parts: RecurringParts,
    /// Those that cannot be read here, of which the log has told.
    unreadable: Vec<RecurringName>,
    /// When they are looked at again.
    look_again: Instant,
    /// The outbox was full when it was last looked at.
    is_held_up: bool,
}

/// Runs that were decided, and what they send.
struct Owing {
    turn: Turn,
    owed: Vec<Timestamp>,
    command: CommandTemplate,
}

/// What became of the runs of one recurring command.
#[derive(Clone, Copy, Default)]
struct Sent {
    runs: i64,
    failed: i64,
}

impl Firing {
    fn is_on_duty(&self) -> bool {
        !self.parts.stop.is_cancelled() && self.parts.partitions.borrow().contains(&Partition(0))
    }

    /// Fires until nothing is due; answers how long nothing will be.
    async fn fire_all(&mut self) -> Duration {
        let poll = self.parts.settings.poll;
        if Instant::now() >= self.look_again {
            self.unreadable.clear();
            self.look_again = Instant::now() + LOOK_AGAIN;
        }
        while self.is_on_duty() {
            match self.fire_some().await {
                Ok(Fired::Nothing { until_next }) => return until_next.min(poll),
                Ok(Fired::Some) => {}
                Ok(Fired::HeldUp) => return poll,
                Err(error) => {
                    metrics::counter!(names::RECURRING_FAILED_TOTAL).increment(1);
                    tracing::warn!(%error, "recurring commands are fired later");
                    return poll;
                }
            }
        }
        poll
    }

    async fn fire_some(&mut self) -> Result<Fired, StoreError> {
        let found = self.parts.store.due_recurring(&self.unreadable, PAGE).await?;
        if found.due.is_empty() {
            return Ok(Fired::Nothing { until_next: until_next(&found) });
        }
        if self.outbox_is_full().await? {
            return Ok(Fired::HeldUp);
        }
        let unreadable = self.unreadable.len();
        let (owing, decided) = self.decide(found).await?;
        let passed_over = self.unreadable.len() - unreadable;
        let settled = self.send(owing).await?;
        // Whoever has lost every race does not try again at once.
        Ok(if decided + settled + passed_over > 0 { Fired::Some } else { Fired::HeldUp })
    }

    /// Writes down what is owed by each that is due; answers who owes, and how many it has decided.
    async fn decide(&mut self, found: DueRecurring) -> Result<(Vec<Owing>, usize), StoreError> {
        let (undecided, decided): (Vec<_>, Vec<_>) =
            found.due.into_iter().partition(|recurring| recurring.owed.is_empty());
        let mut owing: Vec<_> = decided.into_iter().map(Owing::of).collect();
        let mut asked = Vec::new();
        for recurring in undecided {
            if let Some(decision) = self.decide_one(&recurring, found.now) {
                asked.push((recurring, decision));
            }
        }
        if asked.is_empty() {
            return Ok((owing, 0));
        }
        let decisions: Vec<_> = asked.iter().map(|(_, decision)| decision.clone()).collect();
        let first = self.parts.store.decide_runs(&decisions).await?;
        for ((recurring, decision), was_first) in asked.into_iter().zip(&first) {
            if !was_first {
                continue;
            }
            tell_missed(&recurring, &decision);
            if !decision.owed.is_empty() {
                let turn = decision.turn.next();
                owing.push(Owing { turn, owed: decision.owed, command: recurring.terms.command });
            }
        }
        Ok((owing, first.iter().filter(|was_first| **was_first).count()))
    }

    fn decide_one(&mut self, recurring: &RecurringCommand, now: Timestamp) -> Option<DecidedRuns> {
        let (name, terms) = (recurring.name(), &recurring.terms);
        let schedule = match Schedule::parse(&terms.cron, &terms.time_zone) {
            Ok(schedule) => schedule,
            Err(error) => {
                // It waits for a process that can read it (a zone that this one's database lacks), or
                // for a person.
                tracing::error!(%name, %error, "a recurring command cannot be read here");
                if self.unreadable.len() < MOST_UNREADABLE {
                    self.unreadable.push(name.clone());
                }
                return None;
            }
        };
        let (first, settings) = (recurring.next_due_at?, &self.parts.settings);
        let decision = missed::decide(&schedule, terms.missed_runs, first, now, settings);
        if decision.next.is_none() {
            tracing::warn!(%name, "a recurring command is never due again");
        }
        Some(DecidedRuns {
            turn: recurring.turn.clone(),
            owed: decision.owed,
            missed: decision.missed as i64,
            next_due_at: decision.next,
        })
    }

    /// Accepts everything that is owed, in the order of due times, and settles it.
    async fn send(&self, owing: Vec<Owing>) -> Result<usize, StoreError> {
        let mut sent = vec![Sent::default(); owing.len()];
        let mut runs: Vec<(Timestamp, usize)> = Vec::new();
        for (of, owing) in owing.iter().enumerate() {
            runs.extend(owing.owed.iter().map(|due_at| (*due_at, of)));
        }
        runs.sort_unstable();
        if planted!(RunSettledUnsent) {
            let all = |owing: &Owing| Sent { runs: owing.owed.len() as i64, failed: 0 };
            self.settle(&owing, &owing.iter().map(all).collect::<Vec<_>>()).await?;
        }
        let mut rest = &runs[..];
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_of(rest, &owing));
            self.send_batch(batch, &owing, &mut sent).await?;
            rest = later;
        }
        self.settle(&owing, &sent).await
    }

    /// Writes down that everything owed is sent; answers how many it was the first to settle.
    async fn settle(&self, owing: &[Owing], sent: &[Sent]) -> Result<usize, StoreError> {
        let settled: Vec<_> =
            owing.iter().zip(sent).map(|(owing, sent)| owing.settled(*sent)).collect();
        if settled.is_empty() {
            return Ok(0);
        }
        let first = self.parts.store.settle_runs(&settled).await?;
        Ok(first.into_iter().filter(|was_first| *was_first).count())
    }

    async fn send_batch(
        &self,
        batch: &[(Timestamp, usize)],
        owing: &[Owing],
        sent: &mut [Sent],
    ) -> Result<(), StoreError> {
        let mut runs = Vec::with_capacity(batch.len());
        for &(due_at, of) in batch {
            let run = Run { name: owing[of].turn.name.clone(), due_at };
            let command = &owing[of].command;
            // Of a type that is unknown here nobody knows: the log keeps every order.
            let registry = &self.parts.registry;
            let name = &command.command_type;
            let needs_log =
                registry.is_strict(name) || registry.aggregate_of_command(name).is_none();
            match run.command(command, needs_log) {
                Ok(command) => runs.push((due_at, of, command)),
                Err(error) => {
                    tracing::error!(%run, %error, "a run cannot be sent");
                    sent[of].failed += 1;
                }
            }
        }
        let commands: Vec<_> = runs.iter().map(|(_, _, command)| command.clone()).collect();
        let answers = self.accept(commands).await?;
        let mut is_any_new = false;
        for ((due_at, of, command), answer) in runs.iter().zip(answers) {
            let Some(accepted) = answer else {
                sent[*of].failed += 1;
                continue;
            };
            sent[*of].runs += 1;
            is_any_new |= matches!(accepted, Accepted::New { .. });
            tell_sent(*due_at, command, &accepted);
        }
        if is_any_new {
            self.parts.signals.outbox_written();
        }
        Ok(())
    }

    /// Accepts commands; one that can never be stored (`None`) keeps no other from it. What may pass,
    /// or is not known, is an error: the ids make it safe to do all of it again.
    async fn accept(&self, commands: Vec<NewCommand>) -> Result<Vec<Option<Accepted>>, StoreError> {
        let store = &self.parts.store;
        let passes =
            |error: &StoreError| error.is_retryable() || matches!(error, StoreError::Unknown(_));
        match store.accept(commands.clone()).await {
            Ok(accepted) => return Ok(accepted.into_iter().map(Some).collect()),
            Err(error) if passes(&error) => return Err(error),
            Err(_) => {}
        }
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            let id = command.id;
            match store.accept(vec![command]).await {
                Ok(accepted) => answers.extend(accepted.into_iter().map(Some)),
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, command = %id, "a run cannot be accepted");
                    answers.push(None);
                }
            }
        }
        Ok(answers)
    }

    /// Whether nothing may be fired because the broker takes nothing: what is due then is decided
    /// later, by its policy.
    async fn outbox_is_full(&mut self) -> Result<bool, StoreError> {
        let limit = self.parts.settings.outbox_limit;
        let is_full = self.parts.store.outbox_depth(limit).await?.0 >= limit;
        if is_full && !self.is_held_up {
            tracing::warn!(limit, "the outbox is full: recurring commands wait");
        }
        self.is_held_up = is_full;
        Ok(is_full)
    }
}

/// What a look at what is due brought about.
enum Fired {
    /// Nothing was due.
    Nothing { until_next: Duration },
    /// Something was; there may be more.
    Some,
    /// Something is, and cannot be fired now.
    HeldUp,
}

impl Owing {
    fn of(recurring: RecurringCommand) -> Self {
        let RecurringCommand { turn, owed, terms, .. } = recurring;
        Self { turn, owed, command: terms.command }
    }

    fn settled(&self, sent: Sent) -> SettledRuns {
        let newest = self.owed.last().filter(|_| sent.runs > 0);
        let run = |due_at: &Timestamp| Run { name: self.turn.name.clone(), due_at: *due_at };
        SettledRuns {
            turn: self.turn.clone(),
            runs: sent.runs,
            missed: sent.failed,
            last: newest.map(|due_at| (*due_at, run(due_at).command_id())),
        }
    }
}

/// How many of the first runs fit one transaction: at least one.
fn batch_of(runs: &[(Timestamp, usize)], owing: &[Owing]) -> usize {
    let mut bytes = 0;
    let fits = |(_, of): &&(Timestamp, usize)| {
        bytes += owing[*of].command.payload.as_str().len();
        bytes <= BATCH_BYTES
    };
    runs.iter().take(BATCH_RUNS).take_while(fits).count().max(1)
}

fn until_next(found: &DueRecurring) -> Duration {
    let wait = found.next.map(|next| next - found.now);
    wait.map_or(Duration::MAX, |wait| wait.try_into().unwrap_or(Duration::ZERO))
}

fn tell_missed(recurring: &RecurringCommand, decision: &DecidedRuns) {
    if decision.missed == 0 {
        return;
    }
    let policy = recurring.terms.missed_runs.as_str();
    let missed = decision.missed.unsigned_abs();
    metrics::counter!(names::RECURRING_MISSED_TOTAL, "policy" => policy).increment(missed);
    tracing::warn!(
        name = %recurring.name(), missed, policy, first = ?recurring.next_due_at,
        "runs of a recurring command were missed"
    );
}

fn tell_sent(due_at: Timestamp, command: &NewCommand, accepted: &Accepted) {
    match accepted {
        Accepted::New { accepted_at } => {
            metrics::counter!(names::RECURRING_FIRED_TOTAL).increment(1);
            let late = (*accepted_at - due_at).as_seconds_f64().max(0.0);
            metrics::histogram!(names::RECURRING_LATE_SECONDS).record(late);
            tracing::debug!(
                command = %command.id, stream = %command.stream,
                cause = command.metadata.causation_id.as_deref(), "a recurring command was sent"
            );
        }
        // Sent by whoever was at it before, perhaps as it was defined then.
        Accepted::Occupied(_) => tracing::debug!(command = %command.id, "a run had been sent"),
    }
}

#[cfg(all(test, feature = "embedded"))]
#[path = "fire_tests.rs"]
mod tests;
