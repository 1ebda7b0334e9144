//! When people are told, and where.

use std::time::Duration;

use crate::execute::RetryPolicy;
#[cfg(feature = "webhooks")]
use crate::webhook::{Endpoint, WebhookLimits};

/// When people are told of what is wrong, and where.
#[derive(Clone, Debug)]
pub struct NotifySettings {
    /// How often a process looks.
    pub every: Duration,
    /// How many entries a group may be behind its log.
    pub lag_entries: i64,
    /// How old the oldest entry may be that a group has not finished.
    pub lag_age: Duration,
    /// How old the oldest row of the outbox may be.
    pub outbox_age: Duration,
    /// A condition is over when nobody has seen it for this long.
    pub resolve_after: Duration,
    /// One that lasts is told again after this long; `None`: never.
    pub remind_after: Option<Duration>,
    /// How long a message gathers changes of one condition.
    pub gather: Duration,
    /// How far apart messages of one condition to one webhook are.
    pub apart: Duration,
    /// How many messages a webhook gets within a minute at most.
    pub per_minute: i32,
    /// The waits between tries of one message; after `max_elapsed` it is given up.
    pub retry: RetryPolicy,
    /// How often one message is tried at most.
    pub attempts: i32,
    /// How the service is called in messages.
    pub service: String,
    /// Who is told.
    #[cfg(feature = "webhooks")]
    pub webhooks: Vec<NotifyWebhook>,
    /// What a receiver may take.
    #[cfg(feature = "webhooks")]
    pub limits: WebhookLimits,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            lag_entries: 100_000,
            lag_age: Duration::from_mins(1),
            outbox_age: Duration::from_secs(15),
            resolve_after: Duration::from_secs(30),
            remind_after: Some(Duration::from_hours(4)),
            gather: Duration::from_secs(5),
            apart: Duration::from_mins(1),
            per_minute: 20,
            retry: RetryPolicy {
                initial: Duration::from_secs(5),
                multiplier: 2.0,
                max_interval: Duration::from_mins(10),
                jitter: 0.2,
                max_elapsed: Some(Duration::from_hours(6)),
            },
            attempts: 30,
            service: "adjutant".to_owned(),
            #[cfg(feature = "webhooks")]
            webhooks: Vec::new(),
            #[cfg(feature = "webhooks")]
            limits: WebhookLimits::default(),
        }
    }
}

/// Somebody who is told.
#[cfg(feature = "webhooks")]
#[derive(Clone, Debug)]
pub struct NotifyWebhook {
    /// Where, and with which secret.
    pub endpoint: Endpoint,
    /// In which form.
    pub kind: WebhookKind,
}

/// The form of a message.
#[cfg(feature = "webhooks")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookKind {
    /// Every field, for programs.
    Json,
    /// `{"text": …}`, as Slack and what is compatible with it takes.
    Slack,
}
