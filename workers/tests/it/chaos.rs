//! `bank chaos` as a process: short runs on services of their own. They are given only as many
//! clients as it takes to have every fault happen under load.

use std::{
    fs,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    directory::Directory,
    process::{program, send},
};

/// How long a run may take on a busy machine, the start of two services included.
const PATIENCE: Duration = Duration::from_mins(4);

/// A run of `bank chaos`; told to stop when dropped.
struct Run {
    child: Child,
    directory: Directory,
}

impl Run {
    fn start(arguments: &str) -> Self {
        let directory = Directory::new();
        fs::create_dir_all(directory.path()).unwrap();
        let file = |name| fs::File::create(directory.path().join(name)).unwrap();
        let mut command = program();
        command
            .args(["chaos", "--json", "--directory"])
            .arg(directory.path())
            .args(arguments.split_whitespace());
        command.stdout(file("stdout")).stderr(file("stderr")).stdin(Stdio::null());
        Self { child: command.spawn().expect("the binary runs"), directory }
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// Waits until it has ended.
    async fn ends(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.text("stderr"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it has told something.
    async fn tells(&mut self, words: &str) {
        let began = Instant::now();
        while !self.text("stderr").contains(words) {
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.text("stderr"));
            assert!(began.elapsed() < PATIENCE, "no `{words}`:\n{}", self.text("stderr"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its exit code and its report.
    async fn report(&mut self) -> (Option<i32>, Value) {
        let status = self.ends().await;
        let printed = self.text("stdout");
        let report = printed.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let told = || panic!("no report:\n{printed}\n{}", self.text("stderr"));
        let report = report.unwrap_or_else(told);
        println!("{}\n{printed}", self.text("stderr"));
        (status.code(), report)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It clears away what it started.
            send("TERM", self.child.id());
        }
        let _ = self.child.wait();
    }
}

/// Processes that know of a directory, by their arguments or their environment.
fn processes_of(directory: &Path) -> Vec<u32> {
    let needle = directory.to_str().unwrap().as_bytes();
    let knows = |place: &Path| {
        let read = |name| fs::read(place.join(name)).unwrap_or_default();
        let all = [read("cmdline"), read("environ")].concat();
        all.windows(needle.len()).any(|bytes| bytes == needle)
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        knows(&entry.path()).then_some(pid)
    });
    pids.collect()
}

#[tokio::test]
async fn nothing_is_lost_repeated_or_reordered_whatever_fails() {
    let mut run = Run::start(
        "--minutes 2 --seed 4 --at-least 1 --until-enough --together 100
         --fault kill-ingress,kill-relay,kill-command-worker,kill-projection-worker
         --fault pause-command-worker,rabbitmq-kill,postgres-immediate-restart
         --fault postgres-backends-terminated,postgres-road-half-open,rabbitmq-road-reset
         --fault queue-deletion,queue-unbinding,clock-jump
         --rate 50 --clients 6 --amqp-clients 2 --accounts 40",
    );
    let (code, report) = run.report().await;
    assert_eq!(report["violations"], serde_json::json!({}), "{report}");
    assert_eq!((code, &report["verdict"]), (Some(0), &"passed".into()), "{report}");
    assert_eq!(report["faults"].as_object().map(serde_json::Map::len), Some(13));
    let operations = &report["operations"];
    assert!(operations["accepted"].as_i64() > Some(500), "{report}");
    assert!(operations["failed_attempts"].as_i64() > Some(50), "{report}");
    assert!(operations["dead_letters"].as_i64() > Some(10), "{report}");
    assert!(operations["actions_of_people"].as_i64() > Some(10), "{report}");
}

/// What the broker confirmed is acknowledged before it is committed, and the ingress is killed, some
/// of the time while the database is away and whole batches wait for it (with this seed, most).
#[cfg(feature = "planted-bugs")]
#[tokio::test]
async fn a_planted_bug_is_reported_as_accepted_commands_that_are_lost() {
    let mut run = Run::start(
        "--minutes 0.35 --seed 2 --at-least 1 --planted-bug ack_before_commit
         --fault kill-ingress,postgres-immediate-restart --together 100
         --rate 100 --clients 2 --amqp-clients 8 --accounts 40",
    );
    let (code, report) = run.report().await;
    assert_eq!((code, &report["verdict"]), (Some(1), &"violated".into()), "{report}");
    let lost = &report["violations"]["accepted command lost"];
    assert!(lost["count"].as_u64() > Some(0), "{report}");
    let words = lost["first"][0].as_str().unwrap();
    assert!(words.contains("by the broker's confirmation for the intake"), "{words}");
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing_behind() {
    let mut run = Run::start("--fault pause-relay,clock-jump --rate 20");
    run.tells("accepted meanwhile").await;
    let parent = run.directory.path().to_owned();
    let inside = || {
        let entries = fs::read_dir(&parent).unwrap().flatten();
        entries.map(|entry| entry.path()).find(|path| path.is_dir())
    };
    let made = inside().expect("the run's directory");
    assert!(processes_of(&made).len() > 8, "the roles, PostgreSQL and RabbitMQ");
    send("TERM", run.child.id());
    let status = run.ends().await;
    assert_eq!(status.code(), Some(3), "no verdict");
    assert_eq!(processes_of(&made), [0; 0]);
    assert_eq!(inside(), None, "its data is removed");
}

#[tokio::test]
async fn too_few_faults_are_no_verdict() {
    let mut run = Run::start(
        "--minutes 0.05 --fault queue-purge --at-least 1000
         --rate 20 --clients 2 --amqp-clients 1 --accounts 6",
    );
    let (code, report) = run.report().await;
    assert_eq!((code, &report["verdict"]), (Some(3), &"not enough".into()), "{report}");
    assert_eq!(report["violations_total"], 0, "{report}");
}
