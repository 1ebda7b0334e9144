//! The processes of the service: two of each role, each in a slot that outlives it (its address,
//! its proxies, its clock). What ends by itself is noted and started again.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use adjutant::store::Role;

use super::{
    clock::{Clock, ClockLibrary},
    error::ChaosError,
    ports::{Ports, loopback},
    processes::Owned,
    proxy::Proxy,
    services::{Postgres, Rabbit},
};

/// How many processes have each role.
const REPLICAS: usize = 2;
/// How many partitions the database has.
pub(super) const PARTITIONS: i64 = 8;
/// When a command that failed comes back, in milliseconds; it is dead after the last.
const RETRY_DELAYS_MS: [u32; 3] = [200, 1_000, 3_000];
/// The longest that a breaker is open: shorter than what counts as stuck.
const BREAKER_OPEN_MS: u32 = 10_000;
/// How many attempts a command has.
pub(super) const MOST_ATTEMPTS: i32 = 1 + RETRY_DELAYS_MS.len() as i32;
/// How long a process may take to stop when it is told to; it allows itself 8 s.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// SIGABRT: what a drill that aborts does.
const ABORT: i32 = 6;
/// How much of a log is quoted when its process ends by itself.
const QUOTED: u64 = 1_500;

/// What all processes have in common.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The program: this one.
    pub program: PathBuf,
    /// Where logs and clock files are.
    pub directory: PathBuf,
    /// A mistake that every process makes (feature `planted-bugs`).
    pub planted_bug: Option<String>,
}

/// A place for a process.
pub(super) struct Slot {
    /// What its process does.
    pub role: Role,
    /// For people: `relay-2`.
    pub name: String,
    /// Where its HTTP API listens, if it is an ingress.
    pub api: Option<SocketAddr>,
    /// Its way to PostgreSQL.
    pub database: Proxy,
    /// Its way to RabbitMQ.
    pub broker: Proxy,
    /// Its clock, if the library could be compiled.
    pub clock: Option<Clock>,
    launch: Launch,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    process: Option<Owned>,
    /// A fault has it down on purpose: nobody starts it again meanwhile.
    held: bool,
    stopped: bool,
}

/// All of them.
pub(super) struct Fleet {
    slots: Vec<Slot>,
    /// What ended by itself, with its last words.
    deaths: Mutex<Vec<String>>,
}

impl Fleet {
    /// Starts every process.
    pub(super) async fn start(
        launch: &Launch,
        ports: &mut Ports,
        postgres: &Postgres,
        rabbit: &Rabbit,
        clocks: Option<&ClockLibrary>,
    ) -> Result<Self, ChaosError> {
        let mut slots = Vec::new();
        for role in Role::ALL {
            for number in 1..=REPLICAS {
                let name = format!("{role}-{number}");
                let file = launch.directory.join(format!("{name}.clock"));
                let clock = clocks.map(|library| library.clock(file)).transpose()?;
                let api = if role == Role::Ingress { Some(loopback(ports.free()?)) } else { None };
                slots.push(Slot {
                    role,
                    name,
                    api,
                    database: Proxy::to(postgres.address()).await?,
                    broker: Proxy::to(rabbit.address()).await?,
                    clock,
                    launch: launch.clone(),
                    state: Mutex::default(),
                });
            }
        }
        for slot in &slots {
            slot.start()?;
        }
        Ok(Self { slots, deaths: Mutex::default() })
    }

    /// Every slot.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots of a role.
    pub(super) fn of(&self, role: Role) -> Vec<&Slot> {
        self.slots.iter().filter(|slot| slot.role == role).collect()
    }

    /// Where the HTTP APIs are.
    pub(super) fn apis(&self) -> Vec<SocketAddr> {
        self.slots.iter().filter_map(|slot| slot.api).collect()
    }

    /// Starts again what ended by itself, for ever.
    pub(super) async fn tend(&self) -> Infallible {
        loop {
            for slot in &self.slots {
                if let Some(words) = slot.revive() {
                    eprintln!("{words}");
                    self.deaths.lock().unwrap_or_else(PoisonError::into_inner).push(words);
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// What ended by itself so far.
    pub(super) fn deaths(&self) -> Vec<String> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// SIGTERM to all, and what is not as it should be about how they end.
    pub(super) async fn stop(&self) -> Vec<String> {
        let told: Vec<_> = self.slots.iter().filter_map(Slot::tell_to_stop).collect();
        let mut complaints = Vec::new();
        for (name, mut process) in told {
            match process.ends_within(STOPS_WITHIN).await {
                Some(status) if status.success() => {}
                Some(status) => complaints.push(format!("{name} was told to stop: {status}")),
                None => complaints.push(format!("{name} did not stop within {STOPS_WITHIN:?}")),
            }
        }
        complaints
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts its process, unless it runs.
    pub(super) fn start(&self) -> Result<(), ChaosError> {
        let mut state = self.state();
        state.held = false;
        if state.process.as_mut().is_some_and(|process| process.ended().is_none()) {
            return Ok(());
        }
        state.process = Some(Owned::start(&self.name, &mut self.command()?)?);
        Ok(())
    }

    /// SIGKILL; returns the id that it had. Stays down until it is started.
    pub(super) fn kill(&self) -> Option<u32> {
        let mut state = self.state();
        state.held = true;
        let mut process = state.process.take()?;
        let pid = process.pid();
        process.kill();
        Some(pid)
    }

    /// SIGSTOP.
    pub(super) fn pause(&self) -> Result<(), ChaosError> {
        self.signal("STOP")
    }

    /// SIGCONT.
    pub(super) fn resume(&self) -> Result<(), ChaosError> {
        self.signal("CONT")
    }

    fn signal(&self, signal: &str) -> Result<(), ChaosError> {
        self.state().process.as_mut().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Starts it again if it has ended by itself: its last words.
    fn revive(&self) -> Option<String> {
        let mut state = self.state();
        if state.held || state.stopped {
            return None;
        }
        let status = state.process.as_mut()?.ended()?;
        let words = self.last_words(status);
        match self.command().and_then(|mut command| Owned::start(&self.name, &mut command)) {
            Ok(process) => state.process = Some(process),
            Err(error) => return Some(format!("{words}\nand cannot be started again: {error}")),
        }
        Some(words)
    }

    fn tell_to_stop(&self) -> Option<(String, Owned)> {
        let mut state = self.state();
        state.stopped = true;
        let mut process = state.process.take()?;
        // One that has ended already says so when it is waited for.
        let _ = process.signal("TERM");
        Some((self.name.clone(), process))
    }

    fn command(&self) -> Result<Command, ChaosError> {
        let log = || {
            let path = self.log();
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.map_err(ChaosError::io(path.display().to_string()))
        };
        let mut command = Command::new(&self.launch.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ADJUTANT_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--role", self.role.as_str(), "--admin-listen", "127.0.0.1:0"]);
        if let Some(api) = self.api {
            command.args(["--listen", &api.to_string()]);
        }
        let database = format!("postgres://postgres@{}/bank", self.database.address());
        let broker = format!("amqp://guest:guest@{}/%2f", self.broker.address());
        command.env("ADJUTANT_DATABASE_URL", database).env("ADJUTANT_AMQP_URL", broker);
        // PostgreSQL's sessions take memory, and there are many processes.
        for setting in [
            "database.hot_connections=4".to_owned(),
            "database.read_connections=2".to_owned(),
            format!("database.partitions={PARTITIONS}"),
            format!("retry.default.delays_ms={RETRY_DELAYS_MS:?}"),
            // In the immediate lane most drills that are tried fail: they succeed in the queue.
            format!("breaker.open_at_most_ms={BREAKER_OPEN_MS}"),
            format!("projection_breaker.open_at_most_ms={BREAKER_OPEN_MS}"),
            "bank.fault_injection=true".to_owned(),
        ] {
            command.args(["--set", &setting]);
        }
        if let Some(clock) = &self.clock {
            clock.belongs_to(&mut command);
        }
        if let Some(bug) = &self.launch.planted_bug {
            command.env("ADJUTANT_TEST_PLANTED_BUG", bug);
        }
        command.stdout(log()?).stderr(log()?);
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.launch.directory.join(format!("{}.log", self.name))
    }

    fn last_words(&self, status: ExitStatus) -> String {
        // Drills do that, several times each.
        let executes = matches!(self.role, Role::CommandWorker | Role::Ingress);
        if executes && status.signal() == Some(ABORT) {
            return format!("{} ended by itself ({status})", self.name);
        }
        let read = |mut file: File| -> std::io::Result<String> {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(QUOTED)))?;
            let mut words = Vec::new();
            file.read_to_end(&mut words)?;
            Ok(String::from_utf8_lossy(&words).trim().to_owned())
        };
        let words = File::open(self.log()).and_then(read);
        let words = words.unwrap_or_else(|error| format!("its log cannot be read: {error}"));
        format!("{} ended by itself ({status}):\n{words}", self.name)
    }
}
