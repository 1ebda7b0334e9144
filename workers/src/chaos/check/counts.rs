//! How much was sent, by lane, and what came of it.

use super::{
    super::log::CancelTold,
    stored::{Outcome, Stored},
};
use crate::chaos::{
    clients::{Expected, Lane},
    log::{Entry, Verdict, Wishes},
};

/// Commands that were sent through one lane, or through both at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// All.
    pub sent: u64,
    /// Of those, told accepted.
    pub accepted: u64,
    /// Of those, answered with their outcome.
    pub answered_with_end: u64,
    /// Of those sent, ended.
    pub ended: u64,
}

/// Commands that clients sent and what else they asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Through the queue.
    pub queued: LaneCounts,
    /// Through the immediate lane, some of them through the queue if there is no room.
    pub immediate: LaneCounts,
    /// Through both lanes at once.
    pub both: LaneCounts,
    /// Refused for good.
    pub refused: u64,
    /// Neither accepted nor refused.
    pub unknown: u64,
    /// Commands that could end and were sent.
    pub could_end: u64,
    /// Wishes to call a command off.
    pub wishes: u64,
    /// Of those, told done.
    pub called_off: u64,
    /// Jobs that called all off of a stream.
    pub jobs: u64,
    /// Commands that ended as cancelled because somebody called them off.
    pub cancelled: u64,
    /// Commands that ended as cancelled because their time was over.
    pub expired: u64,
}

impl Counts {
    pub(super) fn of(entries: &[Entry], wishes: &Wishes, stored: &Stored, jobs: usize) -> Self {
        let mut counts =
            Self { wishes: wishes.called_off.len() as u64, jobs: jobs as u64, ..Self::default() };
        let done = wishes.called_off.iter().filter(|wish| wish.told == CancelTold::Cancelled);
        counts.called_off = done.count() as u64;
        for entry in entries {
            counts.add(entry, stored);
        }
        counts
    }

    fn add(&mut self, entry: &Entry, stored: &Stored) {
        let id = entry.command.id;
        let outcome = stored.outcome(id);
        let (accepted, refused, unknown) = match entry.verdict() {
            Verdict::Accepted => (1, 0, 0),
            Verdict::Refused => (0, 1, 0),
            Verdict::Unknown => (0, 0, 1),
        };
        self.refused += refused;
        self.unknown += unknown;
        self.could_end += u64::from(entry.command.kind.expected() != Expected::Refusal);
        if outcome.is_some_and(Outcome::is_cancelled) {
            let code = stored.get(id).and_then(|record| record.says.code.as_deref());
            let of = if code == Some("expired") { &mut self.expired } else { &mut self.cancelled };
            *of += 1;
        }
        let lane = match (entry.command.way.on_both, entry.command.way.lane) {
            (true, _) => &mut self.both,
            (false, Lane::Queued) => &mut self.queued,
            (false, Lane::Immediate | Lane::ImmediateOrQueued) => &mut self.immediate,
        };
        lane.sent += 1;
        lane.accepted += accepted;
        lane.answered_with_end += u64::from(entry.answered_with_end);
        lane.ended += u64::from(outcome.is_some());
    }

    /// Each lane, with its name.
    pub fn lanes(&self) -> [(&'static str, LaneCounts); 3] {
        [("queued", self.queued), ("immediate", self.immediate), ("both", self.both)]
    }

    fn sum(&self, of: impl Fn(LaneCounts) -> u64) -> u64 {
        self.lanes().into_iter().map(|(_, lane)| of(lane)).sum()
    }

    /// Commands that clients sent.
    pub fn sent(&self) -> u64 {
        self.sum(|lane| lane.sent)
    }

    /// Commands that were told accepted.
    pub fn accepted(&self) -> u64 {
        self.sum(|lane| lane.accepted)
    }

    /// Commands that ended.
    pub fn ended(&self) -> u64 {
        self.sum(|lane| lane.ended)
    }

    /// Which share of the commands that could end did so.
    pub fn ended_share(&self) -> f64 {
        if self.could_end == 0 { 0.0 } else { self.ended() as f64 / self.could_end as f64 }
    }
}
