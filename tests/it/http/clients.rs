//! Clients that go away, and ten thousand that send slowly.

use std::{
    io::BufRead as _,
    process::{Command, Stdio},
    time::Duration,
};

use super::*;
use crate::support::{
    http::{Client, id_of},
    process::{ALL, Site},
};

const SLOW_TARGET: &str = "ADJUTANT_TEST_SLOW_TARGET";
const SLOW_CLIENTS: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_in_the_middle_lose_and_corrupt_nothing() {
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let store = site.database.store().await;
    let api = Api::start(domain::service(), store, process.signals(), IngressSettings::default());
    // Each stops at another place: within the head, within the body, before the answer.
    let careless = (0..300).map(async |n: usize| {
        let body = add(&format!("c{}", n % 7), 1).to_string();
        let request = format!(
            "POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = api.client().await;
        client.send(&request.as_bytes()[..request.len() * (n % 10 + 1) / 10]).await;
        if n.is_multiple_of(3) {
            tokio::time::sleep(Duration::from_millis((n % 5) as u64)).await;
        }
        drop(client);
    });
    let careful =
        (0..100).map(async |n: i64| id_of(&api.submit(&add(&format!("c{}", n % 7), 1)).await));
    let (_, ids) = tokio::join!(join_all(careless), join_all(careful));
    site.until_ended(&ids).await;
    // Those that were accepted without anybody hearing of it end, too.
    let all: Vec<_> = stored(&site.database).await.into_iter().collect();
    assert!(all.len() >= 100 && all.len() <= 130, "{}", all.len());
    site.until_ended(&all).await;
    site.until_applied().await;
    process.stop(Duration::from_secs(10)).await;
    site.assert_lawful().await;
}

/// Not a test of its own: the process of the slow clients, because one process may not have enough
/// file descriptors for both ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn slow_clients_process() {
    let Ok(target) = std::env::var(SLOW_TARGET) else { return };
    let target = target.parse().expect("an address");
    let mut clients = Vec::new();
    for n in 0..SLOW_CLIENTS {
        let mut client = Client::connect(target).await;
        // Half of them stop within the head, half within the body.
        client
            .send(b"POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            .await;
        if n % 2 == 0 {
            client.send(b"Content-Length: 200000\r\n\r\n{").await;
        }
        clients.push(client);
    }
    println!("\nall are connected");
    // Then a byte now and then, until the parent kills this process.
    loop {
        for client in &mut clients {
            client.send(b"x").await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).expect("kB") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_slow_clients_take_little_memory_and_stop_nobody() {
    let database = Database::migrated().await;
    let settings = IngressSettings {
        header_timeout_ms: 20_000,
        body_timeout_ms: 20_000,
        ..IngressSettings::default()
    };
    let api = api_on(&database, settings).await;
    let before = resident_bytes();
    let mut slow = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "http::clients::slow_clients_process", "--nocapture"])
        .env(SLOW_TARGET, api.address.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    let output = std::io::BufReader::new(slow.stdout.take().expect("a pipe"));
    let connected = tokio::task::spawn_blocking(move || {
        output.lines().map_while(Result::ok).any(|line| line == "all are connected")
    });
    assert!(connected.await.expect("joined"), "the slow clients did not connect");

    let started = Instant::now();
    let answers = join_all((0..200).map(|n| async move { n }).map(async |n| {
        let n = n.await;
        api.submit(&add(&format!("c{n}"), 1)).await.status
    }))
    .await;
    let took = started.elapsed();
    let grown = resident_bytes().saturating_sub(before);
    println!("{SLOW_CLIENTS} slow clients: {} MB more; 200 commands in {took:?}", grown >> 20);
    assert!(answers.iter().all(|status| *status == 202));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(grown < 400 << 20, "{} MB", grown >> 20);
    slow.kill().expect("kill");
    slow.wait().expect("wait");
}
