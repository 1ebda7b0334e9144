//! One partition that failed together with others, or alone: the batch is split until the event that
//! is in the way stands alone. That one is tried again a few times, then its key is parked and the
//! rest goes on. Its neighbours notice nothing. What is in the way of every key parks none: the group
//! pauses.

use std::time::Duration;

use super::{
    HandlerRun, ProjectionHandler,
    trouble::{Blame, Fault, Trouble, Verdict},
};
use crate::{
    execute::RunEnd,
    message::{Offset, Position},
    store::{Entry, Fence, StoreError},
};

impl ProjectionHandler {
    pub(super) async fn apply_alone(&self, mut run: HandlerRun) -> RunEnd {
        let mut split = Split::whole(run.entries.len());
        while !run.entries.is_empty() {
            let behind = run.entries.split_off(split.take.min(run.entries.len()));
            let taken = run.entries.len();
            let ended = match self.apply(std::slice::from_ref(&run), None).await {
                Ok(()) => Ok(true),
                Err(Trouble::Store(error)) => Err(error),
                Err(trouble) if taken > 1 => {
                    split.narrow(&trouble, taken, |position| {
                        run.entries.iter().position(|entry| entry.offset() == position.offset)
                    });
                    Ok(false)
                }
                Err(trouble) => match self.set_aside(&run, &behind, trouble).await {
                    Ok(SetAside::Passed) => Ok(true),
                    Ok(SetAside::Suspended(pause)) => {
                        run.entries.extend(behind);
                        return RunEnd::Suspended { rest: run.entries, pause };
                    }
                    Err(error) => Err(error),
                },
            };
            match ended {
                Ok(true) => {
                    run.checkpoint = run.checkpoint.plus(taken);
                    run.entries = behind;
                    let next = run.entries.first().map(Entry::offset);
                    split.went_on(next, run.entries.len());
                }
                Ok(false) => run.entries.extend(behind),
                Err(error) => return end_of(error),
            }
        }
        RunEnd::Done
    }

    /// A process vanished whenever this event was applied: its stream is parked, and no code of the
    /// projection sees the event again before a person asks for it.
    pub(super) async fn give_up(&self, run: &HandlerRun, crashes: i32) -> RunEnd {
        let message = format!("{crashes} processes vanished while they applied it");
        let mut verdict = Verdict::after(crashes);
        verdict.add(Fault::lasting(Blame::Stream, "crashed", message));
        match self.apply(std::slice::from_ref(run), Some(&verdict)).await {
            Ok(()) => RunEnd::Done,
            Err(trouble) => match trouble.into_fault() {
                Err(error) => end_of(error),
                Ok(fault) => end_of(StoreError::Internal(format!(
                    "an event cannot even be passed: {}",
                    fault.error.message
                ))),
            },
        }
    }

    /// Applies an event that stands alone after all, or parks its key and passes it; unless most
    /// keys are in its place. `behind` is what follows it.
    async fn set_aside(
        &self,
        run: &HandlerRun,
        behind: &[Entry],
        trouble: Trouble,
    ) -> Result<SetAside, StoreError> {
        let alone = std::slice::from_ref(run);
        let mut trouble = trouble;
        if self.breaker.is_probing()
            && let Some(pause) = self.probe_fails(run, behind, &trouble).await?
        {
            return Ok(SetAside::Suspended(pause));
        }
        let mut tries = Tries::new(self);
        while tries.again(self, &trouble).await? {
            match self.apply(alone, None).await {
                Ok(()) => return Ok(SetAside::Passed),
                Err(Trouble::Store(error)) => return Err(error),
                Err(again) => trouble = again,
            }
        }
        if let Some(pause) = self.count_failure(run, &trouble) {
            return Ok(SetAside::Suspended(pause));
        }
        let mut verdict = Verdict::after(tries.made);
        loop {
            let fault = trouble.into_fault()?;
            let text = format!("an event cannot even be passed: {}", fault.error.message);
            if !verdict.add(fault) {
                return Err(StoreError::Internal(text));
            }
            match self.apply(alone, Some(&verdict)).await {
                Ok(()) => return Ok(SetAside::Passed),
                // Another of its documents cannot take it, either.
                Err(other) => trouble = other,
            }
        }
    }
}

/// What became of an event that stood alone.
enum SetAside {
    /// It is applied after all, or its key is parked.
    Passed,
    /// Nothing: the group pauses, at this event.
    Suspended(Duration),
}

fn end_of(error: StoreError) -> RunEnd {
    match error {
        StoreError::Fenced(Fence::Checkpoint | Fence::Parked) => RunEnd::Fenced,
        StoreError::Fenced(Fence::NotInLog) => RunEnd::NotInLog,
        error => RunEnd::Failed(error),
    }
}

/// How many events are tried together while one of them is in the way.
pub(super) struct Split {
    pub(super) take: usize,
    /// The event that was named.
    suspect: Option<Offset>,
}

impl Split {
    pub(super) fn whole(count: usize) -> Self {
        Self { take: count.max(1), suspect: None }
    }

    /// `taken` events (more than one) failed: those in front of the one that is named, or half.
    pub(super) fn narrow(
        &mut self,
        trouble: &Trouble,
        taken: usize,
        find: impl FnOnce(Position) -> Option<usize>,
    ) {
        let named = match trouble {
            Trouble::Event(bad) => find(bad.position).map(|place| (place, bad.position.offset)),
            Trouble::Value(_) | Trouble::Store(_) => None,
        };
        self.take = match named {
            Some((place, _)) => place.clamp(1, taken - 1),
            None => taken / 2,
        };
        self.suspect = named.map(|(_, offset)| offset);
    }

    /// What was taken is done; this is what follows.
    pub(super) fn went_on(&mut self, next: Option<Offset>, left: usize) {
        let suspected = next.is_some() && self.suspect == next;
        self.take = if suspected { 1 } else { left.max(1) };
        self.suspect = None;
    }
}

/// The tries of an event that stands alone.
pub(super) struct Tries {
    pub(super) made: i32,
    most: i32,
    delays: crate::execute::Retries,
}

impl Tries {
    /// One was made and failed.
    pub(super) fn new(handler: &ProjectionHandler) -> Self {
        let most = i32::try_from(handler.parking.tries).unwrap_or(i32::MAX);
        Self { made: 1, most, delays: handler.parking.retry.start() }
    }

    /// Waits, if another try is worth it. An error: the process is told to stop.
    pub(super) async fn again(
        &mut self,
        handler: &ProjectionHandler,
        trouble: &Trouble,
    ) -> Result<bool, StoreError> {
        if !trouble.is_retryable() || self.made >= self.most {
            return Ok(false);
        }
        let Some(delay) = self.delays.next_delay() else { return Ok(false) };
        tracing::warn!(group = %handler.folder.group, ?trouble, ?delay, "the event is tried again");
        self.made += 1;
        tokio::select! {
            biased;
            () = handler.stop.cancelled() => {
                Err(StoreError::Unavailable("this process is stopping".to_owned()))
            }
            () = tokio::time::sleep(delay) => Ok(true),
        }
    }
}
