//! The heads of the logs, asked for once a second for all loops of a process. A loop compares its
//! place with the head of a second ago, so that the road is not raced. Loops whose road brings
//! nothing follow the newest head instead: while there are any, it is read more often.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    latest,
    message::{Offset, Partition},
    store::{Heads, LogKind, Store},
};

/// How often the heads are read.
const EVERY: Duration = Duration::from_secs(1);
/// How often they are read while a loop follows them.
const WHILE_FOLLOWED: Duration = Duration::from_millis(50);

/// The newest reading, and one that is at least a second old.
#[derive(Debug)]
struct Readings {
    latest: Heads,
    /// When it was taken, and it; it becomes `before` when it is a second old.
    aging: (Instant, Heads),
    before: Heads,
}

impl Readings {
    fn take(&mut self, heads: Heads, now: Instant) {
        if now.duration_since(self.aging.0) >= EVERY {
            let (_, aged) = std::mem::replace(&mut self.aging, (now, heads.clone()));
            self.before = aged;
        }
        self.latest = heads;
    }
}

/// Shares the readings. Cheap to clone.
#[derive(Clone)]
pub struct HeadWatch {
    readings: latest::Receiver<Readings>,
    followers: Arc<Followers>,
    /// Ends with the last handle.
    _task: Arc<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Followers {
    count: AtomicUsize,
    came: Notify,
}

impl HeadWatch {
    /// Starts to read.
    pub fn start(store: Arc<dyn Store>, stop: CancellationToken) -> Self {
        let nothing = Readings {
            latest: Heads::default(),
            aging: (Instant::now(), Heads::default()),
            before: Heads::default(),
        };
        let (sender, readings) = latest::channel(nothing);
        let followers = Arc::new(Followers::default());
        let followed = followers.clone();
        let task = tokio::spawn(async move {
            loop {
                let is_followed = followed.count.load(Ordering::Relaxed) > 0;
                let pause = if is_followed { WHILE_FOLLOWED } else { EVERY };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = followed.came.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                // The time before the question: the answer is at least as old.
                let now = Instant::now();
                match store.heads().await {
                    Ok(heads) => sender.send_modify(|readings| readings.take(heads, now)),
                    Err(error) => tracing::debug!(%error, "the heads of the logs are not known"),
                }
            }
        });
        Self { readings, followers, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// The head as it was at least a second ago (0 if it is not known yet).
    pub fn a_second_ago(&self, log: LogKind, partition: Partition) -> Offset {
        self.readings.read(|readings| readings.before.of(log, partition))
    }

    /// The newest reading.
    pub fn latest(&self, log: LogKind, partition: Partition) -> Offset {
        self.readings.read(|readings| readings.latest.of(log, partition))
    }

    /// Has the heads read more often for as long as the answer lives.
    pub(super) fn follow(&self) -> Following {
        self.followers.count.fetch_add(1, Ordering::Relaxed);
        self.followers.came.notify_one();
        Following { watch: self.clone() }
    }
}

/// Somebody follows the newest heads.
pub(super) struct Following {
    watch: HeadWatch,
}

impl Following {
    /// Waits for a reading that was not seen yet. Safe to cancel.
    pub(super) async fn next(&mut self) {
        if self.watch.readings.changed().await.is_err() {
            // The process stops; whoever waits is told by other means.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.watch.followers.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(offset: i64) -> Heads {
        Heads { commands: vec![Offset(offset)], events: vec![Offset(0)] }
    }

    #[test]
    fn frequent_readings_do_not_make_the_older_one_younger_than_a_second() {
        let start = Instant::now();
        let mut readings =
            Readings { latest: heads(0), aging: (start, heads(0)), before: heads(0) };
        for step in 1..=50 {
            let now = start + Duration::from_millis(100 * step);
            readings.take(heads(i64::try_from(step).unwrap()), now);
            assert_eq!(readings.latest.commands[0], Offset(i64::try_from(step).unwrap()));
            let age = i64::try_from(step).unwrap() - readings.before.commands[0].0;
            assert!((10..=20).contains(&age) || step < 20, "step {step}: {age}");
        }
    }
}
