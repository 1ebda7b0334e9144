//! Sends commands by HTTP and keeps the log of what was answered.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::Uri;
use serde_json::Value;
use tokio::time::Instant;

use super::{Command, way::Way};
use crate::{
    chaos::{
        error::ChaosError,
        log::{Door, Ended, Log, Told},
        random::Draw,
    },
    load::{Answer, ClientError, Connection, Target},
};

/// How long an answer may take, besides what its sender waits for, before the client gives the
/// connection up.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a client tries to get a command accepted.
const PATIENCE: Duration = Duration::from_secs(40);

/// What came of a request.
pub(super) type Answered = Result<Answer, ClientError>;

/// How long a client goes on without a last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as it can.
    Long,
    /// Now and then it gives up early, so that there are commands of which nobody knows.
    Usual,
    /// One attempt.
    Once,
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
    pub(crate) async fn submit(
        &mut self,
        command: &Command,
        patience: Patience,
    ) -> (usize, Option<bool>) {
        let place = self.log.sends(self.client, Door::Http, command.clone());
        let began = Instant::now();
        loop {
            let (told, is_final) = if command.way.on_both {
                self.attempt_both(place, command).await
            } else {
                self.attempt(place, command).await
            };
            if is_final {
                return (place, Some(told.is_acceptance()));
            }
            // A refusal is believed more often: what is sent again and accepted then would hide that
            // it was accepted before.
            let often = if matches!(told, Told::Refused(_)) { 20 } else { 8 };
            let gives_up = match patience {
                Patience::Long => false,
                Patience::Usual => self.draw.happens(often),
                Patience::Once => true,
            };
            if gives_up || began.elapsed() > PATIENCE {
                return (place, None);
            }
            self.turn_to_another();
            tokio::time::sleep(self.draw.millis(30..250)).await;
        }
    }

    async fn attempt(&mut self, place: usize, command: &Command) -> (Told, bool) {
        self.log.attempts(place, self.current);
        let answer = self.post(command).await;
        self.hears(place, command, answer)
    }

    /// Through both lanes at once, to different processes: it has one effect, and whoever is answered
    /// with an end is answered with the same.
    async fn attempt_both(&mut self, place: usize, command: &Command) -> (Told, bool) {
        if self.connections.len() < 2 {
            return self.attempt(place, command).await;
        }
        self.log.attempts(place, self.current);
        self.log.attempts(place, self.current + 1);
        let queued = Command { way: command.way.by_the_queue(), ..command.clone() };
        let Some((one, other)) = self.two() else { return (unanswered(), false) };
        let both = futures_util::future::join(submit_to(one, command), submit_to(other, &queued));
        let (one, other) = both.await;
        let one = self.hears(place, command, one);
        let other = self.hears(place, command, other);
        match (one, other) {
            (accepted @ (Told::Accepted | Told::Ended(_), _), _)
            | (_, accepted @ (Told::Accepted | Told::Ended(_), _)) => accepted,
            ((_, true), refused @ (_, true)) => refused,
            (unclear @ (Told::Unknown(_), _), _) | (_, unclear) => (unclear.0, false),
        }
    }

    fn hears(&self, place: usize, command: &Command, answer: Answered) -> (Told, bool) {
        if let Ok(answer) = &answer
            && answer.status.as_u16() == 409
        {
            let (id, words) = (command.id, answer.in_words());
            self.log.violated(format!("command {id} was told to be taken by others: {words}"));
        }
        let (told, is_final) = judge(answer);
        self.log.told(place, &told);
        (told, is_final)
    }

    /// Sends something that is not logged as a new command.
    pub(super) async fn post(&mut self, command: &Command) -> Answered {
        match self.connections.get_mut(self.current) {
            Some(connection) => submit_to(connection, command).await,
            None => Err(ClientError::Timeout),
        }
    }

    /// Posts anything.
    pub(super) async fn post_to(&mut self, uri: &Uri, body: &Value) -> Answered {
        let Some(connection) = self.connections.get_mut(self.current) else {
            return Err(ClientError::Timeout);
        };
        connection.prefers(None);
        within(ATTEMPT, connection.post(uri, JSON, Bytes::from(body.to_string()))).await
    }

    /// Asks; a request that takes longer than this is given up.
    pub(super) async fn get(&mut self, path: &str, within: Duration) -> Option<Answer> {
        let connection = self.connections.get_mut(self.current)?;
        connection.prefers(None);
        if let Ok(Ok(answer)) = tokio::time::timeout(within, connection.get(path)).await {
            return Some(answer);
        }
        self.turn_to_another();
        None
    }

    /// Asks for the end of something.
    pub(super) async fn delete(&mut self, path: &str) -> Answered {
        match self.connections.get_mut(self.current) {
            Some(connection) => delete_at(connection, path).await,
            None => Err(ClientError::Timeout),
        }
    }

    /// The same, of two processes at once.
    pub(super) async fn delete_twice(&mut self, one: &str, other: &str) -> Option<[Answered; 2]> {
        let (a, b) = self.two()?;
        let both = futures_util::future::join(delete_at(a, one), delete_at(b, other));
        Some(both.await.into())
    }

    fn two(&mut self) -> Option<(&mut Connection, &mut Connection)> {
        let next = (self.current + 1) % self.connections.len().max(1);
        let [one, other] = self.connections.get_disjoint_mut([self.current, next]).ok()?;
        Some((one, other))
    }

    /// How a command ended, if it does within a few seconds and somebody answers.
    pub(crate) async fn ended(&mut self, command: &Command) -> Option<Ended> {
        let path = format!("/v1/commands/{}?wait=2", command.id);
        let answer = self.get(&path, ATTEMPT).await?;
        Ended::of(&serde_json::from_slice(&answer.body).ok()?)
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

fn unanswered() -> Told {
    Told::Unknown("there are no two to ask".into())
}

const JSON: &str = "application/json";

async fn submit_to(connection: &mut Connection, command: &Command) -> Answered {
    let Way { lane, waits, .. } = command.way;
    connection.prefers(command.way.preference());
    let body = Bytes::from(command.body(lane).to_string());
    let patience = ATTEMPT + Duration::from_secs(u64::from(waits));
    let uri = Uri::from_static("/v1/commands");
    within(patience, connection.post(&uri, JSON, body)).await
}

async fn delete_at(connection: &mut Connection, path: &str) -> Answered {
    connection.prefers(None);
    within(ATTEMPT, connection.delete(path)).await
}

async fn within(patience: Duration, answered: impl Future<Output = Answered>) -> Answered {
    tokio::time::timeout(patience, answered).await.unwrap_or(Err(ClientError::Timeout))
}

/// What an answer means, and whether it is the last word.
fn judge(answer: Answered) -> (Told, bool) {
    match answer {
        Ok(answer) => match answer.status.as_u16() {
            200 | 202 => {
                let resource = serde_json::from_slice(&answer.body).unwrap_or_default();
                let ended = Ended::of(&resource).map(Box::new);
                (ended.map_or(Told::Accepted, Told::Ended), true)
            }
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
