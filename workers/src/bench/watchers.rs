//! Clients that wait for their commands, at an ingress in a process of its own: what each costs
//! while nothing happens, and how soon all have heard when their commands end elsewhere.

use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use adjutant::{message::Timestamp, store::Role};
use futures_util::{StreamExt as _, stream};
use time::format_description::well_known::Rfc3339;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
};
use uuid::Uuid;

use super::{BenchError, figures::Figures, site::Site};
use crate::{
    config::{Config, Roles},
    database::Source,
    load::{
        Connection, CpuMeter, Latency, ProcessMeter, Target, WaitFor, Watch, Workload, accept_all,
    },
    run::start_roles,
};

/// How many clients connect at a time.
const CONNECTING: usize = 64;
/// The longest that the process gets to come to rest before it is measured.
const REST: Duration = Duration::from_secs(5);
/// The longest that nothing happens: long-polls last 60 seconds, connecting included.
const IDLE: Duration = Duration::from_secs(20);

/// How a client waits.
#[derive(Clone, Copy)]
enum Way {
    Events,
    LongPoll,
}

struct Keys {
    memory: &'static str,
    process_cpu: &'static str,
    database_cpu: &'static str,
    heard_p50: &'static str,
    heard_max: &'static str,
    all_heard: &'static str,
}

impl Way {
    fn path(self, id: Uuid) -> String {
        match self {
            Self::Events => format!("/v1/commands/{id}/watch"),
            Self::LongPoll => format!("/v1/commands/{id}?wait=60"),
        }
    }

    fn keys(self) -> Keys {
        match self {
            Self::Events => Keys {
                memory: "events_kib_a_client",
                process_cpu: "events_idle_percent_of_a_core",
                database_cpu: "events_idle_percent_of_a_core_postgresql",
                heard_p50: "events_end_to_heard_ms_p50",
                heard_max: "events_end_to_heard_ms_max",
                all_heard: "events_seconds_until_all_had_heard",
            },
            Self::LongPoll => Keys {
                memory: "long_poll_kib_a_client",
                process_cpu: "long_poll_idle_percent_of_a_core",
                database_cpu: "long_poll_idle_percent_of_a_core_postgresql",
                heard_p50: "long_poll_end_to_heard_ms_p50",
                heard_max: "long_poll_end_to_heard_ms_max",
                all_heard: "long_poll_seconds_until_all_had_heard",
            },
        }
    }
}

pub(super) async fn measure(site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    figures.add("clients", f64::from(site.args.clients), "", "10,000");
    for way in [Way::Events, Way::LongPoll] {
        wait(way, site, figures).await?;
    }
    Ok(())
}

async fn wait(way: Way, site: &Site<'_>, figures: &mut Figures) -> Result<(), BenchError> {
    let seconds = Duration::from_secs(site.args.seconds);
    let (rest, idle) = (REST.min(seconds), IDLE.min(seconds));
    // In another process: what accepting leaves behind would hide what waiting takes.
    let accepting = Ingress::start(site).await?;
    let workload = Workload::new(site.args.seed, site.args.clients);
    let ids = accept_all(&accepting.target, &workload).await?;
    accepting.stop().await?;
    let ingress = Ingress::start(site).await?;
    tokio::time::sleep(rest).await;
    let before = ingress.meter().resident_bytes();
    let address = ingress.address;
    let connecting = stream::iter(ids).map(|id| Client::connect(way, address, id));
    let mut clients = Vec::new();
    let mut connecting = connecting.buffer_unordered(CONNECTING);
    while let Some(client) = connecting.next().await {
        clients.push(client?);
    }
    tokio::time::sleep(rest).await;

    let process = ingress.meter();
    let growth = process.resident_bytes().saturating_sub(before) as f64 / 1_024.0;
    let database = Source::postgres(site.config.require_database()?);
    let services = CpuMeter::start(&database, site.config.broker.url.expose()).await;
    tokio::time::sleep(idle).await;
    let keys = way.keys();
    let percent = |seconds: f64| seconds * 100.0 / idle.as_secs_f64();
    figures.add(keys.memory, growth / clients.len() as f64, "KiB", "≤ 5 KB");
    figures.add(keys.process_cpu, percent(process.cpu_seconds()), "%", "< 5");
    let postgresql = services.used().postgresql.unwrap_or_default();
    figures.add(keys.database_cpu, percent(postgresql), "%", "");

    let heard = Arc::new(Latency::default());
    let listening: Vec<_> =
        clients.into_iter().map(|client| client.listen(heard.clone())).collect();
    let listening: Vec<_> = listening.into_iter().map(tokio::spawn).collect();
    let roles = Roles::named(["relay", "command-worker", "projection-worker"]);
    let roles = roles.map_err(BenchError::Waiting)?;
    let workers = start_roles(&Config { roles, ..site.config.clone() }).await?;
    let started = Instant::now();
    for client in listening {
        let joined = tokio::time::timeout(site.patience(), client).await;
        let joined = joined.map_err(|_| BenchError::Waiting("it never heard the end".into()))?;
        joined.map_err(|error| BenchError::Waiting(error.to_string()))??;
    }
    figures.add(keys.all_heard, started.elapsed().as_secs_f64(), "s", "");
    figures.add(keys.heard_p50, heard.percentiles().p50, "ms", "");
    figures.add(keys.heard_max, heard.percentiles().max, "ms", "");
    Watch::new(&database, site.patience()).until(WaitFor::Visible, || true, |_| {}).await?;
    workers.stop().await;
    ingress.stop().await
}

/// An ingress, and nothing else, in a process of its own.
struct Ingress {
    child: Child,
    address: SocketAddr,
    target: Target,
}

impl Ingress {
    async fn start(site: &Site<'_>) -> Result<Self, BenchError> {
        // A port that is free now; whoever takes it meanwhile makes the start fail, which is seen.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(BenchError::Child)?;
        let program = std::env::current_exe().map_err(BenchError::Child)?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--role", Role::Ingress.as_str()])
            .args(["--listen", &address.to_string(), "--admin-listen", "127.0.0.1:0"])
            .args(site.args.config.as_flags())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().map_err(BenchError::Child)?;
        let target = Target::new(&format!("http://{address}"), None)?;
        let mut ingress = Self { child, address, target };
        ingress.serves(site.patience()).await?;
        Ok(ingress)
    }

    async fn serves(&mut self, patience: Duration) -> Result<(), BenchError> {
        let started = Instant::now();
        let mut connection = Connection::new(&self.target);
        while connection.get("/startupz").await.map_or(true, |answer| !answer.status.is_success()) {
            let ended = self.child.try_wait().map_err(BenchError::Child)?;
            if ended.is_some() || started.elapsed() > patience {
                return Err(BenchError::NoIngress);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn meter(&self) -> ProcessMeter {
        ProcessMeter::start(self.child.id().unwrap_or_default())
    }

    async fn stop(mut self) -> Result<(), BenchError> {
        self.child.kill().await.map_err(BenchError::Child)
    }
}

/// One client on one connection.
struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Returns when it waits.
    async fn connect(way: Way, address: SocketAddr, id: Uuid) -> Result<Self, BenchError> {
        let broken = |error: std::io::Error| BenchError::Waiting(error.to_string());
        let mut socket = TcpStream::connect(address).await.map_err(broken)?;
        let head = format!("GET {} HTTP/1.1\r\nHost: {address}\r\n\r\n", way.path(id));
        socket.write_all(head.as_bytes()).await.map_err(broken)?;
        let mut client = Self { socket, received: Vec::new() };
        if matches!(way, Way::Events) {
            client.until("\"status\":\"accepted\"").await?;
        }
        Ok(client)
    }

    /// Hears the end, and how long ago it was.
    async fn listen(mut self, heard: Arc<Latency>) -> Result<(), BenchError> {
        let text = self.until("\"completed_at\":\"").await?;
        let Some((time, _)) = text.split_once('"') else {
            return Err(BenchError::Waiting(format!("no time: {text}")));
        };
        let ended = Timestamp::parse(time, &Rfc3339)
            .map_err(|error| BenchError::Waiting(error.to_string()))?;
        let ago = Timestamp::now_utc() - ended;
        heard.record(ago.try_into().unwrap_or_default());
        Ok(())
    }

    /// Reads up to these words; answers what came behind them in the same piece.
    async fn until(&mut self, words: &str) -> Result<String, BenchError> {
        let mut piece = [0; 2048];
        loop {
            let text = String::from_utf8_lossy(&self.received);
            // Times are short: what is behind the words has come with them, or comes next.
            if let Some((_, behind)) = text.split_once(words)
                && (behind.contains('"') || behind.contains('}'))
            {
                let behind = behind.to_owned();
                self.received = Vec::new();
                return Ok(behind);
            }
            let read = self.socket.read(&mut piece).await;
            match read.map_err(|error| BenchError::Waiting(error.to_string()))? {
                0 => return Err(BenchError::Waiting(format!("broken off: {text}"))),
                n => self.received.extend_from_slice(&piece[..n]),
            }
        }
    }
}
