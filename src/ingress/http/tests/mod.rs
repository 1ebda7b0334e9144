//! The contract of the HTTP API, over real sockets, on a store in memory.

mod cancelling;
mod client;
mod events;
mod letters;
mod queries;
mod recurring;
mod server;
mod submitting;
mod watching;

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::client::{Answer, Client};
use super::{CacheReport, CacheStats, Ingress, IngressParts, OwnershipReport, StartError};
use crate::{
    broker::GroupPartition,
    ingress::{
        AccessRole, GroupCommit, IngressSettings, OutboxLimit, TokenSettings,
        testing::{MemoryStore, bank},
    },
    message::{CommandId, GroupName, Partition},
    observe::{Health, StoreCheck, install_metrics},
    signals::Signals,
    store::Member,
};

/// A running API on a store in memory.
struct Api {
    store: Arc<MemoryStore>,
    signals: Signals,
    health: Arc<Health>,
    address: SocketAddr,
    stop: CancellationToken,
    join: JoinHandle<()>,
}

impl Api {
    async fn start() -> Self {
        Self::with(IngressSettings::default()).await
    }

    async fn with(settings: IngressSettings) -> Self {
        Self::on(MemoryStore::default(), settings).await
    }

    async fn on(store: MemoryStore, settings: IngressSettings) -> Self {
        Self::try_on(store, settings).await.unwrap()
    }

    /// Another process on the same store.
    async fn beside(other: &Self) -> Self {
        Self::on_shared(other.store.clone(), IngressSettings::default()).await.unwrap()
    }

    async fn try_on(store: MemoryStore, settings: IngressSettings) -> Result<Self, StartError> {
        Self::on_shared(Arc::new(store), settings).await
    }

    async fn on_shared(
        store: Arc<MemoryStore>,
        settings: IngressSettings,
    ) -> Result<Self, StartError> {
        // Before anything that keeps handles of metrics.
        let metrics = install_metrics().ok();
        let signals = Signals::default();
        let stop = CancellationToken::new();
        let outbox = OutboxLimit::watch(store.clone(), settings.outbox_limit, stop.clone());
        let (commit, _) =
            GroupCommit::start(store.clone(), signals.clone(), outbox, &settings.commit);
        let health = Arc::new(Health::new().require(StoreCheck(store.clone())));
        health.mark_started();
        let running = Ingress::start(IngressParts {
            service: bank(),
            store: store.clone(),
            signals: signals.clone(),
            commit,
            immediate: None,
            settings: IngressSettings { listen: ([127, 0, 0, 1], 0).into(), ..settings },
            health: health.clone(),
            metrics,
            cache: Some(Arc::new(OneCache)),
            ownership: Some(Arc::new(OwnsOne)),
            shutdown: stop.clone(),
        })?;
        let (address, join) = (running.local_addr, running.join);
        // The outbox has been looked at when this returns.
        tokio::task::yield_now().await;
        Ok(Self { store, signals, health, address, stop, join })
    }

    async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        Client::connect(self.address).await.request(method, target, headers, body).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], b"").await
    }

    async fn submit(&self, command: &Value) -> Answer {
        self.submit_with(&[], command).await
    }

    async fn submit_with(&self, headers: &[(&str, &str)], command: &Value) -> Answer {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        self.request("POST", "/v1/commands", &all, command.to_string().as_bytes()).await
    }

    async fn submit_batch(&self, lines: &str) -> Answer {
        let headers = [("Content-Type", "application/x-ndjson")];
        self.request("POST", "/v1/commands/batch", &headers, lines.as_bytes()).await
    }
}

struct OneCache;

impl CacheReport for OneCache {
    fn caches(&self) -> Vec<CacheStats> {
        vec![CacheStats { name: "aggregates".into(), hits: 3, ..CacheStats::default() }]
    }
}

struct OwnsOne;

impl OwnershipReport for OwnsOne {
    fn owned_by(&self, members: &[Member]) -> Vec<Vec<GroupPartition>> {
        let owned =
            |_| vec![GroupPartition { group: GroupName::commands(), partition: Partition(3) }];
        members.iter().map(owned).collect()
    }
}

fn deposit(amount: i64) -> Value {
    json!({ "type": "account.deposit", "stream": "account/acc-42", "payload": { "amount": amount } })
}

fn with(mut command: Value, field: &str, value: impl Into<Value>) -> Value {
    command[field] = value.into();
    command
}

fn id_of(answer: &Answer) -> CommandId {
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

/// SHA-256 of `secret`, and of `other`.
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

fn token(name: &str, sha256: &str, roles: &[AccessRole]) -> TokenSettings {
    TokenSettings {
        name: name.into(),
        sha256: sha256.into(),
        roles: roles.to_vec(),
        commands_per_second: None,
    }
}
