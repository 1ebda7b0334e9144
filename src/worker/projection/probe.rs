//! A group whose breaker is open: one run at a time is let through, and what comes of it decides.
//! Something of it can be applied: everything goes on. The event in front fails for the old reason:
//! it may be the only one that does, and then its key is to be parked, so the other streams behind
//! it are looked at before the group goes on pausing.

use std::{collections::HashSet, time::Duration};

use super::{
    HandlerRun, ProjectionHandler,
    fold::Terms,
    trouble::{Blame, Trouble},
};
use crate::{
    domain::Scope,
    execute::{RunEnd, breaker::Admission},
    message::{Offset, StreamId},
    store::{Entry, EventEntry, StoreError},
};

/// At how many streams behind a failed probe it is looked.
const MOST_LOOKS: usize = 32;

impl ProjectionHandler {
    /// Applies what the breaker lets through; the rest comes again later.
    pub(super) async fn let_through(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd> {
        let mut ends: Vec<Option<RunEnd>> = runs.iter().map(|_| None).collect();
        let (mut places, mut waiting): (Vec<usize>, Vec<HandlerRun>) =
            runs.into_iter().enumerate().unzip();
        while !waiting.is_empty() {
            let taken = match self.breaker.ask() {
                Admission::Go => {
                    let ended = self.apply_all(std::mem::take(&mut waiting)).await;
                    std::mem::take(&mut places).into_iter().zip(ended).collect()
                }
                Admission::Probe => {
                    let chosen = self.breaker.choose_probe(&waiting);
                    let (place, run) = (places.remove(chosen), waiting.remove(chosen));
                    let ended = self.apply_alone(run).await;
                    self.breaker.probe_ended();
                    vec![(place, ended)]
                }
                Admission::Wait(pause) => {
                    let rest = std::mem::take(&mut waiting).into_iter().map(|run| run.entries);
                    let ended = rest.map(|rest| RunEnd::Suspended { rest, pause });
                    std::mem::take(&mut places).into_iter().zip(ended).collect::<Vec<_>>()
                }
            };
            for (place, end) in taken {
                if let Some(it) = ends.get_mut(place) {
                    *it = Some(end);
                }
            }
        }
        let lost = || RunEnd::Failed(StoreError::Internal("a run was forgotten".to_owned()));
        ends.into_iter().map(|end| end.unwrap_or_else(lost)).collect()
    }

    /// The event in front of a probe stands alone and fails. `None`: the group goes on, and the
    /// event is treated like any other; else it pauses for so long.
    pub(super) async fn probe_fails(
        &self,
        run: &HandlerRun,
        behind: &[Entry],
        trouble: &Trouble,
    ) -> Result<Option<Duration>, StoreError> {
        let Some(fault) = trouble.fault() else { return Ok(None) };
        if !self.breaker.is_open_for(&fault.error) || self.another_goes(run, behind).await? {
            self.breaker.probe_succeeded();
            return Ok(None);
        }
        self.breaker.failed(&self.key_of(run, trouble), &fault.error);
        Ok(self.breaker.pause_of_the_probed())
    }

    /// Takes down that a key cannot go on. `None`: it is to be parked; else the group pauses.
    pub(super) fn count_failure(&self, run: &HandlerRun, trouble: &Trouble) -> Option<Duration> {
        let fault = trouble.fault()?;
        self.breaker.failed(&self.key_of(run, trouble), &fault.error);
        self.breaker.pause()
    }

    /// The key that would be parked for the only event of a run.
    fn key_of(&self, run: &HandlerRun, trouble: &Trouble) -> String {
        let shared = self.folder.projection.scope() == Scope::Shared;
        match trouble.fault().map(|fault| &fault.blame) {
            Some(Blame::Document(key)) if shared => key.clone(),
            _ => {
                let stream = events(&run.entries).next().map(|entry| &entry.event.stream);
                stream.map(StreamId::to_string).unwrap_or_default()
            }
        }
    }

    /// Whether the first event of any other stream could be applied: code that fails at every stream
    /// fails at these. Nothing is written. The furthest first: neighbours have much in common.
    async fn another_goes(&self, run: &HandlerRun, behind: &[Entry]) -> Result<bool, StoreError> {
        let mut seen: HashSet<&StreamId> =
            events(&run.entries).map(|entry| &entry.event.stream).collect();
        let firsts: Vec<&EventEntry> =
            events(behind).filter(|entry| seen.insert(&entry.event.stream)).collect();
        let mut looks = 0;
        for entry in firsts.into_iter().rev() {
            if looks == MOST_LOOKS || self.stop.is_cancelled() {
                break;
            }
            let alone = HandlerRun::new(
                run.partition,
                Offset(entry.offset.0 - 1),
                vec![Entry::Event(entry.clone())],
            );
            match self.would_go(alone).await? {
                Some(true) => return Ok(true),
                Some(false) => looks += 1,
                None => {}
            }
        }
        Ok(false)
    }

    /// Whether the event of this run can be applied; `None`: it touches nothing, or waits.
    async fn would_go(&self, run: HandlerRun) -> Result<Option<bool>, StoreError> {
        let runs = [run];
        let parked = self.parked.among(self.store.as_ref(), self.group(), &runs).await?;
        let terms = Terms { parked, ..Terms::default() };
        let Ok(touched) = self.folder.touched(&runs, &terms) else { return Ok(Some(false)) };
        if touched.keys.is_empty() {
            return Ok(None);
        }
        let view = self.folder.projection.name();
        let rows = self.store.load_documents(view, &touched.keys).await?;
        let Ok(folded) = self.folder.fold(&touched, rows.iter()) else { return Ok(Some(false)) };
        let applied = touched.streams_without(&folded.references).next();
        Ok(applied.map(|_| true))
    }
}

fn events(entries: &[Entry]) -> impl Iterator<Item = &EventEntry> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Event(entry) => Some(entry),
        Entry::Command(_) => None,
    })
}
