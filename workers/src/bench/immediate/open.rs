//! Many commands that are open at once: dispatched from Rust, each a handle that is held. The
//! event-log locks are held meanwhile, so that every command is accepted before the first one is
//! executed: nothing is more than this number.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use adjutant::{
    immediate::{CommandHandle, DispatchError, Dispatcher, Request},
    ingress::Refusal,
    message::OutcomeStatus,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;

use super::super::{BenchError, figures::Figures, site::Site};
use crate::{
    accounts::{Account, AccountCommand, Deposit},
    database::{self, Source},
    load::{MemoryMeter, Watch, Workload, open_accounts},
};

/// How many accounts the commands go to.
const ACCOUNTS: u32 = 1_000;
/// How many dispatches are in flight at a time.
const DISPATCHING: usize = 2_000;
/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(100);
/// How many looks the table shows.
const LOOKS: usize = 10;

pub(in crate::bench) async fn measure(
    site: &Site<'_>,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    for count in &site.args.open {
        let at_work = site.start_all().await?;
        let workload = Workload::new(site.args.seed, ACCOUNTS);
        open_accounts(&at_work.target, &workload).await?;
        site.drain().await?;
        let dispatcher = at_work.dispatcher().ok_or(BenchError::NoIngress)?.clone();
        figures.begin(&format!("immediate-async-{count}"));
        at_once(site, &dispatcher, &workload, *count, figures).await?;
        site.drain().await?;
        at_work.stop().await;
    }
    Ok(())
}

async fn at_once(
    site: &Site<'_>,
    dispatcher: &Dispatcher,
    workload: &Workload,
    count: u32,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    let url = site.config.require_database()?;
    let mut watch = Watch::new(&Source::postgres(url), site.patience());
    let before = watch.look().await.map_err(crate::load::LoadError::from)?;
    let looks = Looks::start(dispatcher.clone());
    let gate = Gate::close(url).await?;
    let started = Instant::now();
    let mut requests = stream::iter(0..count)
        .map(|n| dispatch(dispatcher, workload.account_id(n % ACCOUNTS)))
        .buffer_unordered(DISPATCHING);
    let mut handles = Vec::with_capacity(count as usize);
    while let Some(handle) = requests.try_next().await? {
        handles.push(handle);
        looks.open.fetch_add(1, Ordering::Relaxed);
    }
    drop(requests);
    let accepting = started.elapsed();
    looks.look();
    let let_through = Instant::now();
    gate.open().await?;
    let mut succeeded = 0_u32;
    for handle in handles {
        let ended = tokio::time::timeout(site.patience(), handle.raw_outcome()).await;
        let ended = ended.map_err(|_| BenchError::Dispatched("it never ended".into()))?;
        let outcome = ended.map_err(|error| BenchError::Dispatched(error.to_string()))?;
        succeeded += u32::from(outcome.status == OutcomeStatus::Succeeded);
        looks.open.fetch_sub(1, Ordering::Relaxed);
    }
    let executed = let_through.elapsed();
    looks.look();
    let after = watch.look().await.map_err(crate::load::LoadError::from)?;
    let seen = looks.take();
    let most = |what: fn(&Look) -> u64| seen.iter().map(what).max().unwrap_or_default();
    let start = seen.first().map_or(0, |look| look.memory);
    let peak = most(|look| look.memory);
    let each = f64::from(count);
    figures.add("all_succeeded", f64::from(u8::from(succeeded == count)), "", "1: yes");
    figures.add("peak_open", most(|look| look.open) as f64, "", "");
    figures.add("peak_in_flight", most(|look| look.in_flight) as f64, "", "");
    let queued = (after.commands - before.commands) as f64;
    figures.add("commands_published", queued, "", "0");
    figures.add("accepted_per_second", each / accepting.as_secs_f64(), "/s", "");
    figures.add("executed_per_second", each / executed.as_secs_f64(), "/s", "");
    figures.add("rss_mb_start", mib(start), "MiB", "");
    figures.add("rss_mb_peak", mib(peak), "MiB", if count >= 100_000 { "≤ 200" } else { "" });
    figures.add("rss_mb_end", mib(seen.last().map_or(0, |look| look.memory)), "MiB", "");
    let grown = peak.saturating_sub(start) as f64 / most(|look| look.open).max(1) as f64;
    figures.add("bytes_each_at_peak", grown, "B", "< 1,500");
    figures.show(["seconds", "open", "in flight", "RSS MiB"], some_of(&seen));
    Ok(())
}

/// Dispatches one; as often as it takes while there is no room to accept it.
async fn dispatch(
    dispatcher: &Dispatcher,
    account: String,
) -> Result<CommandHandle<Account>, BenchError> {
    let id = adjutant::message::CommandId::generate();
    loop {
        let deposit = AccountCommand::Deposit(Deposit { amount: 1 });
        let request = Request::<Account>::new(account.clone(), deposit).id(id);
        match dispatcher.dispatch(request).await {
            Err(DispatchError::Refused(Refusal::Overloaded)) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            done => return done.map_err(|error| BenchError::Dispatched(error.to_string())),
        }
    }
}

/// The event-log locks of all partitions: who holds them lets no command end.
struct Gate(PgConnection);

impl Gate {
    async fn close(url: &str) -> Result<Self, BenchError> {
        let mut connection = database::connect(url).await?;
        sqlx::query("SET idle_in_transaction_session_timeout = 0").execute(&mut connection).await?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        sqlx::query(include_str!("../queries/event_log_locks.sql"))
            .execute(&mut connection)
            .await?;
        Ok(Self(connection))
    }

    async fn open(mut self) -> Result<(), BenchError> {
        sqlx::query("ROLLBACK").execute(&mut self.0).await?;
        Ok(self.0.close().await?)
    }
}

/// How things were at a moment.
#[derive(Clone, Copy)]
struct Look {
    at: Duration,
    /// Handles that are held.
    open: u64,
    /// Commands in the room.
    in_flight: u64,
    /// Resident memory in bytes.
    memory: u64,
}

/// Looks again and again.
struct Looks {
    open: Arc<AtomicU64>,
    seen: Arc<Mutex<Vec<Look>>>,
    look: Box<dyn Fn() + Send + Sync>,
    task: JoinHandle<()>,
}

impl Looks {
    fn start(dispatcher: Dispatcher) -> Self {
        let (open, seen) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<Look>>>::default());
        let began = Instant::now();
        let (of, into) = (open.clone(), seen.clone());
        let look = Arc::new(move || {
            let stats = dispatcher.stats();
            let now = Look {
                at: began.elapsed(),
                open: of.load(Ordering::Relaxed),
                in_flight: (stats.running + stats.waiting) as u64,
                memory: MemoryMeter::now(),
            };
            into.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        });
        look();
        let again = look.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                again();
            }
        });
        Self { open, seen, look: Box::new(move || look()), task }
    }

    fn look(&self) {
        (self.look)();
    }

    fn take(self) -> Vec<Look> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first, the last, the one with the most memory, and some between.
fn some_of(seen: &[Look]) -> Vec<[String; 4]> {
    let step = seen.len().div_ceil(LOOKS).max(1);
    let most = (0..seen.len()).max_by_key(|n| seen[*n].memory);
    let shown = (0..seen.len())
        .filter(|n| n % step == 0 || n + 1 == seen.len() || Some(*n) == most)
        .map(|n| (n, seen[n]));
    shown
        .map(|(n, look)| {
            let peak = if Some(n) == most { " (peak)" } else { "" };
            [
                format!("{:.1}", look.at.as_secs_f64()),
                look.open.to_string(),
                look.in_flight.to_string(),
                format!("{:.1}{peak}", mib(look.memory)),
            ]
        })
        .collect()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
