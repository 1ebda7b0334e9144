//! CPU time and memory of everything that takes part: the service's processes, PostgreSQL and
//! RabbitMQ, as far as they run on this machine.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::task::JoinHandle;

use super::proc_fs;
use crate::database::{self, Source};

/// CPU seconds by part; `null` where a part runs elsewhere or may not be looked at.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CpuSeconds {
    /// This process, and with `--api` the service's processes on this machine.
    pub bank: f64,
    /// PostgreSQL: its main process and all back-ends.
    pub postgresql: Option<f64>,
    /// RabbitMQ.
    pub rabbitmq: Option<f64>,
}

impl CpuSeconds {
    /// All parts that are known.
    pub fn all(&self) -> f64 {
        self.bank + self.postgresql.unwrap_or_default() + self.rabbitmq.unwrap_or_default()
    }

    fn since(&self, before: &Self) -> Self {
        let since = |now: Option<f64>, before: Option<f64>| Some((now? - before?).max(0.0));
        Self {
            bank: (self.bank - before.bank).max(0.0),
            postgresql: since(self.postgresql, before.postgresql),
            rabbitmq: since(self.rabbitmq, before.rabbitmq),
        }
    }
}

/// Measures CPU time from its start on.
#[derive(Debug)]
pub struct CpuMeter {
    postmaster: Option<u32>,
    broker: Option<u32>,
    /// The most that each process of the service had used; processes may end before we do.
    service: HashMap<u32, (f64, f64)>,
    /// The most memory that any of them had, in bytes.
    largest: u64,
    before: CpuSeconds,
}

impl CpuMeter {
    /// Finds the parts and starts.
    pub async fn start(database: &Source, amqp_url: &str) -> Self {
        let broker = port_here(amqp_url, 5672).and_then(proc_fs::listener_on);
        let postmaster = match database {
            Source::Postgres(url) => postmaster(url.expose()).await,
            Source::Sqlite(_) => None, // It runs in the service's own threads.
        };
        let mut meter = Self {
            postmaster,
            broker,
            service: HashMap::new(),
            largest: 0,
            before: CpuSeconds::default(),
        };
        meter.before = meter.now();
        meter
    }

    /// Takes processes of the service into account; called again and again, so that those that end
    /// are not forgotten.
    pub fn see(&mut self, processes: &[u32]) {
        for pid in processes.iter().filter(|pid| **pid != std::process::id()) {
            let Some(stat) = proc_fs::stat(*pid).filter(|stat| stat.command.starts_with("bank"))
            else {
                continue;
            };
            let (_, most) = self.service.entry(*pid).or_insert((stat.own, stat.own));
            *most = most.max(stat.own);
            self.largest = self.largest.max(proc_fs::resident_bytes(*pid).unwrap_or_default());
        }
    }

    /// The most memory that any process of the service had, in MiB; 0 if none was seen.
    pub fn largest_process_mb(&self) -> f64 {
        self.largest as f64 / 1_048_576.0
    }

    /// What was used since the start.
    pub fn used(&self) -> CpuSeconds {
        let mut used = self.now().since(&self.before);
        used.bank += self.service.values().map(|(first, most)| most - first).sum::<f64>();
        used
    }

    fn now(&self) -> CpuSeconds {
        let own = |pid: u32| proc_fs::stat(pid).map(|stat| stat.own + stat.ended_children);
        CpuSeconds {
            bank: own(std::process::id()).unwrap_or_default(),
            postgresql: self.postmaster.and_then(cluster),
            rabbitmq: self.broker.and_then(own),
        }
    }
}

/// The CPU time of a PostgreSQL: back-ends that ended count in their parent.
fn cluster(postmaster: u32) -> Option<f64> {
    let main = proc_fs::stat(postmaster)?;
    let children = proc_fs::all().into_iter().filter_map(proc_fs::stat);
    let backends: f64 =
        children.filter(|stat| stat.parent == postmaster).map(|stat| stat.own).sum();
    Some(main.own + main.ended_children + backends)
}

/// The main process of the PostgreSQL behind a URL, if it runs here: the parent of our back-end.
async fn postmaster(url: &str) -> Option<u32> {
    let mut connection = database::connect(url).await.ok()?;
    let backend: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.ok()?;
    let stat = proc_fs::stat(u32::try_from(backend).ok()?)?;
    stat.command.starts_with("postgres").then_some(stat.parent)
}

/// The port of a URL, if it is one of this machine.
fn port_here(url: &str, default: u16) -> Option<u16> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let is_here = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    is_here.then(|| port.parse().unwrap_or(default))
}

/// What one process uses, as far as this machine says.
#[derive(Debug)]
pub struct ProcessMeter {
    pid: u32,
    cpu_before: f64,
}

impl ProcessMeter {
    /// Starts to measure.
    pub fn start(pid: u32) -> Self {
        let mut meter = Self { pid, cpu_before: 0.0 };
        meter.cpu_before = meter.cpu_seconds();
        meter
    }

    /// CPU seconds since the start.
    pub fn cpu_seconds(&self) -> f64 {
        proc_fs::stat(self.pid).map_or(0.0, |stat| stat.own) - self.cpu_before
    }

    /// Resident memory now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        proc_fs::resident_bytes(self.pid).unwrap_or_default()
    }
}

/// Samples the memory of this process.
#[derive(Debug)]
pub struct MemoryMeter {
    peak: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl MemoryMeter {
    /// Starts sampling, four times a second.
    pub fn start() -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let seen = peak.clone();
        let task = tokio::spawn(async move {
            loop {
                seen.fetch_max(Self::now(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        Self { peak, task }
    }

    /// Resident memory now, in bytes.
    pub fn now() -> u64 {
        proc_fs::resident_bytes(std::process::id()).unwrap_or_default()
    }

    /// The most so far, in MiB.
    pub fn peak_mb(&self) -> f64 {
        self.peak.load(Ordering::Relaxed).max(Self::now()) as f64 / 1_048_576.0
    }
}

impl Drop for MemoryMeter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_counts_only_if_it_is_of_this_machine() {
        assert_eq!(port_here("amqp://guest:guest@127.0.0.1:5673/%2f", 5672), Some(5673));
        assert_eq!(port_here("amqp://localhost", 5672), Some(5672));
        assert_eq!(port_here("amqp://mq.example:5672", 5672), None);
    }
}
