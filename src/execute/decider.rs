//! Where user code decides: on threads of its own, watched. A handler cannot be interrupted; one
//! that does not come back within its time limit is known by what it was at, and its thread is
//! given up. How many may hang is bounded.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{chance, message::CommandId};

/// When to look again at a thread that is between two decisions.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A handler is looked at this often within its time limit. Only time that the watcher waited
/// counts, as long as it meant to wait: a process that was stopped, or a machine that stood still,
/// costs a handler one look at most, however long that was.
const LOOKS: u32 = 8;

/// What a thread is at.
#[derive(Default)]
pub(super) struct Progress {
    current: Mutex<Option<Current>>,
}

#[derive(Clone, Copy)]
struct Current {
    command: CommandId,
    limit: Duration,
    /// How long it has been watched; `None`: not looked at yet.
    watched: Option<Duration>,
}

impl Progress {
    /// A decision begins.
    pub(super) fn begin(&self, command: CommandId, limit: Duration) {
        *self.lock() = Some(Current { command, limit, watched: None });
    }

    /// It came back.
    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    /// Looks, after a wait of this length: the command whose decision is overdue, or how long to
    /// wait until the next look.
    fn look(&self, waited: Duration) -> Result<CommandId, Duration> {
        let mut current = self.lock();
        let Some(current) = current.as_mut() else { return Err(LOOK_AGAIN) };
        // One that was not there at the last look began at some time since.
        let watched = current.watched.map_or(Duration::ZERO, |watched| watched + waited);
        current.watched = Some(watched);
        match current.limit.checked_sub(watched) {
            Some(left) if !left.is_zero() => {
                Err(left.min((current.limit / LOOKS).max(Duration::from_millis(1))))
            }
            _ => Ok(current.command),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecided {
    /// This command's handler did not come back.
    #[error("the handler of command {0} did not come back in time")]
    TimedOut(CommandId),
    /// Too many handlers hang.
    #[error("{0} handlers hang and were given up; nothing more is executed until some come back")]
    TooManyHang(usize),
    /// A bug: the code around the handlers panicked, or no thread can be made.
    #[error("deciding broke off: {0}")]
    Broken(String),
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that decide.
pub(super) struct Decider {
    idle: Mutex<Vec<mpsc::Sender<Job>>>,
    hanging: Arc<AtomicUsize>,
    most_hanging: usize,
}

impl Decider {
    pub(super) fn new(most_hanging: usize) -> Self {
        Self { idle: Mutex::default(), hanging: Arc::default(), most_hanging }
    }

    /// Does work on a watched thread. Under a simulation it is done here: there is one thread, and
    /// no time limit.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<T, Undecided> {
        if chance::is_seeded() {
            return Ok(work(&Progress::default()));
        }
        let (sender, mut answer) = oneshot::channel();
        // If nobody listens any more, it was given up.
        let job = self.start(work, |done| drop(sender.send(done)))?;
        let mut wait = LOOK_AGAIN;
        loop {
            match tokio::time::timeout(wait, &mut answer).await {
                Ok(Ok(done)) => return Ok(self.done(job, done)),
                Ok(Err(_)) => return Err(panicked()),
                Err(_) => match job.progress.look(wait) {
                    Ok(command) => return Err(self.give_up(&job, command)),
                    Err(left) => wait = left,
                },
            }
        }
    }

    /// The same where nothing can be awaited: it blocks for at most the time limit.
    pub(super) fn run_here<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<T, Undecided> {
        if chance::is_seeded() {
            return Ok(work(&Progress::default()));
        }
        let (sender, answer) = mpsc::channel();
        let job = self.start(work, move |done| drop(sender.send(done)))?;
        let mut wait = LOOK_AGAIN;
        loop {
            match answer.recv_timeout(wait) {
                Ok(done) => return Ok(self.done(job, done)),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(panicked()),
                Err(mpsc::RecvTimeoutError::Timeout) => match job.progress.look(wait) {
                    Ok(command) => return Err(self.give_up(&job, command)),
                    Err(left) => wait = left,
                },
            }
        }
    }

    fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
        answer: impl FnOnce(T) + Send + 'static,
    ) -> Result<Running, Undecided> {
        let hanging = self.hanging.load(Ordering::Relaxed);
        if hanging >= self.most_hanging.max(1) {
            return Err(Undecided::TooManyHang(hanging));
        }
        let progress = Arc::new(Progress::default());
        let end = Arc::new(AtomicU8::new(RUNS));
        let job: Job = {
            let progress = progress.clone();
            let comes_back = ComesBack { end: end.clone(), hanging: self.hanging.clone() };
            Box::new(move || {
                let done = work(&progress);
                drop(comes_back);
                answer(done);
            })
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let thread = match idle {
            Some(thread) => thread,
            None => new_thread().map_err(|error| Undecided::Broken(error.to_string()))?,
        };
        let gone = |_| Undecided::Broken("its thread has ended".to_owned());
        thread.send(job).map_err(gone)?;
        Ok(Running { thread, progress, end })
    }

    fn done<T>(&self, job: Running, done: T) -> T {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(job.thread);
        done
    }

    /// The thread ends when its handler comes back: nobody sends it anything any more.
    fn give_up(&self, job: &Running, command: CommandId) -> Undecided {
        let hanging = self.hanging.fetch_add(1, Ordering::Relaxed) + 1;
        if job.end.swap(GIVEN_UP, Ordering::AcqRel) == CAME_BACK {
            self.hanging.fetch_sub(1, Ordering::Relaxed);
        } else {
            metrics::counter!("adjutant_handlers_given_up_total").increment(1);
            metrics::gauge!("adjutant_handlers_hanging").set(hanging as f64);
            tracing::error!(%command, hanging, "a handler does not come back; its thread is given up");
        }
        Undecided::TimedOut(command)
    }
}

/// A job on its thread.
struct Running {
    thread: mpsc::Sender<Job>,
    progress: Arc<Progress>,
    end: Arc<AtomicU8>,
}

const RUNS: u8 = 0;
const GIVEN_UP: u8 = 1;
const CAME_BACK: u8 = 2;

/// Counts a handler that comes back after all.
struct ComesBack {
    end: Arc<AtomicU8>,
    hanging: Arc<AtomicUsize>,
}

impl Drop for ComesBack {
    fn drop(&mut self) {
        if self.end.swap(CAME_BACK, Ordering::AcqRel) == GIVEN_UP {
            let hanging = self.hanging.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
            metrics::gauge!("adjutant_handlers_hanging").set(hanging as f64);
        }
    }
}

/// One that does what it is sent, until nobody can send any more.
fn new_thread() -> std::io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let work = move || {
        for job in jobs {
            job();
        }
    };
    std::thread::Builder::new().name("adjutant-decide".to_owned()).spawn(work)?;
    Ok(sender)
}

fn panicked() -> Undecided {
    Undecided::Broken("it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(5);

    /// A handler that hangs until it is let go.
    fn hangs(command: CommandId) -> (mpsc::Sender<()>, impl FnOnce(&Progress) + Send + 'static) {
        let (let_go, stuck) = mpsc::channel::<()>();
        let work = move |progress: &Progress| {
            progress.begin(command, LIMIT);
            let _ = stuck.recv();
            progress.end();
        };
        (let_go, work)
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_handler_that_hangs_is_named_and_the_next_one_has_another_thread() {
        let decider = Decider::new(8);
        let guilty = CommandId::generate();
        let (let_go, work) = hangs(guilty);
        let undecided = decider.run(work).await;
        assert!(matches!(undecided, Err(Undecided::TimedOut(id)) if id == guilty), "{undecided:?}");
        assert_eq!(decider.run(|_| 7).await.unwrap(), 7);
        assert_eq!(decider.hanging.load(Ordering::Relaxed), 1);
        drop(let_go);
        until(|| decider.hanging.load(Ordering::Relaxed) == 0).await;
    }

    #[tokio::test]
    async fn no_more_than_so_many_may_hang() {
        let decider = Decider::new(2);
        let mut hanging = Vec::new();
        for _ in 0..2 {
            let (let_go, work) = hangs(CommandId::generate());
            assert!(matches!(decider.run_here(work), Err(Undecided::TimedOut(_))));
            hanging.push(let_go);
        }
        assert!(matches!(decider.run(|_| ()).await, Err(Undecided::TooManyHang(2))));
        assert!(matches!(decider.run_here(|_| ()), Err(Undecided::TooManyHang(2))));
        hanging.pop();
        until(|| decider.hanging.load(Ordering::Relaxed) == 1).await;
        assert!(decider.run(|_| ()).await.is_ok(), "one came back");
    }

    #[tokio::test]
    async fn a_panic_around_the_handlers_is_an_error() {
        let decider = Decider::new(2);
        let undecided = decider.run(|_| panic!("told to")).await;
        assert!(matches!(undecided, Err(Undecided::Broken(_))), "{undecided:?}");
        assert_eq!(decider.run_here(|_| 7).unwrap(), 7);
    }

    #[test]
    fn only_time_that_was_watched_counts() {
        let progress = Progress::default();
        let slow = CommandId::generate();
        let limit = Duration::from_secs(8);
        assert_eq!(progress.look(LOOK_AGAIN), Err(LOOK_AGAIN), "nothing is under way");
        progress.begin(slow, limit);
        let step = limit / LOOKS;
        assert_eq!(progress.look(Duration::from_secs(100)), Err(step), "it began since");
        for _ in 1..LOOKS {
            assert_eq!(progress.look(step), Err(step));
        }
        assert_eq!(progress.look(step), Ok(slow));
        progress.begin(CommandId::generate(), limit);
        assert_eq!(progress.look(step), Err(step), "the next one has all its time");
        progress.end();
        assert_eq!(progress.look(step), Err(LOOK_AGAIN));
        progress.begin(slow, Duration::ZERO);
        assert_eq!(progress.look(LOOK_AGAIN), Ok(slow));
    }

    /// What SIGSTOP or a machine that stands still does: the watcher wakes up long after the limit,
    /// and the handler is still at it.
    #[tokio::test]
    async fn a_process_that_stood_still_has_not_used_up_its_handlers_time() {
        let decider = Decider::new(2);
        let limit = Duration::from_millis(400);
        let (let_go, stuck) = mpsc::channel::<()>();
        let decided = decider.run(move |progress| {
            progress.begin(CommandId::generate(), limit);
            let _ = stuck.recv();
            progress.end();
            7
        });
        let stand_still = async {
            // It was looked at and has most of its time left.
            tokio::time::sleep(4 * LOOK_AGAIN).await;
            std::thread::sleep(2 * limit);
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(let_go);
        };
        let (decided, ()) = tokio::join!(decided, stand_still);
        assert_eq!(decided.unwrap(), 7);
    }
}
