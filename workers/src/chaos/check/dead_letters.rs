//! What is in the dead-letter queues: of the intake, what it could not accept; of the groups, what
//! the broker gave up on.

use std::collections::HashMap;

use lapin::{
    Channel,
    message::Delivery,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use uuid::Uuid;

use super::Violations;
use crate::chaos::{
    INTAKE, PREFIX,
    error::ChaosError,
    faults::groups,
    services::{Rabbit, connect},
};

/// How often the broker delivers a message of a group before it gives up on it. Each crash of a
/// process is a delivery of everything that it had not acknowledged.
const DELIVERIES: usize = 20;

/// The intake's dead letters: each command, and why.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(HashMap<Uuid, String>);

impl DeadLetters {
    /// Takes all dead letters out of their queues; so many times a process crashed.
    pub(super) async fn take(
        rabbit: &Rabbit,
        crashes: usize,
        violations: &mut Violations,
    ) -> Result<Self, ChaosError> {
        let connection = connect(&rabbit.url()).await?;
        let mut letters = HashMap::new();
        let channel = connection.create_channel().await?;
        for delivery in all(&channel, &format!("{INTAKE}.dlq")).await? {
            match id(&delivery) {
                Some(id) => drop(letters.insert(id, reason(&delivery))),
                None => violations.found("dead letter without poison", || {
                    format!("a message without an id in {INTAKE}.dlq: {}", reason(&delivery))
                }),
            }
        }
        for group in groups()? {
            let queue = format!("{PREFIX}.{group}.dlq");
            // A queue that was full or expired is no fault, nor is that the broker gave up on what
            // was delivered to one crashing process after the other: the group reads the log.
            for delivery in all(&channel, &queue).await? {
                let reason = reason(&delivery);
                let is_wrong = match reason.as_str() {
                    "rejected" => true,
                    "delivery_limit" => crashes < DELIVERIES,
                    _ => false,
                };
                if is_wrong {
                    violations.found("dead letter without poison", || {
                        format!("a message in {queue}: {reason}")
                    });
                }
            }
        }
        connection.close(200, "done".into()).await?;
        Ok(Self(letters))
    }

    /// Why a command is among the intake's dead letters, if it is.
    pub(super) fn reason(&self, id: Uuid) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    #[cfg(test)]
    pub(super) fn of(letters: impl IntoIterator<Item = (Uuid, String)>) -> Self {
        Self(letters.into_iter().collect())
    }
}

async fn all(channel: &Channel, queue: &str) -> Result<Vec<Delivery>, ChaosError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    let mut all = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(message) = channel.basic_get(queue.into(), options).await? {
        all.push(message.delivery);
    }
    Ok(all)
}

/// As the intake names it, else as the client did (what the broker gave up on is unchanged).
fn id(delivery: &Delivery) -> Option<Uuid> {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let named = headers.inner().get("adjutant-message-id").and_then(text);
    let own = || delivery.properties.message_id().as_ref().map(ToString::to_string);
    named.or_else(own)?.parse().ok()
}

fn text(value: &AMQPValue) -> Option<String> {
    value.as_long_string().map(ToString::to_string)
}

/// The intake's own word, else the broker's.
fn reason(delivery: &Delivery) -> String {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let own = headers.inner().get("adjutant-reason").and_then(text);
    own.or_else(|| {
        let deaths = headers.inner().get("x-death")?.as_array()?;
        let last = deaths.as_slice().first()?.as_field_table()?;
        last.inner().get("reason").and_then(text)
    })
    .unwrap_or_else(|| "no reason given".into())
}
