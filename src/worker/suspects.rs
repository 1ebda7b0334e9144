//! After a crash: what an owner was at that vanished without releasing its partition is *suspect*.
//! Most owners vanish by no fault of an entry, so the first time the window behind a checkpoint runs
//! as always, and is counted before. If an owner vanishes there again, its entries run one at a time,
//! each with a crash count that is committed before, so that only the guilty one is given up, and its
//! neighbours run.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, MutexGuard};

use crate::message::Offset;

/// How long a loop that starts waits for the last owner, which may only be about to end. After that
/// it takes the partition, and suspects.
pub(super) const HAND_OVER_WITHIN: Duration = Duration::from_millis(300);
/// How often it looks meanwhile.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A crash takes the whole process: of all its groups and partitions, one suspect runs at a time.
#[derive(Clone, Default)]
pub struct OneSuspect(Arc<Mutex<()>>);

impl OneSuspect {
    pub(super) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.0.lock().await
    }
}

/// Which entries of a partition are suspect.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// Up to here.
    until: Option<Offset>,
    /// Whether they run one at a time.
    one_by_one: bool,
    /// The entry that was counted last, and how often a process vanished at it before. A try that
    /// merely failed is not counted again.
    counted: Option<(Offset, i32)>,
}

impl Suspicion {
    /// Behind a checkpoint, so many entries, as far as the log went.
    pub(super) fn behind(checkpoint: Offset, entries: usize, head: Offset) -> Self {
        let until = checkpoint.plus(entries).min(head);
        Self { until: (until > checkpoint).then_some(until), one_by_one: true, counted: None }
    }

    /// The same entries, run as always.
    pub(super) fn together(self) -> Self {
        Self { one_by_one: false, ..self }
    }

    /// Under which offset all of it is counted: no entry has it.
    pub(super) const WINDOW: Offset = Offset(0);

    /// Whether there is anything suspect.
    pub(super) fn is_empty(&self) -> bool {
        self.until.is_none()
    }

    /// Whether this entry runs alone.
    pub(super) fn covers(&self, offset: Offset) -> bool {
        self.one_by_one && self.until.is_some_and(|until| offset <= until)
    }

    /// How often a process vanished at this entry, if it was counted already.
    pub(super) fn counted(&self, offset: Offset) -> Option<i32> {
        self.counted.filter(|(at, _)| *at == offset).map(|(_, crashes)| crashes)
    }

    pub(super) fn count(&mut self, offset: Offset, crashes: i32) {
        self.counted = Some((offset, crashes));
    }

    /// Whether all of it is finished, now that this entry is next. Says so once.
    pub(super) fn is_over(&mut self, next: Offset) -> bool {
        let over = self.until.is_some_and(|until| next > until);
        if over {
            *self = Self::default();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_ends_with_the_largest_batch_or_the_log() {
        let window = |head| Suspicion::behind(Offset(10), 5, Offset(head));
        assert!(window(100).covers(Offset(15)) && !window(100).covers(Offset(16)));
        assert!(window(12).covers(Offset(12)) && !window(12).covers(Offset(13)));
        assert!(!window(10).covers(Offset(11)), "nothing was under way");
        assert!(window(10).is_empty() && !window(12).is_empty());
        let mut together = window(12).together();
        assert!(!together.covers(Offset(11)) && together.is_over(Offset(13)));
    }

    #[test]
    fn it_is_over_once() {
        let mut suspicion = Suspicion::behind(Offset(10), 5, Offset(12));
        assert!(!suspicion.is_over(Offset(12)));
        suspicion.count(Offset(12), 2);
        assert_eq!((suspicion.counted(Offset(12)), suspicion.counted(Offset(11))), (Some(2), None));
        assert!(suspicion.is_over(Offset(13)) && !suspicion.is_over(Offset(13)));
        assert!(!suspicion.covers(Offset(1)) && suspicion.counted(Offset(12)).is_none());
    }
}
