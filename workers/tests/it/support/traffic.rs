//! Clients that send commands to accounts, one after the other, and repeat one with the same id
//! until it is answered. What they were answered is known, so that it can be checked afterwards.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use bank::load::{Connection, Target};
use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::site::Look;

/// Clients that send until they are told to stop.
pub struct Traffic {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Record>>,
}

/// What one client was answered: every command was accepted, in this order.
pub struct Record {
    pub account: String,
    /// The amounts of its deposits.
    pub deposits: Vec<i64>,
    /// How many commands it sent that the account refuses.
    pub refused: usize,
    pub repeated: usize,
    answers: Vec<(Uuid, u16)>,
}

/// What all clients were answered.
pub struct Sent {
    pub records: Vec<Record>,
    answers: PathBuf,
}

impl Traffic {
    /// One client for each account; pauses between commands are drawn from the seed.
    pub fn start(api: std::net::SocketAddr, accounts: &[String], seed: u64) -> Self {
        let target = Target::new(&format!("http://{api}"), None).unwrap();
        let (stop, stopped) = watch::channel(false);
        let clients = accounts.iter().zip(seed..).map(|(account, seed)| {
            let client = Client {
                connection: Connection::new(&target),
                random: Random(seed),
                record: Record {
                    account: account.clone(),
                    deposits: Vec::new(),
                    refused: 0,
                    repeated: 0,
                    answers: Vec::new(),
                },
            };
            tokio::spawn(client.run(stopped.clone()))
        });
        Self { clients: clients.collect(), stop }
    }

    /// Has the clients finish the command that each is at.
    pub async fn stop(self) -> Sent {
        self.stop.send_replace(true);
        let mut records = Vec::new();
        for client in self.clients {
            records.push(client.await.unwrap());
        }
        let answers = std::env::temp_dir().join(format!("answers-{}.ndjson", Uuid::now_v7()));
        let mut lines = String::new();
        for (id, code) in records.iter().flat_map(|record| &record.answers) {
            writeln!(lines, "{{\"id\":\"{id}\",\"code\":{code}}}").unwrap();
        }
        std::fs::write(&answers, lines).unwrap();
        Sent { records, answers }
    }
}

impl Sent {
    /// The clients' NDJSON, for `bank verify --answers`.
    pub fn answers(&self) -> &Path {
        &self.answers
    }

    pub fn commands(&self) -> usize {
        self.records.iter().map(|record| record.answers.len()).sum()
    }

    pub fn repeated(&self) -> usize {
        self.records.iter().map(|record| record.repeated).sum()
    }

    /// Each account's deposits are in the log once each, in the order in which they were sent; and
    /// nothing else is.
    pub async fn assert_order(&self, look: &mut Look) {
        for record in &self.records {
            let stream = format!("account/{}", record.account);
            let found: Vec<(String, Option<i64>)> = sqlx::query_as(
                "SELECT type, (data->>'amount')::bigint FROM adjutant.events
                  WHERE stream = $1 ORDER BY version",
            )
            .bind(&stream)
            .fetch_all(look.connection())
            .await
            .unwrap();
            let deposits =
                record.deposits.iter().map(|amount| ("account.deposited", Some(*amount)));
            let sent = std::iter::once(("account.opened", None)).chain(deposits);
            let sent: Vec<_> = sent.map(|(kind, amount)| (kind.to_owned(), amount)).collect();
            if let Some(at) =
                (0..found.len().max(sent.len())).find(|i| found.get(*i) != sent.get(*i))
            {
                let around = at.saturating_sub(2)..at + 6;
                let cut = |list: &[(String, Option<i64>)]| {
                    let cut = list.iter().map(|(_, amount)| *amount).enumerate();
                    cut.filter(|(i, _)| around.contains(i)).collect::<Vec<_>>()
                };
                panic!(
                    "{stream}: of {} sent, {} found; from {at} on, sent {:?}, found {:?}; {}",
                    sent.len(),
                    found.len(),
                    cut(&sent),
                    cut(&found),
                    look.troubles(&stream).await
                );
            }
            let rejected: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM adjutant.commands c
                   JOIN adjutant.outcomes o ON o.command_id = c.id
                  WHERE c.stream = $1 AND o.status = 2",
            )
            .bind(&stream)
            .fetch_one(look.connection())
            .await
            .unwrap();
            assert_eq!(usize::try_from(rejected).unwrap(), record.refused, "{stream}");
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.answers);
    }
}

struct Client {
    connection: Connection,
    random: Random,
    record: Record,
}

impl Client {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Record {
        self.accepted("open", "{\"owner\":\"Ada\"}").await;
        let mut amount = 0;
        while !*stopped.borrow() {
            if self.random.below(10) == 0 {
                self.accepted("withdraw", "{\"amount\":1000000000}").await;
                self.record.refused += 1;
            } else {
                amount += 1;
                self.accepted("deposit", &format!("{{\"amount\":{amount}}}")).await;
                self.record.deposits.push(amount);
            }
            let pause = Duration::from_millis(10 + self.random.below(60));
            let _ = tokio::time::timeout(pause, stopped.changed()).await;
        }
        self.record
    }

    /// Sends a command until it is answered for good, which must be that it is accepted.
    async fn accepted(&mut self, kind: &str, payload: &str) {
        let (id, account) = (Uuid::now_v7(), &self.record.account);
        let body = Bytes::from(format!(
            "{{\"id\":\"{id}\",\"type\":\"account.{kind}\",\"stream\":\"account/{account}\",\"payload\":{payload}}}"
        ));
        let uri = "/v1/commands".parse().unwrap();
        loop {
            match self.connection.post(&uri, "application/json", body.clone()).await {
                Ok(answer) if !answer.is_temporary() => {
                    let code = answer.status.as_u16();
                    assert!(matches!(code, 200 | 202), "{}", answer.in_words());
                    self.record.answers.push((id, code));
                    return;
                }
                _ => {
                    self.record.repeated += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// Numbers that look random and repeat with the seed (SplitMix64, Steele et al. 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
