//! `[notify]`.

use std::time::Duration;

use adjutant::{
    execute::RetryPolicy,
    observe::notify::{NotifySettings, NotifyWebhook, WebhookKind},
    webhook::{Endpoint, InvalidEndpoint, WebhookLimits},
};
use serde::{Deserialize, Serialize};

use super::SecretText;

/// Who is told of what is wrong, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// How often it is looked, in milliseconds.
    pub every_ms: u64,
    /// How many entries a group may be behind.
    pub lag_entries: i64,
    /// How old the oldest of them may be, in milliseconds.
    pub lag_ms: u64,
    /// How old the oldest row of the outbox may be, in milliseconds.
    pub outbox_ms: u64,
    /// After how long unseen a condition is over, in milliseconds.
    pub resolve_ms: u64,
    /// After how long people are told again, in milliseconds (0: never).
    pub remind_ms: u64,
    /// Who is told.
    pub webhooks: Vec<WebhookConfig>,
    /// How the service is called in messages.
    pub service: String,
    /// How long a message gathers changes, in milliseconds.
    pub gather_ms: u64,
    /// How far apart messages of one condition are, in milliseconds.
    pub apart_ms: u64,
    /// The most messages to a webhook within a minute.
    pub per_minute: i32,
    /// How long a connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a whole answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// The most tries of a message.
    pub attempts: i32,
    /// After how long a message is given up, in milliseconds.
    pub give_up_ms: u64,
}

/// Somebody who is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where.
    pub url: SecretText,
    /// In which form.
    pub kind: WebhookForm,
    /// What messages are signed with; empty: they are not.
    #[serde(default)]
    pub secret: SecretText,
}

/// The form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookForm {
    /// Every field, for programs.
    Json,
    /// For Slack and what is compatible with it.
    Slack,
}

impl WebhookConfig {
    fn endpoint(&self) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::new(self.url.expose(), self.secret.expose())
    }
}

impl NotifyConfig {
    /// What is wrong although every value has the right type.
    pub(super) fn errors(&self) -> Vec<String> {
        let mut errors: Vec<String> = self
            .webhooks
            .iter()
            .enumerate()
            .filter_map(|(i, webhook)| {
                let error = webhook.endpoint().err()?;
                Some(format!("notify.webhooks, number {}: {error}", i + 1))
            })
            .collect();
        let positive = [
            ("notify.every_ms", self.every_ms),
            ("notify.resolve_ms", self.resolve_ms),
            ("notify.per_minute", self.per_minute.max(0).unsigned_abs().into()),
            ("notify.attempts", self.attempts.max(0).unsigned_abs().into()),
            ("notify.connect_timeout_ms", self.connect_timeout_ms),
            ("notify.timeout_ms", self.timeout_ms),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        errors.extend(zero.map(|(key, _)| format!("{key} must be at least 1")));
        if self.resolve_ms < 2 * self.every_ms {
            errors.push("notify.resolve_ms must be at least twice notify.every_ms".into());
        }
        errors
    }

    /// As the library's settings.
    pub(crate) fn settings(&self) -> Result<NotifySettings, InvalidEndpoint> {
        let millis = Duration::from_millis;
        let webhooks = self.webhooks.iter().map(|webhook| {
            let kind = match webhook.kind {
                WebhookForm::Json => WebhookKind::Json,
                WebhookForm::Slack => WebhookKind::Slack,
            };
            webhook.endpoint().map(|endpoint| NotifyWebhook { endpoint, kind })
        });
        let defaults = NotifySettings::default();
        Ok(NotifySettings {
            every: millis(self.every_ms),
            lag_entries: self.lag_entries,
            lag_age: millis(self.lag_ms),
            outbox_age: millis(self.outbox_ms),
            resolve_after: millis(self.resolve_ms),
            remind_after: (self.remind_ms > 0).then(|| millis(self.remind_ms)),
            gather: millis(self.gather_ms),
            apart: millis(self.apart_ms),
            per_minute: self.per_minute,
            retry: RetryPolicy { max_elapsed: Some(millis(self.give_up_ms)), ..defaults.retry },
            attempts: self.attempts,
            service: self.service.clone(),
            webhooks: webhooks.collect::<Result<_, InvalidEndpoint>>()?,
            limits: WebhookLimits {
                connect: millis(self.connect_timeout_ms),
                total: millis(self.timeout_ms),
                ..defaults.limits
            },
        })
    }
}
