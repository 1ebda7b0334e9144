//! Replaying a parked key: its waiting events in order, some in each transaction, until none waits.
//! Everything that a replay knows stands in the database; whoever owns the key's partition makes the
//! next step.

use std::collections::HashSet;

use super::{
    HandlerRun, ProjectionHandler,
    alone::{Split, Tries},
    fold::Terms,
    trouble::{Blame, Fault, Trouble, Verdict, failure_of},
};
use crate::{
    domain::Scope,
    message::{MemberId, Offset, Position, Version},
    store::{
        DocumentRow, Entry, KeyScope, ParkedKey, ReplayProgress, ReplayStep, StoreError,
        WaitingEvent,
    },
};

/// Who replays, and how often a process may vanish at an event before its key waits for a person.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayTerms {
    pub(crate) member: MemberId,
    pub(crate) crash_limit: i32,
}

impl ProjectionHandler {
    /// Replays the next events that wait for a key. If one of them fails, the key waits for a person
    /// again from there on; so it does if processes vanish whenever they come to it.
    pub(crate) async fn replay_step(
        &self,
        mut key: ParkedKey,
        terms: ReplayTerms,
    ) -> Result<(), StoreError> {
        let mut events = self.store.waiting_events(&key, self.parking.replay_batch.max(1)).await?;
        let mut split = Split::whole(events.len());
        let mut suspect = false;
        loop {
            if !events.is_empty() {
                let crashes = self.store.begin_replay(&key, terms.member).await?;
                if crashes >= terms.crash_limit.max(1) {
                    return self.replay_crashes(&key, &events, crashes).await;
                }
                suspect |= crashes > 0;
            }
            // One of these may be the reason: only alone does it have a count of its own.
            split.take = if suspect { 1 } else { split.take };
            let behind = events.split_off(split.take.min(events.len()));
            let taken = events.len();
            match self.replay(&key, &events, None).await {
                Ok(ReplayProgress::Unparked) => {
                    self.tell_unparked(&key);
                    return Ok(());
                }
                Ok(ReplayProgress::Waiting) if behind.is_empty() => return Ok(()),
                Ok(ReplayProgress::Waiting) => {
                    go_on(&mut key, &events);
                    events = behind;
                    let next = events.first().map(|event| event.entry.offset);
                    split.went_on(next, events.len());
                }
                Err(Trouble::Store(error)) => return Err(error),
                Err(trouble) if taken > 1 => {
                    split.narrow(&trouble, taken, |position| {
                        events.iter().position(|event| position_of(event) == position)
                    });
                    events.extend(behind);
                }
                Err(trouble) => return self.replay_fails(&key, &events, trouble).await,
            }
        }
    }

    /// An event of the replay stands alone and fails.
    async fn replay_fails(
        &self,
        key: &ParkedKey,
        alone: &[WaitingEvent],
        trouble: Trouble,
    ) -> Result<(), StoreError> {
        let mut trouble = trouble;
        let mut tries = Tries::new(self);
        while tries.again(self, &trouble).await? {
            match self.replay(key, alone, None).await {
                Ok(_) => return Ok(()),
                Err(Trouble::Store(error)) => return Err(error),
                Err(again) => trouble = again,
            }
        }
        let mut verdict = Verdict::after(tries.made);
        loop {
            let fault = trouble.into_fault()?;
            // A stream of a projection whose documents are shared: only the document is parked, and
            // the stream goes on.
            let document_alone = fault.blame != Blame::Stream
                && key.name.scope == KeyScope::Stream
                && self.folder.projection.scope() == Scope::Shared;
            if !document_alone {
                return self.park_again(key, alone, &fault, tries.made).await;
            }
            if !verdict.add(fault) {
                let text = "an event cannot even be passed by its replay".to_owned();
                return Err(StoreError::Internal(text));
            }
            match self.replay(key, alone, Some(&verdict)).await {
                Ok(_) => return Ok(()),
                Err(other) => trouble = other,
            }
        }
    }

    /// Processes vanished whenever they replayed the first of these events: no code of the
    /// projection sees it again before a person asks for it.
    async fn replay_crashes(
        &self,
        key: &ParkedKey,
        events: &[WaitingEvent],
        crashes: i32,
    ) -> Result<(), StoreError> {
        metrics::counter!("adjutant_crashed_entries_total", "group" => self.folder.group.to_string())
            .increment(1);
        let message = format!("{crashes} processes vanished while they replayed it");
        let fault = Fault::lasting(Blame::Stream, "crashed", message);
        self.park_again(key, events, &fault, crashes).await
    }

    async fn park_again(
        &self,
        key: &ParkedKey,
        events: &[WaitingEvent],
        fault: &Fault,
        attempts: i32,
    ) -> Result<(), StoreError> {
        let none = || StoreError::Internal("a replay without events failed".to_owned());
        let event = events.first().ok_or_else(none)?;
        let failure = failure_of(&fault.error, attempts, &event.entry, position_of(event));
        tracing::error!(
            group = %self.folder.group, key = key.name.key, position = %failure.position,
            dead_letter = %failure.dead_letter, error = failure.error.message,
            "the replay failed; the key stays parked"
        );
        self.store.park_again(key, failure).await
    }

    /// One transaction.
    async fn replay(
        &self,
        key: &ParkedKey,
        events: &[WaitingEvent],
        verdict: Option<&Verdict>,
    ) -> Result<ReplayProgress, Trouble> {
        let runs = runs(events);
        let terms = Terms {
            parked: HashSet::new(),
            verdict,
            only: (key.name.scope == KeyScope::Document).then_some(key.name.key.as_str()),
        };
        let touched = self.folder.touched(&runs, &terms)?;
        let fed_by = match self.folder.projection.scope() {
            Scope::Stream => Some(key.failed.partition),
            Scope::Shared => None,
        };
        let step = ReplayStep {
            key: key.clone(),
            view: self.folder.projection.name().to_owned(),
            documents: touched.keys.clone(),
            fed_by,
            finished: events.iter().map(position_of).collect(),
            reached: reached(key, events),
        };
        let (mut failed, mut parked) = (None, Vec::new());
        let fold = |rows: Vec<DocumentRow>| {
            let folded = self.fold_locked(&touched, &rows, &mut failed)?;
            parked.clone_from(&folded.parked);
            Ok(folded)
        };
        let result = self.store.replay(step, Box::new(fold)).await;
        if let Some(trouble) = failed {
            return Err(trouble);
        }
        let progress = result?;
        self.tell_parked(&parked);
        metrics::counter!("adjutant_replayed_events_total", "group" => self.folder.group.to_string())
            .increment(events.len() as u64);
        Ok(progress)
    }

    fn tell_unparked(&self, key: &ParkedKey) {
        let (group, name) = (&self.folder.group, &key.name.key);
        tracing::info!(%group, key = name, dead_letter = %key.dead_letter, "the key has caught up");
        metrics::counter!("adjutant_keys_unparked_total", "group" => group.to_string())
            .increment(1);
    }
}

/// The version at a stream's cursor after these events.
fn reached(key: &ParkedKey, events: &[WaitingEvent]) -> Version {
    match key.name.scope {
        KeyScope::Stream => {
            events.last().map_or(key.cursor_version, |last| last.entry.event.version)
        }
        KeyScope::Document | KeyScope::Instance => key.cursor_version,
    }
}

/// The key as the store has it after these events.
fn go_on(key: &mut ParkedKey, events: &[WaitingEvent]) {
    key.cursor_version = reached(key, events);
    key.cursor = match key.name.scope {
        KeyScope::Stream => events.last().map_or(key.cursor, |last| last.entry.offset.0),
        KeyScope::Document | KeyScope::Instance => key.cursor + events.len() as i64,
    };
}

fn position_of(event: &WaitingEvent) -> Position {
    Position { partition: event.partition, offset: event.entry.offset }
}

/// The events as the folder takes them: partition by partition.
fn runs(events: &[WaitingEvent]) -> Vec<HandlerRun> {
    let mut runs: Vec<HandlerRun> = Vec::new();
    for event in events {
        let entry = Entry::Event(event.entry.clone());
        match runs.last_mut().filter(|run| run.partition == event.partition) {
            Some(run) => run.entries.push(entry),
            None => runs.push(HandlerRun::new(event.partition, Offset(0), vec![entry])),
        }
    }
    runs
}
