//! The HTTP API of a process, and clients for it.

#[path = "../../../src/ingress/http/tests/client.rs"]
mod client;
#[allow(dead_code)] // some of it only the tests beside the code need
#[path = "../../../src/ingress/http/tests/events.rs"]
mod events;

use std::{net::SocketAddr, sync::Arc};

use adjutant::{
    domain::Service,
    immediate::AsyncCommandProcessor,
    ingress::{
        GroupCommit, IngressSettings, OutboxLimit,
        http::{Ingress, IngressParts},
    },
    message::CommandId,
    observe::{Health, StoreCheck},
    signals::Signals,
    store::postgres::PostgresStore,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) use client::{Answer, Client};
pub(crate) use events::EventStream;

/// A running API; stops when dropped.
pub struct Api {
    pub address: SocketAddr,
    stop: CancellationToken,
}

impl Api {
    pub fn start(
        service: Service,
        store: Arc<PostgresStore>,
        signals: &Signals,
        settings: IngressSettings,
    ) -> Self {
        Self::start_with_lane(service, store, signals, settings, None)
    }

    pub fn start_with_lane(
        service: Service,
        store: Arc<PostgresStore>,
        signals: &Signals,
        settings: IngressSettings,
        immediate: Option<AsyncCommandProcessor>,
    ) -> Self {
        let stop = CancellationToken::new();
        let outbox = OutboxLimit::watch(store.clone(), settings.outbox_limit, stop.clone());
        let (commit, _) =
            GroupCommit::start(store.clone(), signals.clone(), outbox, &settings.commit);
        let health = Arc::new(Health::new().require(StoreCheck(store.clone())));
        health.mark_started();
        let running = Ingress::start(IngressParts {
            service,
            store,
            signals: signals.clone(),
            commit,
            immediate,
            settings: IngressSettings { listen: ([127, 0, 0, 1], 0).into(), ..settings },
            health,
            metrics: None,
            cache: None,
            ownership: None,
            shutdown: stop.clone(),
        })
        .expect("start");
        Self { address: running.local_addr, stop }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.client().await.request("GET", target, &[], b"").await
    }

    pub async fn submit(&self, command: &Value) -> Answer {
        self.submit_with(&[], command).await
    }

    pub async fn submit_with(&self, headers: &[(&str, &str)], command: &Value) -> Answer {
        submit(&mut self.client().await, headers, command).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends a command on a connection that is there already.
pub async fn submit(client: &mut Client, headers: &[(&str, &str)], command: &Value) -> Answer {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    client.request("POST", "/v1/commands", &all, command.to_string().as_bytes()).await
}

pub fn id_of(answer: &Answer) -> CommandId {
    answer.json()["id"].as_str().expect("an id").parse().expect("an id")
}
