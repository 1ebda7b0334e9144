//! Follows a bounded sample of commands to their outcome, and to the view that shows them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Answer, ClientError, Connection, Latency, Target};

/// How long a command is followed before it counts as lost from sight.
const GIVE_UP: Duration = Duration::from_mins(3);
/// How long a long-poll waits, in seconds.
const WAIT: u64 = 30;

/// Follows commands, at most so many at a time; the others go unfollowed.
#[derive(Clone, Debug)]
pub struct Followers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    most: u32,
    free: Arc<Semaphore>,
    connections: Mutex<Vec<Connection>>,
    to_outcome: Latency,
    to_visible: Latency,
    lost: AtomicU64,
}

/// The part of the command resource that is needed.
#[derive(Deserialize)]
struct Command {
    outcome: Option<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    positions: Vec<String>,
}

impl Followers {
    /// Followers for an API.
    pub fn new(target: &Target, most: u32) -> Self {
        Self(Arc::new(Inner {
            target: target.clone(),
            most,
            free: Arc::new(Semaphore::new(most as usize)),
            connections: Mutex::default(),
            to_outcome: Latency::default(),
            to_visible: Latency::default(),
            lost: AtomicU64::new(0),
        }))
    }

    /// Follows a command, if somebody is free to. `submitted` is when it was (to be) sent.
    pub(super) fn follow(&self, id: Uuid, account: impl FnOnce() -> String, submitted: Instant) {
        let Ok(permit) = self.0.free.clone().try_acquire_owned() else { return };
        let (inner, account) = (self.0.clone(), account());
        tokio::spawn(async move {
            let taken = inner.connections().pop();
            let mut connection = taken.unwrap_or_else(|| Connection::new(&inner.target));
            if inner.follow(&mut connection, id, &account, submitted).await.is_none() {
                inner.lost.fetch_add(1, Ordering::Relaxed);
            }
            inner.connections().push(connection);
            drop(permit);
        });
    }

    /// Waits until all commands in hand are followed to the end.
    pub async fn finish(&self) {
        // The semaphore is never closed, so this cannot fail.
        let _ = self.0.free.acquire_many(self.0.most).await;
    }

    /// Submit → outcome.
    pub fn to_outcome(&self) -> &Latency {
        &self.0.to_outcome
    }

    /// Submit → the view `balances` shows it.
    pub fn to_visible(&self) -> &Latency {
        &self.0.to_visible
    }

    /// How many commands were lost from sight.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(
        &self,
        connection: &mut Connection,
        id: Uuid,
        account: &str,
        submitted: Instant,
    ) -> Option<()> {
        let path = format!("/v1/commands/{id}?wait={WAIT}");
        let outcome = until(submitted, connection, &path, |answer| {
            let command: Command = serde_json::from_slice(&answer.body).ok()?;
            command.outcome
        })
        .await?;
        self.to_outcome.record(submitted.elapsed());
        if let Some(position) = outcome.positions.last() {
            let path = format!("/v1/views/balances/{account}?at={position}&wait={WAIT}");
            until(submitted, connection, &path, |_| Some(())).await?;
            self.to_visible.record(submitted.elapsed());
        }
        Some(())
    }
}

/// Asks again and again until an answer of 200 has what is looked for.
async fn until<T>(
    since: Instant,
    connection: &mut Connection,
    path: &str,
    found: impl Fn(&Answer) -> Option<T>,
) -> Option<T> {
    while since.elapsed() < GIVE_UP {
        match connection.get(path).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                if let Some(found) = found(&answer) {
                    return Some(found);
                }
            }
            // The wait was over, or the server is not itself: it asked to come again.
            Ok(answer) if answer.status == StatusCode::GATEWAY_TIMEOUT => {}
            Ok(answer) if !answer.is_temporary() => return None,
            Ok(_)
            | Err(ClientError::Connect(_) | ClientError::Broken(_) | ClientError::Timeout) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(ClientError::Request(_)) => return None,
        }
    }
    None
}
