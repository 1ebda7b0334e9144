//! `bank` processes: told by signals to their ids, watched by their logs, always reaped.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write as _},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{PATIENCE, eventually};

/// The program under test, with none of the settings of whoever runs the tests.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ADJUTANT_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub async fn run(command: Command) -> Output {
    run_within(command, PATIENCE).await
}

/// Runs a command to its end, which may take so long.
pub async fn run_within(mut command: Command, patience: Duration) -> Output {
    let running = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    tokio::time::timeout(patience, running).await.expect("it ends").expect("no panic")
}

/// Runs a command to its end, with an input.
pub async fn run_with(mut command: Command, input: String) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("the binary runs");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    });
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect("no panic")
}

/// A `bank serve` that is to be started.
pub struct Launch {
    command: Command,
    settings: BTreeMap<String, String>,
}

impl Launch {
    pub fn new(roles: &str) -> Self {
        let launch = Self { command: program(), settings: BTreeMap::new() };
        // PostgreSQL's default limit is 100 connections, and tests run in parallel.
        launch
            .set("roles", roles)
            .set("server.listen", "127.0.0.1:0")
            .set("admin.listen", "127.0.0.1:0")
            .set("log.format", "json")
            .set("database.hot_connections", 3)
            .set("database.read_connections", 1)
    }

    pub fn set(mut self, key: &str, value: impl ToString) -> Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.command.env(name, value.as_ref());
        self
    }

    fn command(mut self) -> Command {
        self.command.arg("serve");
        for (key, value) in &self.settings {
            self.command.arg("--set").arg(format!("{key}={value}"));
        }
        self.command
    }

    /// Runs it to its end.
    pub async fn output(self) -> Output {
        run(self.command()).await
    }

    /// Starts it; returns at once.
    pub fn spawn(self) -> Bank {
        let roles = self.settings["roles"].clone();
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the binary runs");
        let log = Log::default();
        log.follow(child.stderr.take().expect("it is piped"));
        Bank { child, log, roles, started, api: None }
    }

    /// Starts it; returns when it serves.
    pub async fn start(self) -> Bank {
        let mut bank = self.spawn();
        bank.serves().await;
        bank
    }
}

/// A running `bank serve`; killed when dropped.
pub struct Bank {
    child: Child,
    pub log: Log,
    pub roles: String,
    pub started: Instant,
    api: Option<SocketAddr>,
}

impl Bank {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it serves.
    pub async fn serves(&mut self) {
        let address = |message: &str, words: &str| -> Option<SocketAddr> {
            message.strip_prefix(words)?.parse().ok()
        };
        if self.roles == "all" || self.roles.contains("ingress") {
            let api = |message: &str| address(message, "the HTTP API listens on http://");
            self.api = Some(self.says(api).await);
        }
        self.says(|message| address(message, "probes and metrics are served on http://")).await;
    }

    /// Waits for a log message.
    pub async fn says<T>(&mut self, mut matches: impl FnMut(&str) -> Option<T>) -> T {
        self.logs(|event| matches(event["message"].as_str()?)).await
    }

    /// Waits for a log event.
    pub async fn logs<T>(&mut self, mut matches: impl FnMut(&Value) -> Option<T>) -> T {
        let mut seen = 0;
        eventually("the process logs something", async || {
            // Whether it has ended is asked first: its last words count.
            let ended = self.child.try_wait().unwrap();
            let events = self.log.since(&mut seen);
            let found = events.iter().find_map(&mut matches);
            assert!(found.is_some() || ended.is_none(), "it ended: {ended:?}");
            found
        })
        .await
    }

    /// The address of its HTTP API.
    pub fn api(&self) -> SocketAddr {
        self.api.expect("it has the role ingress")
    }

    /// Its name in the list of members.
    pub fn is_member(&self, member: &Value) -> bool {
        let name = member["name"].as_str().unwrap_or_default();
        name.rsplit_once('/').is_some_and(|(_, pid)| pid == self.pid().to_string())
    }

    /// Sends it a signal, by its id.
    pub fn signal(&self, name: &str) {
        // Not reaped yet, so the id is still its own.
        send(name, self.pid());
    }

    /// Whether it has a thread of this name (of at most 15 bytes).
    pub fn has_thread(&self, name: &str) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let names =
            threads.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("comm")).ok());
        names.into_iter().any(|comm| comm.trim_end() == name)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended by itself; returns how.
    pub async fn ends(&mut self) -> ExitStatus {
        eventually("the process ends", async || self.child.try_wait().unwrap()).await
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns how it ended, and after how long.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let told = Instant::now();
        self.signal("TERM");
        let status = eventually("the process ends", async || self.child.try_wait().unwrap()).await;
        (status, told.elapsed())
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.lines.lock().unwrap();
            let last = lines.len().saturating_sub(25);
            eprintln!("--- {} (process {}):\n{}", self.roles, self.pid(), lines[last..].join("\n"));
        }
    }
}

/// Sends a signal to a process that was not reaped yet.
pub fn send(name: &str, pid: u32) {
    let pid = pid.to_string();
    let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
    assert!(sent.unwrap().success(), "{name} could not be sent");
}

/// What a process writes to standard error.
#[derive(Clone, Default)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    /// A thread that ends with the process.
    fn follow(&self, stderr: impl Read + Send + 'static) {
        let lines = self.lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
    }

    /// The events after the first `seen`, which moves on. What is no JSON counts as a message.
    pub fn since(&self, seen: &mut usize) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let new = &lines[*seen..];
        *seen = lines.len();
        let event = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|_| serde_json::json!({ "message": line }))
        };
        new.iter().map(event).collect()
    }

    pub fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}
