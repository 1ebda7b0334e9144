//! Executing commands of the immediate lane: they enter with the transaction that decides them, and
//! each is told how it ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Executor, RetryPolicy, Run, batch::Found, executor::Done};
use crate::{
    domain::Registry,
    message::{
        CommandEnvelope, CommandId, Failure, Offset, Outcome, Partition, Position, Timestamp,
    },
    store::{CommandEntry, Entering, Fence, NewCommand, NewOutcome, Store, StoreError},
};

/// How long a batch with commands that are not durable yet is tried while the store does not answer:
/// their callers wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command of the immediate lane.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The partition of its stream.
    pub partition: Partition,
    /// The command.
    pub command: CommandEnvelope,
    /// How it comes in.
    pub enters: Enters,
}

/// How a command of the immediate lane comes in.
#[derive(Clone, Debug)]
pub enum Enters {
    /// It is accepted by the transaction that executes it.
    New(Box<NewCommand>),
    /// It was accepted before, and this process holds it.
    Held,
}

/// How the execution of an arrival ended.
#[derive(Debug)]
pub enum ArrivalEnd {
    /// It has ended.
    Ended {
        /// How.
        outcome: Box<Outcome>,
        /// When it was accepted, if this transaction did it.
        accepted_at: Option<Timestamp>,
    },
    /// It is durable, and comes back through the queue: a try failed, or nobody can execute it now.
    SetAside {
        /// When it was accepted, if this transaction did it.
        accepted_at: Option<Timestamp>,
    },
    /// The id was accepted before, or the command is not held any more. Nothing was done.
    Known {
        /// The one that was accepted before may be this one: an answer to COMMIT was lost.
        reply_was_lost: bool,
    },
    /// A strict one that must take its place in the queue. Nothing was done by the last try.
    MustQueue {
        /// It may have been accepted by a try before: an answer to COMMIT was lost.
        reply_was_lost: bool,
    },
    /// The store does not take it. Nothing was done, or it is not known whether it was (see there).
    Refused(StoreError),
}

/// What of a batch enters by the immediate lane.
pub(super) struct Arrivals {
    new: BTreeMap<CommandId, NewCommand>,
    held: BTreeMap<CommandId, Partition>,
    runs: Arc<[Run]>,
}

impl Arrivals {
    fn of(arrivals: &[&Arrival]) -> Self {
        let (mut new, mut held) = (BTreeMap::new(), BTreeMap::new());
        let mut runs: BTreeMap<Partition, Vec<CommandEntry>> = BTreeMap::new();
        for arrival in arrivals {
            match &arrival.enters {
                Enters::New(command) => drop(new.insert(command.id, (**command).clone())),
                Enters::Held => drop(held.insert(arrival.command.id, arrival.partition)),
            }
            // It has no place in the log.
            let entry =
                CommandEntry { offset: Offset::default(), command: arrival.command.clone() };
            runs.entry(arrival.partition).or_default().push(entry);
        }
        let run =
            |(partition, entries)| Run { partition, checkpoint: None, entries, crashed: None };
        Self { new, held, runs: runs.into_iter().map(run).collect() }
    }

    /// Whoever waits for an answer does not wait for ever; what is durable can.
    pub(super) fn patience(&self) -> RetryPolicy {
        if self.new.is_empty() { RetryPolicy::forever() } else { RetryPolicy::within(PATIENCE) }
    }

    /// What enters with the next try.
    pub(super) fn entering(&self, registry: &Registry, found: &Found) -> Entering {
        let out = |id: &CommandId| found.ended.contains(id) || found.fall_back.contains(id);
        let mut entering = Entering {
            new: self.new.values().filter(|command| !out(&command.id)).cloned().collect(),
            held: self
                .held
                .iter()
                .filter(|(id, _)| !out(id))
                .map(|(id, partition)| (*partition, *id))
                .collect(),
            strict: Vec::new(),
        };
        if planted!(StrictOvertakesQueue) {
            return entering;
        }
        for run in &*self.runs {
            for command in run.entries.iter().map(|entry| &entry.command) {
                if registry.is_strict(&command.command_type) && !out(&command.id) {
                    entering.strict.push((run.partition, command.stream.clone()));
                }
            }
        }
        entering
    }

    /// Whether a fence is about what enters.
    #[expect(clippy::unused_self, reason = "asked of what enters")]
    pub(super) fn is_about(&self, fence: &Fence) -> bool {
        matches!(fence, Fence::Accepted | Fence::Held | Fence::Before)
    }

    /// Finds out which of them a fence is about.
    pub(super) async fn look_again(
        &self,
        store: &dyn Store,
        registry: &Registry,
        fence: &Fence,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let known: BTreeSet<CommandId> = match fence {
            Fence::Accepted => {
                let ids: Vec<_> = self.new.keys().copied().collect();
                store.accepted(&ids).await?.into_iter().collect()
            }
            Fence::Held => {
                let held: Vec<_> = self.held.iter().map(|(id, p)| (*p, *id)).collect();
                let still: BTreeSet<_> = store.held(&held).await?.into_iter().collect();
                self.held.keys().filter(|id| !still.contains(id)).copied().collect()
            }
            _ => {
                let commands = self.runs.iter().flat_map(|run| &run.entries);
                let strict = commands
                    .map(|entry| &entry.command)
                    .filter(|command| registry.is_strict(&command.command_type))
                    .map(|command| command.id);
                found.fall_back.extend(strict);
                return Ok(());
            }
        };
        if known.iter().all(|id| found.ended.contains(id)) {
            return Err(StoreError::Transient(format!("the fence {fence:?} held for nobody")));
        }
        found.ended.extend(known);
        Ok(())
    }
}

impl Executor {
    /// Executes commands of the immediate lane, in one transaction if nothing goes wrong, those of a
    /// stream in their order. Answers in the order of `arrivals`; each id must be there once.
    pub async fn execute_arrivals(&self, arrivals: Vec<Arrival>) -> Vec<ArrivalEnd> {
        let mut ends: Vec<Option<ArrivalEnd>> = arrivals.iter().map(|_| None).collect();
        // Parts in the order of arrival, the next one last.
        let mut todo = vec![((0..arrivals.len()).collect::<Vec<_>>(), Found::default())];
        // Streams of which one that this process holds could not be executed: those that came later
        // must not overtake it.
        let mut stuck = BTreeSet::new();
        while let Some((part, found)) = todo.pop() {
            let (behind, part): (Vec<_>, Vec<_>) =
                part.into_iter().partition(|i| stuck.contains(&arrivals[*i].command.stream));
            for i in behind {
                let why = "one of its stream that came before could not be executed".to_owned();
                ends[i] = Some(ArrivalEnd::Refused(StoreError::Transient(why)));
            }
            if part.is_empty() {
                continue;
            }
            let some: Vec<_> = part.iter().map(|i| &arrivals[*i]).collect();
            let condemned = !found.condemned.is_empty();
            let entering = Arrivals::of(&some);
            match self.execute_together(&entering.runs.clone(), found, Some(&entering)).await {
                Ok(done) => {
                    for (i, end) in part.into_iter().zip(tell(&some, &done)) {
                        ends[i] = Some(end);
                    }
                }
                // One of them cannot be stored: it may be its events, or the command itself.
                Err(StoreError::Unstorable(reason)) if some.len() == 1 && !condemned => {
                    let mut found = Found::default();
                    found.condemned.insert(some[0].command.id, Failure::new("unstorable", reason));
                    todo.push((part, found));
                }
                Err(
                    StoreError::Unstorable(_) | StoreError::Internal(_) | StoreError::Transient(_),
                ) if some.len() > 1 => {
                    let mut head = part;
                    let tail = head.split_off(head.len() / 2);
                    todo.push((tail, Found::default()));
                    todo.push((head, Found::default()));
                }
                Err(error) => {
                    for i in part {
                        if matches!(arrivals[i].enters, Enters::Held) {
                            stuck.insert(arrivals[i].command.stream.clone());
                        }
                        ends[i] = Some(ArrivalEnd::Refused(copy_of(&error)));
                    }
                }
            }
        }
        let lost = || StoreError::Internal("an arrival was forgotten".to_owned());
        ends.into_iter().map(|end| end.unwrap_or_else(|| ArrivalEnd::Refused(lost()))).collect()
    }
}

/// How each of them ended.
fn tell(arrivals: &[&Arrival], done: &Done) -> Vec<ArrivalEnd> {
    let firsts = done.committed.first_offsets.iter().copied().chain(std::iter::repeat(None));
    let ended: BTreeMap<CommandId, (&NewOutcome, Option<Offset>)> =
        done.outcomes.iter().zip(firsts).map(|(it, first)| (it.command_id, (it, first))).collect();
    let end = |arrival: &&Arrival| {
        let id = arrival.command.id;
        let is_new = matches!(arrival.enters, Enters::New(_));
        let accepted_at = done.committed.accepted_at.filter(|_| is_new);
        if done.found.fall_back.contains(&id) {
            ArrivalEnd::MustQueue { reply_was_lost: done.reply_was_lost }
        } else if done.found.ended.contains(&id) {
            ArrivalEnd::Known { reply_was_lost: done.reply_was_lost }
        } else if let Some((written, first)) = ended.get(&id) {
            match outcome(written, *first, done.committed.recorded_at) {
                Some(outcome) => ArrivalEnd::Ended { outcome: Box::new(outcome), accepted_at },
                // The store has it, but did not say when: it can be read there.
                None => ArrivalEnd::SetAside { accepted_at },
            }
        } else {
            ArrivalEnd::SetAside { accepted_at }
        }
    };
    arrivals.iter().map(end).collect()
}

fn outcome(
    written: &NewOutcome,
    first: Option<Offset>,
    completed_at: Option<Timestamp>,
) -> Option<Outcome> {
    let partition = written.partition;
    let position = |i| first.map(|first| Position { partition, offset: first.plus(i) });
    Some(Outcome {
        status: written.status,
        positions: (0..written.events).filter_map(position).collect(),
        version: written.version,
        reply: written.reply.clone(),
        error: written.error.clone(),
        attempts: written.attempts,
        completed_at: completed_at?,
    })
}

/// Several are told the same.
fn copy_of(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        StoreError::Transient(why) => StoreError::Transient(why.clone()),
        StoreError::Unknown(why) => StoreError::Unknown(why.clone()),
        StoreError::Unstorable(why) => StoreError::Unstorable(why.clone()),
        other => StoreError::Internal(other.to_string()),
    }
}
