//! Sends commands by HTTP and keeps the log of what was answered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::Uri;
use serde_json::Value;
use tokio::time::Instant;

use super::Command;
use crate::{
    chaos::{
        error::ChaosError,
        log::{Door, Log, Told},
        random::Draw,
    },
    load::{Answer, ClientError, Connection, Target},
};

/// How long an answer may take before the client gives the connection up.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a client tries to get a command accepted.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a command ended, as its resource says.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// `succeeded`, `rejected`, ….
    pub status: String,
    /// Where its first event stands.
    pub position: Option<String>,
    /// The stream's version afterwards.
    pub version: i64,
}

/// A client's connections, one to each ingress.
pub(crate) struct Sender {
    pub(super) client: usize,
    pub(super) log: Arc<Log>,
    /// What it draws.
    pub draw: Draw,
    connections: Vec<Connection>,
    current: usize,
}

impl Sender {
    /// Not connected yet.
    pub(crate) fn new(
        client: usize,
        apis: &[SocketAddr],
        log: Arc<Log>,
        draw: Draw,
    ) -> Result<Self, ChaosError> {
        let targets: Result<Vec<Target>, _> =
            apis.iter().map(|api| Target::new(&format!("http://{api}"), None)).collect();
        let connections = targets?.iter().map(Connection::new).collect();
        Ok(Self { client, log, draw, connections, current: client % apis.len().max(1) })
    }

    /// Sends a command until it is accepted or refused for good; `None`: the client gave up.
    /// Now and then it gives up early, so that there are commands of which nobody knows.
    pub(crate) async fn submit(
        &mut self,
        command: &Command,
        patiently: bool,
    ) -> (usize, Option<bool>) {
        let place = self.log.sends(self.client, Door::Http, command.clone());
        let began = Instant::now();
        loop {
            let (told, is_final) = self.attempt(place, command).await;
            if is_final {
                return (place, Some(told == Told::Accepted));
            }
            // A refusal is believed more often: what is sent again and accepted then would hide that
            // it was accepted before.
            let often = if matches!(told, Told::Refused(_)) { 20 } else { 8 };
            let gives_up = !patiently && self.draw.happens(often);
            if gives_up || began.elapsed() > PATIENCE {
                return (place, None);
            }
            self.turn_to_another();
            tokio::time::sleep(self.draw.millis(30..250)).await;
        }
    }

    async fn attempt(&mut self, place: usize, command: &Command) -> (Told, bool) {
        self.log.attempts(place);
        let (told, is_final) = judge(self.post(command).await);
        self.log.told(place, &told);
        (told, is_final)
    }

    /// Sends something that is not logged as a new command.
    pub(super) async fn post(&mut self, command: &Command) -> Result<Answer, ClientError> {
        self.post_to(&Uri::from_static("/v1/commands"), &command.body()).await
    }

    /// Posts anything.
    pub(super) async fn post_to(&mut self, uri: &Uri, body: &Value) -> Result<Answer, ClientError> {
        let body = Bytes::from(body.to_string());
        let Some(connection) = self.connections.get_mut(self.current) else {
            return Err(ClientError::Timeout);
        };
        let answered = connection.post(uri, "application/json", body);
        tokio::time::timeout(ATTEMPT, answered).await.unwrap_or(Err(ClientError::Timeout))
    }

    /// Asks; a request that takes longer than this is given up.
    pub(super) async fn get(&mut self, path: &str, within: Duration) -> Option<Answer> {
        let connection = self.connections.get_mut(self.current)?;
        if let Ok(Ok(answer)) = tokio::time::timeout(within, connection.get(path)).await {
            return Some(answer);
        }
        self.turn_to_another();
        None
    }

    /// How a command ended, if it does within a few seconds and somebody answers.
    pub(crate) async fn ended(&mut self, command: &Command) -> Option<Ended> {
        let path = format!("/v1/commands/{}?wait=2", command.id);
        let answer = self.get(&path, ATTEMPT).await?;
        let resource: Value = serde_json::from_slice(&answer.body).ok()?;
        let outcome = resource.get("outcome")?;
        Some(Ended {
            status: resource.get("status")?.as_str()?.to_owned(),
            position: outcome["positions"][0].as_str().map(str::to_owned),
            version: outcome["version"].as_i64()?,
        })
    }

    /// The version of an account's document in the view `balances`, once it has applied this.
    pub(crate) async fn applied(&mut self, account: &str, position: &str) -> Option<i64> {
        let path = format!("/v1/views/balances/{account}?at={position}&wait=2");
        let answer = self.get(&path, ATTEMPT).await.filter(|it| it.status.is_success())?;
        serde_json::from_slice::<Value>(&answer.body).ok()?["version"].as_i64()
    }

    pub(super) fn turn_to_another(&mut self) {
        self.current = (self.current + 1) % self.connections.len().max(1);
    }
}

/// What an answer means, and whether it is the last word.
fn judge(answer: Result<Answer, ClientError>) -> (Told, bool) {
    match answer {
        Ok(answer) => match answer.status.as_u16() {
            200 | 202 => (Told::Accepted, true),
            // Nothing was accepted; the same may be accepted later.
            429 | 503 => (Told::Refused(answer.in_words()), false),
            500.. => (Told::Unknown(answer.in_words()), false),
            _ => (Told::Refused(answer.in_words()), true),
        },
        // Nobody heard it.
        Err(error @ ClientError::Connect(_)) => (Told::Refused(error.to_string()), false),
        Err(error) => (Told::Unknown(error.to_string()), false),
    }
}
