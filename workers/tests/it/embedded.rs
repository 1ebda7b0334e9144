//! The service with nothing installed: SQLite in a directory, the broker in the process.

use std::process::Stdio;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    api::Api,
    directory::Directory,
    eventually,
    process::{Bank, Launch, program, run},
};

/// The first lines: what a newcomer reads and copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_lines_say_where_it_is_and_what_to_try() {
    let directory = Directory::new();
    let mut command = tokio::process::Command::from(program());
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--set"])
        .arg(format!("embedded.directory={}", directory.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut bank = command.spawn().expect("it starts");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
        bank.stdout.take().expect("it is piped"),
    ));
    let mut words = Vec::new();
    while let Some(line) = lines.next_line().await.expect("a line") {
        let last = line.contains("bank move");
        words.push(line);
        if last {
            break;
        }
    }
    assert!(words[0].contains("embedded") && words[0].contains("adjutant-embedded-"), "{words:?}");
    assert!(words[1].contains("http://127.0.0.1:"), "{words:?}");
    // The three lines to try do what they promise.
    let mut answers = Vec::new();
    for line in words.iter().filter(|line| line.trim().starts_with("curl")) {
        let mut shell = tokio::process::Command::new("sh");
        let output = shell.args(["-c", line]).output().await.expect("curl runs");
        answers.push(String::from_utf8(output.stdout).expect("UTF-8"));
    }
    assert_eq!(answers.len(), 3, "{words:?}");
    for answer in &answers[..2] {
        let resource: Value = serde_json::from_str(answer).expect("JSON");
        assert_eq!(resource["status"], "succeeded", "{answer}");
    }
    let balance = async || {
        let line = words.iter().rfind(|line| line.trim().starts_with("curl")).expect("a line");
        let mut shell = tokio::process::Command::new("sh");
        let output = shell.args(["-c", line]).output().await.expect("curl runs");
        let document: Value = serde_json::from_slice(&output.stdout).ok()?;
        (document["value"]["balance"] == 100).then_some(())
    };
    eventually("the view shows it", balance).await;
}

/// Everything that was answered is there after SIGKILL, and what was not finished is finished.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9_with_a_thousand_commands_unfinished() {
    let directory = Directory::new();
    // One command a transaction: the executor cannot keep up with what is accepted.
    let mut bank = directory.launch().set("worker.batch", 1).start().await;
    let api = Api(bank.api());
    for account in 0..20 {
        api.open(&format!("acc-{account}")).await;
    }
    let mut answered = Vec::new();
    for batch in 0..3 {
        let lines: Vec<String> = (0..1_000)
            .map(|line| {
                json!({ "id": Uuid::now_v7(), "type": "account.deposit",
                        "stream": format!("account/acc-{}", (batch + line) % 20),
                        "payload": { "amount": 1 } })
                .to_string()
            })
            .collect();
        answered.extend(api.batch(&lines).await);
    }
    bank.kill();
    assert_eq!(answered.len(), 3_000);
    let unfinished =
        directory.count("SELECT (SELECT count(*) FROM commands) - (SELECT count(*) FROM outcomes)");
    println!("{unfinished} commands were accepted and unfinished when it was killed");
    assert!(unfinished > 1_000, "{unfinished}");

    let answers = directory.path().join("answers.ndjson");
    let lines: Vec<String> =
        answered.iter().map(|id| json!({ "id": id, "code": 202 }).to_string()).collect();
    std::fs::write(&answers, lines.join("\n")).expect("written");
    let mut bank = directory.launch().start().await;
    for file in ["", "adjutant.sqlite", "adjutant.sqlite-wal", "adjutant.sqlite.lock"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is for its owner only: {mode:o}");
    }
    eventually("all is finished and visible", async || {
        let (code, _) = directory.verify(Some(&answers)).await;
        (code == 0).then_some(())
    })
    .await;
    let api = Api(bank.api());
    let last = api.deposit("acc-0", 1).await;
    assert_eq!(api.balance_after("acc-0", &last).await, 151);
    assert_eq!(bank.stop().await.0.code(), Some(0));
    let (code, verdict) = directory.verify(Some(&answers)).await;
    assert_eq!(code, 0, "{verdict}");
    assert_eq!(verdict["counts"]["commands"], 3_021, "{verdict}");
}

/// A second process on the same directory would break the one writer: it is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_directory_is_refused() {
    let directory = Directory::new();
    let first = directory.launch().start().await;
    let second = directory.launch().output().await;
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(words.contains("adjutant-embedded-") && words.contains("another process"), "{words}");
    Api(first.api()).open("acc-1").await; // the first goes on
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_url_without_the_other_is_an_error_that_explains_itself() {
    for variable in ["ADJUTANT_DATABASE_URL", "ADJUTANT_AMQP_URL"] {
        let half = Launch::new("all").env(variable, "postgres://127.0.0.1:1/x").output().await;
        let words = String::from_utf8_lossy(&half.stderr).into_owned();
        assert_eq!(half.status.code(), Some(2), "{words}");
        assert!(words.contains("or neither"), "{words}");
    }
    let single = Launch::new("relay").output().await;
    let words = String::from_utf8_lossy(&single.stderr).into_owned();
    assert_eq!(single.status.code(), Some(2), "{words}");
    assert!(words.contains("single roles need PostgreSQL and RabbitMQ"), "{words}");
}

/// Other programs' addresses are none of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stray_urls_change_nothing() {
    let directory = Directory::new();
    let launch = directory
        .launch()
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nowhere")
        .env("AMQP_URL", "amqp://127.0.0.1:1");
    let mut bank = launch.start().await;
    Api(bank.api()).open("acc-1").await;
    assert_eq!(bank.stop().await.0.code(), Some(0));
    assert_eq!(directory.count("SELECT count(*) FROM commands"), 1);
}

/// What is answered is on disk: the system's own count of syncs against the store's of commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_is_synced() {
    let directory = Directory::new();
    let mut bank = directory.launch().start().await;
    let trace = directory.path().join("trace");
    let mut strace = tokio::process::Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&trace)
        .args(["-p", &bank.pid().to_string()])
        .kill_on_drop(true)
        .spawn()
        .expect("strace is needed to count syncs (Debian: apt-get install strace)");
    let api = Api(bank.api());
    let syncs = || {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        text.lines().filter(|line| line.contains("sync(")).count() as i64
    };
    eventually("strace is attached", async || {
        api.open(&format!("acc-{}", Uuid::now_v7())).await;
        (syncs() > 0).then_some(())
    })
    .await;
    let commits = async || -> i64 {
        let metrics = api.get("/metrics").await.body;
        let line = metrics.lines().find(|line| line.starts_with("adjutant_sqlite_commits_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    };
    let (commits_before, syncs_before) = (commits().await, syncs());
    for number in 0..50 {
        api.open(&format!("acc-{number}")).await;
    }
    let (commits_after, syncs_after) = (commits().await, syncs());
    let (committed, synced) = (commits_after - commits_before, syncs_after - syncs_before);
    println!("{committed} commits, {synced} syncs");
    assert!(committed >= 100, "an accept and an outcome each: {committed}");
    // A commit or two may have been counted, or traced, on one side of the readings only.
    assert!(synced + 3 >= committed, "{committed} commits, {synced} syncs");
    strace.start_kill().expect("strace ends");
    strace.wait().await.expect("it ended");
    stop(&mut bank).await;
}

async fn stop(bank: &mut Bank) {
    assert_eq!(bank.stop().await.0.code(), Some(0));
}

/// `bank demo` needs nothing, too.
#[tokio::test]
async fn a_demo_runs_embedded_and_passes_every_check() {
    let directory = Directory::new();
    let mut demo = program();
    demo.args(["demo", "--json", "--commands", "2000", "--accounts", "50", "--set"])
        .arg(format!("embedded.directory={}", directory.path().display()));
    let output = run(demo).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}{words}");
    assert!(printed.lines().next().is_some_and(|line| line.contains("embedded")), "{printed}");
    let report: Value = serde_json::from_str(printed.lines().last().unwrap()).expect("JSON");
    assert_eq!(report["commands"], 2_000);
    for (check, passed) in report["checks"].as_object().expect("checks") {
        assert_eq!(*passed, true, "{check}: {report}");
    }
    let (road, log) =
        (report["from_broker"].as_u64().unwrap(), report["from_log"].as_u64().unwrap());
    assert!(road * 100 >= (road + log) * 95, "{report}");
    let (code, verdict) = directory.verify(None).await;
    assert_eq!(code, 0, "{verdict}");
}
