//! One try to deliver one callback, from its body to what becomes of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::Url;

use super::{CallbackSettings, Writer};
use crate::{
    dead_letter::{DeadLetterId, fingerprint},
    execute::RetryPolicy,
    message::{Failure, Outcome, OutcomeStatus},
    observe::names,
    store::{
        CallbackEnd, ClaimedCallback, CommandRecord, DeadCallback, PastOutcome, Store, StoreError,
    },
    webhook::{Endpoint, SendError, SigningSecret, WebhookClient, WebhookMessage},
};

/// How long it is tried to write down how a try ended. What is not written down is sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a try needs. Shared by all that are under way.
pub(super) struct Delivery {
    pub(super) store: Arc<dyn Store>,
    pub(super) client: WebhookClient,
    pub(super) secrets: Arc<[SigningSecret]>,
    pub(super) write: Writer,
    pub(super) settings: CallbackSettings,
}

/// What a try was about, and whether the host worked, as far as it says something about it.
pub(super) struct Tried {
    pub(super) host: String,
    pub(super) worked: Option<bool>,
}

impl Delivery {
    /// Sends it, and writes down how that ended.
    pub(super) async fn run(&self, claimed: ClaimedCallback) -> Tried {
        let worked = self.attempt(&claimed).await;
        Tried { host: claimed.host, worked }
    }

    async fn attempt(&self, claimed: &ClaimedCallback) -> Option<bool> {
        let record = match self.command(claimed).await {
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(%error, id = %claimed.id, "a callback waits for the store");
                return None;
            }
        };
        let (endpoint, body) = match self.request(claimed, record.as_ref()) {
            Ok(request) => request,
            Err((code, message)) => {
                self.end(claimed, Self::dead(claimed, code, &message), "dead").await;
                return None;
            }
        };
        let message = WebhookMessage { id: claimed.id.to_string(), timestamp: claimed.now, body };
        let Err(error) = self.client.send(&endpoint, &message).await else {
            self.end(claimed, CallbackEnd::Delivered, "delivered").await;
            return Some(true);
        };
        let (end, result) = self.failed(claimed, &error);
        self.end(claimed, end, result).await;
        match error {
            SendError::NotPublic => None,
            error => Some(!error.is_of_the_host()),
        }
    }

    /// What is sent, and where; or why nothing ever can be.
    fn request(
        &self,
        claimed: &ClaimedCallback,
        record: Option<&CommandRecord>,
    ) -> Result<(Endpoint, Bytes), (&'static str, String)> {
        let gone = || "the command is not kept any more, or has not ended".to_owned();
        let record = record.ok_or_else(|| ("command_gone", gone()))?;
        let unreadable =
            |what, error: &dyn std::fmt::Display| ("callback_failed", format!("{what}: {error}"));
        let body = (self.write)(record)
            .map_err(|error| unreadable("the command cannot be written", &error))?;
        let url = Url::parse(&claimed.url)
            .map_err(|error| unreadable("the stored URL cannot be read", &error))?;
        Ok((Endpoint::of(url, self.secrets.clone()), body))
    }

    /// The command as it was when it ended that time, so that each try has the same bytes. `None`:
    /// it is not known (any more).
    async fn command(
        &self,
        claimed: &ClaimedCallback,
    ) -> Result<Option<CommandRecord>, StoreError> {
        let Some(mut record) = self.store.command(claimed.command_id).await? else {
            return Ok(None);
        };
        let is_that_end = |outcome: &Outcome| outcome.attempts == claimed.ended_after;
        if !record.outcome.as_ref().is_some_and(is_that_end) {
            // A person retried it since.
            let (partition, after) = (claimed.partition, claimed.ended_after);
            match self.store.past_outcome(partition, claimed.command_id, after).await? {
                Some(past) => take_back(&mut record, past),
                None if record.outcome.is_none() => return Ok(None),
                None => {}
            }
        }
        Ok(Some(record))
    }

    fn failed(&self, claimed: &ClaimedCallback, error: &SendError) -> (CallbackEnd, &'static str) {
        let text = error.to_string().replace('\0', "\u{fffd}");
        match error {
            SendError::NotPublic => (Self::dead(claimed, "callback_refused", &text), "refused"),
            SendError::Gone => (Self::dead(claimed, "callback_gone", &text), "dead"),
            _ if self.is_over(claimed) => (Self::dead(claimed, "callback_failed", &text), "dead"),
            _ => {
                let (id, command, tries) = (claimed.id, claimed.command_id, claimed.tries);
                tracing::debug!(%id, %command, tries, "a callback was not taken yet: {text}");
                (CallbackEnd::Again(self.settings.retry.nth_delay(claimed.tries), text), "failed")
            }
        }
    }

    fn is_over(&self, claimed: &ClaimedCallback) -> bool {
        let owed_for = claimed.now - claimed.owed_at;
        claimed.tries >= self.settings.attempts || owed_for >= self.settings.give_up_after
    }

    /// Gives up one that was not tried in time, because its host fails.
    pub(super) async fn expire(&self, claimed: &ClaimedCallback) {
        let last = claimed.error.as_deref().unwrap_or("it was not tried: its host failed");
        self.end(claimed, Self::dead(claimed, "callback_failed", last), "dead").await;
    }

    /// A person must look at it.
    fn dead(claimed: &ClaimedCallback, code: &str, message: &str) -> CallbackEnd {
        let (host, attempts) = (&claimed.host, claimed.attempts);
        tracing::error!(
            id = %claimed.id, command = %claimed.command_id, host, attempts, code,
            "a callback was not taken and is given up: {message}"
        );
        CallbackEnd::Dead(DeadCallback {
            letter: DeadLetterId::generate(),
            fingerprint: fingerprint(&format!("callback to {host}"), code, message),
            error: Failure::new(code, message),
        })
    }

    async fn end(&self, claimed: &ClaimedCallback, end: CallbackEnd, result: &'static str) {
        metrics::counter!(names::CALLBACKS_TOTAL, "result" => result).increment(1);
        let mut delays = RetryPolicy::within(PATIENCE).start();
        loop {
            let error = match self.store.end_callback(claimed, end.clone()).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::debug!(id = %claimed.id, "another process has taken a callback over");
                    return;
                }
                Err(error) => error,
            };
            let again = error.is_retryable() || matches!(error, StoreError::Unknown(_));
            if !again || !delays.wait().await {
                tracing::warn!(%error, id = %claimed.id, result,
                    "what became of a callback could not be written down; it is sent again");
                return;
            }
        }
    }
}

/// The command as it was before a person retried it.
fn take_back(record: &mut CommandRecord, past: PastOutcome) {
    record.failures.retain(|failed| failed.attempt.0 <= past.attempts);
    record.failed_attempts = record.failed_attempts.min(past.attempts);
    record.outcome = Some(Outcome {
        status: OutcomeStatus::Dead,
        positions: Vec::new(),
        version: past.version,
        reply: None,
        error: past.error,
        attempts: past.attempts,
        completed_at: past.completed_at,
    });
}
