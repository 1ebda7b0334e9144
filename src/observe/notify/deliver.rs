//! One task a webhook, one message at a time: whatever a receiver does, nothing else waits for it.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    NotifySettings, NotifyWebhook,
    body::{self, Alert},
    watch::count,
};
use crate::{
    store::{ClaimedNotification, NotificationEnd, Store, StoreError},
    webhook::{SendError, WebhookClient, WebhookMessage},
};

/// How often it is looked for a message that is due.
const POLL: Duration = Duration::from_secs(1);
/// How much longer a message is leased than a try may take.
const LEASE_SPARE: Duration = Duration::from_secs(20);

pub(super) struct Delivery {
    pub(super) store: Arc<dyn Store>,
    pub(super) client: WebhookClient,
    pub(super) webhook: NotifyWebhook,
    pub(super) settings: NotifySettings,
    pub(super) stop: CancellationToken,
}

impl Delivery {
    pub(super) async fn run(self) {
        loop {
            let wait = match self.step().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => POLL.min(self.settings.every),
                Err(error) => {
                    tracing::debug!(%error, "notifications wait for the store");
                    POLL
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sends the next message; whether there was one.
    async fn step(&self) -> Result<bool, StoreError> {
        let lease = self.settings.limits.total + LEASE_SPARE;
        let name = self.webhook.endpoint.name();
        let claimed = self.store.claim_notification(name, self.settings.per_minute, lease).await?;
        let Some(claimed) = claimed else { return Ok(false) };
        let (end, alerts) = self.send(&claimed).await;
        let result = match &end {
            NotificationEnd::Sent => "sent",
            NotificationEnd::Again(..) => "failed",
            NotificationEnd::GivenUp(_) => "given_up",
        };
        for state in ["firing", "resolved"] {
            let n = alerts.iter().filter(|alert| alert.state == state).count() as u64;
            if n > 0 {
                count(&claimed.condition, state, result, n);
            }
        }
        self.store.end_notification(claimed.id, claimed.attempts, end).await?;
        Ok(true)
    }

    async fn send(&self, claimed: &ClaimedNotification) -> (NotificationEnd, Vec<Alert>) {
        let alerts: Vec<Alert> = match claimed.alerts.decode() {
            Ok(alerts) => alerts,
            Err(error) => {
                let text = format!("the stored alerts cannot be read: {error}");
                tracing::error!(id = %claimed.id, text);
                return (NotificationEnd::GivenUp(text), Vec::new());
            }
        };
        let message = WebhookMessage {
            id: claimed.id.to_string(),
            timestamp: claimed.now,
            body: body::write(self.webhook.kind, &self.settings.service, claimed, &alerts),
        };
        let sent = self.client.send(&self.webhook.endpoint, &message).await;
        (sent.map_or_else(|error| self.failed(claimed, &error), |()| NotificationEnd::Sent), alerts)
    }

    fn failed(&self, claimed: &ClaimedNotification, error: &SendError) -> NotificationEnd {
        let (webhook, attempts) = (self.webhook.endpoint.name(), claimed.attempts);
        let tried_for = claimed.now - claimed.first_tried_at;
        let too_long = self.settings.retry.max_elapsed.is_some_and(|limit| tried_for >= limit);
        if too_long || attempts >= self.settings.attempts || !error.may_succeed_later() {
            tracing::error!(webhook, %error, attempts, condition = claimed.condition,
                "a notification did not arrive and is given up");
            return NotificationEnd::GivenUp(error.to_string());
        }
        tracing::warn!(webhook, %error, attempts, "a notification did not arrive yet");
        NotificationEnd::Again(self.settings.retry.nth_delay(attempts), error.to_string())
    }
}
