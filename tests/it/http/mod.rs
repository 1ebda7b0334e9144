//! The HTTP API on real services: the contract end to end, and what careless, slow and hostile
//! clients and a failing database do to it. Every row of the contract's table on its own is tested
//! beside the code (`src/ingress/http/tests`).

mod clients;
mod end_to_end;
mod faults;
mod immediate;
mod payloads;

use std::collections::{HashMap, HashSet};

use adjutant::{ingress::IngressSettings, message::CommandId, signals::Signals};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    database::Database,
    domain,
    http::{Api, submit},
};

fn add(counter: &str, amount: i64) -> Value {
    json!({ "type": "counter.add", "stream": format!("counter/{counter}"), "payload": { "amount": amount } })
}

fn with(mut command: Value, field: &str, value: impl Into<Value>) -> Value {
    command[field] = value.into();
    command
}

async fn api_on(database: &Database, settings: IngressSettings) -> Api {
    Api::start(domain::service(), database.store().await, &Signals::default(), settings)
}

async fn stored(database: &Database) -> HashSet<CommandId> {
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM adjutant.commands")
        .fetch_all(&database.pool().await)
        .await
        .expect("look");
    ids.into_iter().map(CommandId).collect()
}

/// Clients that send until told to stop, each command under its own id; the answer to each.
async fn load(api: &Api, until: Instant) -> HashMap<CommandId, u16> {
    let clients = (0..32).map(async |n: usize| {
        let mut answers = Vec::new();
        let mut client = api.client().await;
        while Instant::now() < until {
            let id = CommandId::generate();
            let command = with(add(&format!("c{n}"), 1), "id", id.to_string());
            answers.push((id, submit(&mut client, &[], &command).await.status));
        }
        answers
    });
    join_all(clients).await.into_iter().flatten().collect()
}
