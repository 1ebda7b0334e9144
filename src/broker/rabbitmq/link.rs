//! One supervised connection: opened when first needed, thrown away after any error, opened again
//! for whoever asks next. Callers that ask at the same time share one attempt.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{Channel, Connection, ConnectionStatus, Event};
use tokio::{sync::Mutex, time::Instant};
use tracing::{info, warn};

use super::{connect::connect, error::unavailable, settings::Endpoint};
use crate::broker::BrokerError;

/// How long the broker may take to answer a request on an open connection. Declaring a quorum
/// queue on a busy broker takes seconds.
const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a polite farewell may take. A connection that the broker blocks cannot even say it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection for one purpose, `publish` or `consume`: a memory alarm blocks whole
/// connections, so the two never share one.
pub(super) struct Link {
    purpose: &'static str,
    name: String,
    endpoint: Arc<Endpoint>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    failure: Option<(Instant, String)>,
    closed: bool,
}

impl Link {
    pub(super) fn new(purpose: &'static str, name: &str, endpoint: Arc<Endpoint>) -> Self {
        let name = format!("{name} {purpose}");
        Self { purpose, name, endpoint, state: Mutex::default() }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The open connection, or a new one.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, BrokerError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(BrokerError::Unavailable("this process closed it".to_owned()));
        }
        if let Some(connection) = state.connection.as_ref().filter(|open| open.status().connected())
        {
            return Ok(Arc::clone(connection));
        }
        state.connection = None;
        // An attempt that failed while this caller waited counts for it too: otherwise callers
        // would queue up, each for a whole connect timeout.
        if let Some((_, text)) = state.failure.as_ref().filter(|(when, _)| *when >= asked) {
            return Err(BrokerError::Unavailable(text.clone()));
        }
        match connect(&self.endpoint, &self.name).await {
            Ok(connection) => {
                info!(broker = %self.endpoint, connection = self.purpose, "connected to RabbitMQ");
                metrics::counter!("adjutant_broker_connections_opened_total", "connection" => self.purpose)
                    .increment(1);
                watch(&connection, self.purpose, Arc::clone(&self.endpoint));
                Ok(Arc::clone(state.connection.insert(Arc::new(connection))))
            }
            Err(error) => {
                if let BrokerError::Unavailable(text) = &error {
                    state.failure = Some((Instant::now(), text.clone()));
                }
                Err(error)
            }
        }
    }

    /// A new channel. A connection that cannot give one is thrown away.
    pub(super) async fn channel(&self) -> Result<OwnChannel, BrokerError> {
        let connection = self.connection().await?;
        if connection.status().blocked() {
            // It would not even send the request (lapin stops writing), so fail at once.
            let text = format!("{} blocks publishers: memory or disk alarm", self.endpoint);
            return Err(BrokerError::Unavailable(text));
        }
        match self.within(connection.create_channel()).await {
            Ok(channel) => Ok(OwnChannel { channel, connection: connection.status().clone() }),
            Err(error) => {
                self.discard(&connection).await;
                Err(error)
            }
        }
    }

    /// Waits for the broker's answer to a request, but not for ever.
    pub(super) async fn within<T>(
        &self,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        match tokio::time::timeout(RPC_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(|error| unavailable(&self.endpoint, &error)),
            Err(_) => Err(self.silent()),
        }
    }

    /// Like [`Self::within`], leaving the broker's refusal for the caller to look at.
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<lapin::Result<T>, BrokerError> {
        tokio::time::timeout(RPC_TIMEOUT, request).await.map_err(|_| self.silent())
    }

    fn silent(&self) -> BrokerError {
        BrokerError::Unavailable(format!("{} did not answer in {RPC_TIMEOUT:?}", self.endpoint))
    }

    async fn discard(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock().await;
        if let Some(current) = state.connection.take_if(|open| Arc::ptr_eq(open, connection)) {
            tokio::spawn(farewell(current));
        }
    }

    /// Closes the connection for good.
    pub(super) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        if let Some(connection) = state.connection.take() {
            farewell(connection).await;
        }
    }
}

async fn farewell(connection: Arc<Connection>) {
    // Failing to say goodbye to a connection that is lost changes nothing.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await;
}

/// Reports what happens to a connection, until it is gone.
fn watch(connection: &Connection, purpose: &'static str, endpoint: Arc<Endpoint>) {
    let status = connection.status().clone();
    let mut events = connection.events_listener().boxed();
    let blocked = metrics::gauge!("adjutant_broker_blocked", "connection" => purpose);
    blocked.set(0);
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(reason) => {
                    blocked.set(1);
                    warn!(broker = %endpoint, connection = purpose, %reason, "blocked by RabbitMQ");
                }
                Event::ConnectionUnblocked => {
                    blocked.set(0);
                    info!(broker = %endpoint, connection = purpose, "no longer blocked");
                }
                // Errors of single channels come here too; those their owners report.
                Event::Error(error) if !status.connected() => {
                    let error = endpoint.redact(&error.to_string());
                    warn!(broker = %endpoint, connection = purpose, error, "lost RabbitMQ");
                    break;
                }
                _ => {}
            }
        }
        blocked.set(0);
    });
}

/// A channel with one owner, closed when that owner is dropped.
///
/// It is closed here, and at once, because what lapin does by itself on drop would cancel the
/// consumer first (its successor then sees the unacknowledged messages out of order), and would
/// tear the whole connection down if the channel were closed by the broker at the same time.
pub(super) struct OwnChannel {
    channel: Channel,
    connection: ConnectionStatus,
}

impl OwnChannel {
    /// The state of the connection that the channel is on.
    pub(super) fn connection(&self) -> &ConnectionStatus {
        &self.connection
    }
}

impl std::ops::Deref for OwnChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for OwnChannel {
    fn drop(&mut self) {
        // The first poll marks the channel as closing and queues the frame; nobody needs the answer.
        let _ = self.channel.close(200, "OK".into()).now_or_never();
    }
}
