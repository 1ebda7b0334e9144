//! Combines what the partition loops of a process bring into one transaction: each loop hands over
//! a run and waits; runs that arrive while a transaction is under way share the next one.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    execute::RunEnd,
    message::{Offset, Partition},
    store::{Entry, StoreError},
};

/// How often other tasks that are ready get a turn before a batch is closed.
const YIELDS: usize = 4;

/// Entries of one partition, in order, behind a checkpoint.
#[derive(Clone, Debug)]
pub struct HandlerRun {
    /// The partition.
    pub partition: Partition,
    /// Where the checkpoint is.
    pub checkpoint: Offset,
    /// The entries that follow it.
    pub entries: Vec<Entry>,
    /// It shares its transaction with no other run: its only entry is suspect.
    pub alone: bool,
    /// Processes have vanished this often while they ran its only entry: it is to be given up.
    pub crashed: Option<i32>,
}

impl HandlerRun {
    /// Entries that nothing is wrong with.
    pub fn new(partition: Partition, checkpoint: Offset, entries: Vec<Entry>) -> Self {
        Self { partition, checkpoint, entries, alone: false, crashed: None }
    }
}

/// Finishes the entries of a group.
#[async_trait]
pub trait GroupHandler: Send + Sync + 'static {
    /// Finishes runs of different partitions and moves their checkpoints, or says for each why not.
    /// Answers in the order of `runs`.
    async fn handle(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd>;

    /// A partition's loop starts (again): whatever was remembered of it may be out of date.
    fn partition_starts(&self, partition: Partition);
}

/// Under load, transactions begin no more often than this, so that each carries more: what a
/// transaction and its messages cost besides their entries is paid less often. The loops wait for
/// their answers; what the transaction finished has been announced before.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time from one transaction's start to the next one's where all partitions are owned; who
    /// owns half of them waits twice as long, so that further workers do not make it more
    /// transactions. Zero: none.
    pub interval: Duration,
    /// A transaction of fewer entries is no load: the next one may follow at once.
    pub from_entries: usize,
}

/// Never more than so many times [`Pace::interval`].
const LONGEST: usize = 4;

/// How many partitions this process owns, of how many.
pub(super) struct Share {
    pub(super) owned: AtomicUsize,
    pub(super) partitions: usize,
}

impl Share {
    fn interval(&self, pace: Pace) -> Duration {
        let owned = self.owned.load(Ordering::Relaxed).max(1);
        let times = self.partitions as f64 / owned as f64;
        pace.interval.mul_f64(times.clamp(1.0, LONGEST as f64))
    }
}

/// Where partition loops hand over their runs.
#[derive(Clone)]
pub(super) struct Combiner {
    runs: mpsc::Sender<(HandlerRun, oneshot::Sender<RunEnd>)>,
    /// Ends with the last handle: nobody hears what comes after.
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Combiner {
    /// Starts with a handler; at most about `max_entries` go into one transaction. It ends when
    /// the last handle is dropped.
    pub(super) fn start(
        handler: Arc<dyn GroupHandler>,
        max_entries: usize,
        pace: Pace,
        share: Arc<Share>,
    ) -> Self {
        let (runs, waiting) = mpsc::channel(share.partitions.max(1));
        let task = tokio::spawn(run(handler, max_entries, pace, share, waiting));
        Self { runs, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Hands a run over and waits for its end; `None` if the combiner is gone.
    pub(super) async fn finish(&self, run: HandlerRun) -> Option<RunEnd> {
        let (sender, end) = oneshot::channel();
        self.runs.send((run, sender)).await.ok()?;
        end.await.ok()
    }
}

async fn run(
    handler: Arc<dyn GroupHandler>,
    max_entries: usize,
    pace: Pace,
    share: Arc<Share>,
    mut waiting: mpsc::Receiver<(HandlerRun, oneshot::Sender<RunEnd>)>,
) {
    let mut postponed = None;
    loop {
        let next = match postponed.take() {
            Some(next) => Some(next),
            None => waiting.recv().await,
        };
        let Some((first, answer)) = next else { return };
        let started = Instant::now();
        // Loops whose entries are here already get their turn first: no waiting, only fairness.
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        let mut entries = first.entries.len();
        let alone = first.alone;
        let (mut runs, mut answers) = (vec![first], vec![answer]);
        while entries < max_entries
            && !alone
            && let Ok((run, answer)) = waiting.try_recv()
        {
            if run.alone {
                postponed = Some((run, answer));
                break;
            }
            entries += run.entries.len();
            runs.push(run);
            answers.push(answer);
        }
        let count = runs.len();
        // User code is caught where it is called; a panic that comes this far must still not end
        // the group.
        let ends = AssertUnwindSafe(handler.handle(runs)).catch_unwind().await;
        let ends = ends.unwrap_or_else(|_| {
            let failed = || RunEnd::Failed(StoreError::Internal("the handler panicked".to_owned()));
            (0..count).map(|_| failed()).collect()
        });
        if (pace.from_entries..max_entries).contains(&entries) {
            sleep_until(started + share.interval(pace)).await;
        }
        for (answer, end) in answers.into_iter().zip(ends) {
            // A loop that is gone needs no answer: its successor reads the checkpoint.
            let _ = answer.send(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::{Attempt, CommandEnvelope, CommandId, Metadata, RawJson, Timestamp},
        store::CommandEntry,
    };

    const PACE: Pace = Pace { interval: Duration::from_secs(3600), from_entries: 2 };

    fn share(owned: usize) -> Arc<Share> {
        Arc::new(Share { owned: AtomicUsize::new(owned), partitions: 4 })
    }

    #[test]
    fn the_fewer_partitions_the_longer_the_interval() {
        let times = |owned| share(owned).interval(PACE).as_secs() / PACE.interval.as_secs();
        assert_eq!([4, 2, 1, 0].map(times), [1, 2, 4, 4]);
    }

    fn run(entries: usize) -> HandlerRun {
        let entry = Entry::Command(CommandEntry {
            offset: Offset(1),
            command: CommandEnvelope {
                id: CommandId::generate(),
                command_type: "counter.add".into(),
                stream: "counter/a".parse().unwrap(),
                payload: RawJson::encode(&1).unwrap(),
                metadata: Metadata::default(),
                expected_version: None,
                reply_to: None,
                accepted_at: Timestamp::UNIX_EPOCH,
                attempt: Attempt::FIRST,
                first_offset: None,
                edit: 0,
                not_after: None,
                callback_url: None,
            },
        });
        HandlerRun::new(Partition(0), Offset(0), vec![entry; entries])
    }

    /// Panics when it is called first.
    struct PanicsOnce(AtomicUsize);

    #[async_trait]
    impl GroupHandler for PanicsOnce {
        async fn handle(&self, runs: Vec<HandlerRun>) -> Vec<RunEnd> {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) > 0, "told to");
            runs.iter().map(|_| RunEnd::Done).collect()
        }

        fn partition_starts(&self, _: Partition) {}
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_its_batch_and_of_no_other() {
        let handler = Arc::new(PanicsOnce(AtomicUsize::new(0)));
        let combiner = Combiner::start(handler, 100, PACE, share(4));
        let (first, second) = tokio::join!(combiner.finish(run(0)), combiner.finish(run(0)));
        for end in [first, second] {
            assert!(matches!(end, Some(RunEnd::Failed(StoreError::Internal(_)))), "{end:?}");
        }
        assert!(matches!(combiner.finish(run(0)).await, Some(RunEnd::Done)));
    }

    /// The time is tokio's: an hour passes as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn only_batches_under_load_are_spread() {
        let handler = Arc::new(PanicsOnce(AtomicUsize::new(1)));
        let combiner = Combiner::start(handler, 100, PACE, share(4));
        let began = Instant::now();
        combiner.finish(run(1)).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "one entry is no load");
        combiner.finish(run(2)).await;
        assert!(began.elapsed() >= PACE.interval);
        let began = Instant::now();
        combiner.finish(run(100)).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "a full batch gains nothing by waiting");
    }
}
