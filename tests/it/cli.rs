//! The `adjutant` command line against a real service: what it prints and how it exits.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use adjutant::{
    ingress::{AccessRole, IngressSettings, TokenSettings},
    message::CommandId,
    signals::Signals,
    store::Intake as _,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    commands,
    database::Database,
    domain,
    http::{Api, id_of},
    letters::all_dead,
    process::{ALL, Site},
    proxy::Proxy,
    sql::Sql,
};

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{} {}", self.out, self.err))
    }
}

async fn adjutant(api: &Api, arguments: &[&str]) -> Done {
    adjutant_with(api, arguments, "").await
}

async fn adjutant_with(api: &Api, arguments: &[&str], input: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adjutant"));
    command
        .args(["--url", &format!("http://{}", api.address)])
        .args(arguments)
        .env_remove("ADJUTANT_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("start");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write");
        child.wait_with_output().expect("wait")
    });
    let output = output.await.expect("joined");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Done {
        code: output.status.code().expect("a code"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sends_commands_and_sees_what_became_of_them() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let store = site.database.store().await;
    let api = Api::start(domain::service(), store, process.signals(), IngressSettings::default());
    let send = ["send", "counter.add", "counter/a", r#"{"amount":5}"#];

    let done = adjutant(&api, &[&send[..], &["--wait", "30", "--json"]].concat()).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(done.json()["status"], "succeeded");
    let id = done.json()["id"].as_str().expect("an id").to_owned();
    let at = done.json()["outcome"]["positions"][0].as_str().expect("a position").to_owned();

    let done = adjutant(&api, &["status", &id]).await;
    assert!(
        done.code == 0 && done.out.contains("succeeded") && done.out.contains(&at),
        "{}",
        done.out
    );
    let done = adjutant(&api, &["status", "--stream", "counter/a"]).await;
    assert!(done.out.starts_with("ID") && done.out.contains(&id), "{}", done.out);
    assert_eq!(adjutant(&api, &["watch", &id, "--json"]).await.json()["status"], "succeeded");

    let done =
        adjutant(&api, &["views", "get", "counters", "a", "--at", &at, "--wait", "30", "--json"])
            .await;
    assert_eq!(done.json()["value"], json!({ "amount": 5, "count": 1 }));
    let done = adjutant(&api, &["views", "list", "counters", "--prefix", "a"]).await;
    assert!(
        done.out.contains(r#"{"amount":5,"count":1}"#) || done.out.contains(r#""amount":5"#),
        "{}",
        done.out
    );
    let done = adjutant(&api, &["streams", "show", "counter/a"]).await;
    assert!(done.out.contains("counter.added") && done.out.contains(&at), "{}", done.out);
    let done = adjutant(&api, &["members"]).await;
    assert!(done.code == 0 && done.out.contains("command-worker"), "{}", done.out);

    // Rejected and refused are answers of their own.
    let over = ["send", "counter.add", "counter/a", r#"{"amount":1000000}"#, "--wait", "30"];
    let done = adjutant(&api, &over).await;
    assert_eq!((done.code, done.out.contains("over_limit")), (1, true), "{}", done.out);
    let done = adjutant(&api, &["send", "counter.add", "counter/a", r#"{"amount":0}"#]).await;
    assert_eq!((done.code, done.err.contains("/payload/amount")), (1, true), "{}", done.err);
    let again = [&send[..], &["--id", &id]].concat();
    assert_eq!(adjutant(&api, &again).await.code, 0, "the same again");
    let done = adjutant(&api, &["views", "get", "counters", "none"]).await;
    assert_eq!((done.code, done.err.contains("document_not_found")), (1, true), "{}", done.err);
    assert_eq!(adjutant(&api, &["status", &CommandId::generate().to_string()]).await.code, 1);

    // A file with a bit of everything.
    let line = |amount: i64| {
        json!({ "type": "counter.add", "stream": "counter/b", "payload": { "amount": amount } })
            .to_string()
    };
    let mut lines: Vec<_> = (1..=1_500).map(|_| line(1)).collect();
    lines.extend([line(0), "nonsense".into(), line(domain::LIMIT), String::new()]);
    lines.push(format!(r#"{{"x":"{}"}}"#, "y".repeat(300 << 10)));
    let results = std::env::temp_dir().join(format!("adjutant-{id}.ndjson"));
    let arguments = [
        "send",
        "--file",
        "-",
        "--wait",
        "60",
        "--json",
        "--results",
        results.to_str().expect("UTF-8"),
    ];
    let done = adjutant_with(&api, &arguments, &lines.join("\n")).await;
    assert_eq!(done.code, 1, "{}", done.err);
    let expected = json!({
        "sent": 1_504, "accepted": 1_501, "replayed": 0, "refused": 3,
        "refusals": { "malformed_json": 1, "rule_violation": 1, "too_large": 1 },
        "outcomes": { "succeeded": 1_500, "rejected": 1 },
    });
    assert_eq!(done.json(), expected);
    let written = std::fs::read_to_string(&results).expect("results");
    std::fs::remove_file(&results).expect("remove");
    assert_eq!(written.lines().filter(|line| line.contains(r#""code":202"#)).count(), 1_501);
    let done = adjutant_with(&api, &["send", "--file", "-"], &[line(0), line(1)].join("\n")).await;
    assert!(done.code == 1 && done.err.contains("line 1: rule_violation"), "{}", done.err);
    assert!(done.out.contains("accepted"), "{}", done.out);
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_what_kind_of_failure_it_was() {
    let database = Database::migrated().await;
    // `secret`
    let sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b".into();
    let roles = vec![AccessRole::Submit];
    let token = TokenSettings { name: "cli".into(), sha256, roles, commands_per_second: None };
    let settings = IngressSettings { tokens: vec![token], ..IngressSettings::default() };
    let store = database.store().await;
    let api = Api::start(domain::service(), store, &Signals::default(), settings);
    let send = ["send", "counter.add", "counter/a", r#"{"amount":5}"#];

    assert_eq!(adjutant(&api, &send).await.code, 1, "no token");
    let with_token = |more: &[&'static str]| [&["--token", "secret"][..], more].concat();
    assert_eq!(adjutant(&api, &with_token(&send)).await.code, 0);
    assert_eq!(adjutant(&api, &with_token(&["members"])).await.code, 1, "the token lacks a role");
    assert_eq!(
        adjutant(&api, &with_token(&["send", "counter.add", "counter/a", "{"])).await.code,
        2
    );
    assert_eq!(adjutant(&api, &["nonsense"]).await.code, 2);
    assert_eq!(adjutant(&api, &["send", "--file", "/does/not/exist"]).await.code, 2);
    // Nobody executes: accepted, but not ended.
    let waiting = adjutant(&api, &with_token(&[&send[..], &["--wait", "1"]].concat())).await;
    assert_eq!(waiting.code, 4, "{}", waiting.err);
    let id = api
        .submit_with(
            &[("Authorization", "Bearer secret")],
            &json!({
                "type": "counter.add", "stream": "counter/a", "payload": { "amount": 1 },
            }),
        )
        .await;
    let id = id_of(&id).to_string();
    let watching = adjutant(&api, &["--token", "secret", "watch", &id, "--timeout", "1"]).await;
    assert_eq!((watching.code, watching.out.contains("accepted")), (4, true), "{}", watching.err);

    let mut nobody = api;
    nobody.address = ([127, 0, 0, 1], 1).into();
    let done = adjutant(&nobody, &["members"]).await;
    assert_eq!((done.code, done.err.contains("cannot be reached")), (3, true), "{}", done.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_at_dead_letters_and_acts_on_them() {
    let site = Site::new().await;
    let sql = Sql::postgres(site.database.pool().await);
    let commands = (0..30).map(|n| commands::add(&format!("c{n}"), 5)).collect();
    let letters = all_dead(&site.store, &sql, commands).await;
    let api = Api::start(
        domain::service(),
        site.store.clone(),
        &Signals::default(),
        IngressSettings::default(),
    );
    let id = |n: usize| letters[n].id.to_string();
    let run =
        async |arguments: &[&str]| adjutant(&api, &[&["dead-letters"], arguments].concat()).await;

    let done = run(&["list", "--limit", "10"]).await;
    assert!(done.code == 0 && done.out.starts_with("ID"), "{}", done.err);
    assert!(done.out.contains(&id(29)) && !done.out.contains(&id(3)), "{}", done.out);
    let done = run(&["list", "--stream", "counter/c7", "--newer-than", "1h", "--json"]).await;
    assert_eq!(done.json()["id"], id(7));
    assert!(run(&["list", "--error", "nothing"]).await.out.contains("none"));
    let done = run(&["list", "--state", "nonsense"]).await;
    assert_eq!((done.code, done.err.contains("invalid_parameter")), (1, true), "{}", done.err);
    let done = run(&["groups"]).await;
    assert!(done.out.contains("30") && done.out.contains("no answer"), "{}", done.out);
    let done = run(&["show", &id(0)]).await;
    assert!(done.out.contains(r#"{"amount":5}"#) && done.out.contains("open"), "{}", done.out);
    assert_eq!(run(&["show", &CommandId::generate().to_string()]).await.code, 1);

    let done = run(&["retry", &id(0), "--reason", "mended"]).await;
    assert!(done.code == 0 && done.out.contains("retrying"), "{} {}", done.out, done.err);
    let done = run(&["retry", &id(0)]).await;
    assert_eq!((done.code, done.err.contains("already_retried")), (1, true), "{}", done.err);
    let edit = ["dead-letters", "retry", &id(1), "--payload", "-"];
    let done = adjutant_with(&api, &edit, r#"{"amount":0}"#).await;
    assert_eq!((done.code, done.err.contains("/payload/amount")), (1, true), "{}", done.err);
    assert_eq!(adjutant_with(&api, &edit, "{").await.code, 2);
    let done = adjutant_with(&api, &edit, "{\"amount\":9}\n").await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(run(&["show", &id(1)]).await.out.contains(r#"{"amount":9}"#));
    let done = run(&["retry", &id(2), "--payload", "/does/not/exist"]).await;
    assert_eq!(done.code, 2);
    assert_eq!(run(&["discard", &id(2)]).await.code, 2, "a reason is needed");
    let done = run(&["discard", &id(2), "--reason", "paid by hand"]).await;
    assert!(done.code == 0 && done.out.contains("discarded"), "{} {}", done.out, done.err);
    assert_eq!(run(&["retry", &id(3), "--type", "x"]).await.code, 2, "a filter beside an id");
    assert_eq!(run(&["retry"]).await.code, 2);
    assert_eq!(run(&["retry", "--all"]).await.code, 2, "nobody can be asked");

    let file = std::env::temp_dir().join(format!("adjutant-{}.ndjson", id(0)));
    let path = file.to_str().expect("UTF-8");
    let done = run(&["export", "--state", "any", "--to", path]).await;
    assert!(done.code == 0 && done.err.contains("30 dead letters"), "{}", done.err);
    let written = std::fs::read_to_string(&file).expect("an export");
    std::fs::remove_file(&file).expect("remove");
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[29]["id"]), (30, &json!(id(0))));
    assert!(lines.iter().all(|line| line["payload"] == json!({ "amount": 5 })));
    let done = run(&["export", "--stream", "counter/c9"]).await;
    assert_eq!((done.json()["id"].clone(), done.code), (json!(id(9)), 0));

    let retry_all = ["retry", "--all", "--canary", "0", "--rate", "10000", "--yes", "--json"];
    let done = run(&retry_all).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!((&done.json()["state"], &done.json()["done"]), (&json!("done"), &json!(27)));
    let job = done.json()["id"].as_str().expect("an id").to_owned();
    let done = adjutant(&api, &["jobs", "list"]).await;
    assert!(done.out.contains(&job) && done.out.contains("anonymous"), "{}", done.out);
    assert!(adjutant(&api, &["jobs", "show", &job]).await.out.contains("done"));
    assert_eq!(adjutant(&api, &["jobs", "watch", &job]).await.code, 0);
    assert_eq!(adjutant(&api, &["jobs", "cancel", &job]).await.code, 1, "it has ended");
    let discard_all = ["discard", "--all", "--reason", "x", "--yes", "--no-wait"];
    let done = run(&discard_all).await;
    assert!(done.code == 0 && done.out.contains("total"), "{} {}", done.out, done.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_cancels_commands() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let settings = IngressSettings::default();
    let api = Api::start(domain::service(), store.clone(), &Signals::default(), settings);
    let send = ["send", "counter.add", "counter/a", r#"{"amount":5}"#];
    let not_after = "2100-01-01T00:00:00Z";
    let sent = adjutant(&api, &[&send[..], &["--not-after", not_after, "--json"]].concat()).await;
    assert_eq!((sent.code, &sent.json()["not_after"]), (0, &json!(not_after)), "{}", sent.err);
    let id = sent.json()["id"].as_str().expect("an id").to_owned();
    assert!(adjutant(&api, &["status", &id]).await.out.contains(not_after));
    let past = adjutant(&api, &[&send[..], &["--not-after", "yesterday"]].concat()).await;
    assert_eq!(past.code, 1, "{}", past.err);

    let done = adjutant(&api, &["cancel", &id, "--reason", "sent twice"]).await;
    assert!(
        done.code == 0 && done.out.contains("called off by anonymous: sent twice"),
        "{}",
        done.err
    );
    let done = adjutant(&api, &["cancel", &id]).await;
    assert_eq!((done.code, done.err.contains("already_cancelled")), (1, true), "{}", done.err);
    let other = adjutant(&api, &[&send[..], &["--json"]].concat()).await;
    let other = other.json()["id"].as_str().expect("an id").to_owned();
    let done = adjutant(&api, &["cancel", &id, &other, "--json"]).await;
    assert_eq!((done.code, &done.json()["status"]), (1, &json!("cancelled")), "{}", done.err);
    assert!(done.err.contains("1 of 2 were not cancelled"), "{}", done.err);

    for wrong in [
        &["cancel"][..],
        &["cancel", "nonsense"],
        &["cancel", &id, "--type", "counter.add"],
        &["cancel", &id, "--all"],
        &["cancel", "--all", "--type", "counter.add"],
        &["cancel", &id, "--rate", "5"],
        // Nobody can be asked.
        &["cancel", "--all"],
    ] {
        let done = adjutant(&api, wrong).await;
        assert_eq!(done.code, 2, "{wrong:?}: {}", done.err);
    }
    let done = adjutant(&api, &["cancel", "--status", "dead", "--yes"]).await;
    assert_eq!((done.code, done.err.contains("/status")), (1, true), "{}", done.err);

    let commands: Vec<_> = (0..30).map(|n| commands::add(&format!("c{}", n % 3), 1)).collect();
    store.accept(commands).await.expect("accept");
    let some = ["cancel", "--type", "counter.add", "--stream", "counter/c1", "--newer-than", "1h"];
    let done = adjutant(&api, &[&some[..], &["--yes", "--json", "--reason", "x"]].concat()).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!((&done.json()["action"], &done.json()["done"]), (&json!("cancel"), &json!(10)));
    let done = adjutant(&api, &["cancel", "--all", "--yes", "--no-wait", "--rate", "10000"]).await;
    assert!(done.code == 0 && done.out.contains("cancel"), "{} {}", done.out, done.err);
    let jobs = adjutant(&api, &["jobs", "list"]).await;
    assert_eq!(jobs.out.matches("cancel").count(), 2, "{}", jobs.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_each_status_once_although_its_connection_breaks() {
    let site = Site::new().await;
    let mut api = Api::start(
        domain::service(),
        site.database.store().await,
        &Signals::default(),
        IngressSettings::default(),
    );
    let due = time::OffsetDateTime::now_utc() + Duration::from_secs(6);
    let due = due.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let command = json!({
        "type": "counter.add", "stream": "counter/a", "payload": { "amount": 1 }, "not_before": due,
    });
    let id = id_of(&api.submit(&command).await).to_string();
    let proxy = Proxy::to(api.address.to_string()).await;
    api.address = proxy.address();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_adjutant"))
        .args(["--url", &format!("http://{}", api.address), "watch", &id])
        .env_remove("ADJUTANT_TOKEN")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next_line().await.expect("a line").as_deref(), Some("scheduled …"));
    proxy.drop_connections();
    let process = site.start(&ALL).await;
    let mut rest = Vec::new();
    while let Some(line) = lines.next_line().await.expect("a line") {
        rest.push(line);
    }
    assert!(child.wait().await.expect("an end").success(), "{rest:?}");
    let count = |word: &str| rest.iter().filter(|line| line.contains(word)).count();
    assert_eq!((count("scheduled"), count("succeeded")), (0, 1), "{rest:?}");
    process.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recurring_command_is_set_shown_paused_and_removed() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let api = Api::start(domain::service(), store, &Signals::default(), IngressSettings::default());
    assert_eq!(adjutant(&api, &["recurring", "list"]).await.out.trim(), "none");
    let payload = r#"{"amount":5}"#;
    let set = ["recurring", "set", "salary", "0 6 1 * *", "counter.add", "counter/a", payload];
    let options = ["--time-zone", "Europe/Berlin", "--missed", "once", "--actor", "payroll"];
    let done = adjutant(&api, &[&set[..], &options, &["--json"]].concat()).await;
    assert_eq!(done.code, 0, "{}", done.err);
    let made = done.json();
    let command = json!({
        "type": "counter.add", "stream": "counter/a", "payload": { "amount": 5 },
        "lane": "queued", "metadata": { "actor": "payroll" },
    });
    assert_eq!((&made["command"], &made["missed_runs"]), (&command, &json!("once")));
    let etag = made["etag"].as_str().expect("a tag").to_owned();

    let done = adjutant(&api, &["recurring", "list"]).await;
    assert!(done.out.starts_with("NAME") && done.out.contains("0 6 1 * *"), "{}", done.out);
    let done = adjutant(&api, &["recurring", "show", "salary"]).await;
    let next = made["upcoming"][4].as_str().expect("a time");
    assert!(done.out.contains(next) && done.out.contains(payload), "{}", done.out);
    let done = adjutant(&api, &["recurring", "pause", "salary", "--json"]).await;
    assert_eq!((done.code, &done.json()["state"]), (0, &json!("paused")));
    let stale = adjutant(&api, &["recurring", "resume", "salary", "--if-match", &etag]).await;
    assert_eq!((stale.code, stale.err.contains("precondition_failed")), (1, true), "{}", stale.err);
    let done = adjutant(&api, &["recurring", "resume", "salary", "--json"]).await;
    assert_eq!(done.json()["state"], "active");

    // From a file, and what cannot be.
    let file = std::env::temp_dir().join(format!("{}.json", CommandId::generate()));
    let body = json!({ "cron": "@hourly", "command": { "type": "counter.add", "stream": "counter/b", "payload": { "amount": 1 } } });
    std::fs::write(&file, body.to_string()).expect("write");
    let path = file.to_str().expect("a path");
    let done = adjutant(&api, &["recurring", "set", "hourly", "--file", path, "--json"]).await;
    assert_eq!((done.code, &done.json()["cron"]), (0, &json!("@hourly")), "{}", done.err);
    std::fs::write(&file, "{").expect("write");
    assert_eq!(adjutant(&api, &["recurring", "set", "hourly", "--file", path]).await.code, 2);
    std::fs::remove_file(&file).expect("remove");
    assert_eq!(adjutant(&api, &["recurring", "set", "hourly"]).await.code, 2);
    let bad = ["recurring", "set", "salary", "0 6 31 2 *", "counter.add", "counter/a", payload];
    let done = adjutant(&api, &bad).await;
    assert_eq!((done.code, done.err.contains("/cron")), (1, true), "{}", done.err);

    let done = adjutant(&api, &["recurring", "remove", "salary"]).await;
    assert_eq!((done.code, done.out.contains("salary")), (0, true), "{}", done.err);
    assert_eq!(adjutant(&api, &["recurring", "show", "salary"]).await.code, 1);
}
