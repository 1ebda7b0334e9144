//! One try to deliver one message.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode, redirect};

use super::{
    Endpoint, Reach, install_crypto_provider, is_public,
    resolve::{NotPublic, PublicAddresses, literal},
};
use crate::message::Timestamp;

/// How long a receiver may take, and how much of its answer is read.
#[derive(Clone, Copy, Debug)]
pub struct WebhookLimits {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until the answer is there, the connection included.
    pub total: Duration,
    /// Of the answer's body; the rest is not read.
    pub answer_bytes: usize,
}

impl Default for WebhookLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            total: Duration::from_secs(10),
            answer_bytes: 4 * 1024,
        }
    }
}

/// What is sent. The id stays the same when a message is sent again, so that a receiver can tell.
#[derive(Clone, Debug)]
pub struct WebhookMessage {
    /// `webhook-id`.
    pub id: String,
    /// The time of this try: `webhook-timestamp`, in seconds since 1970.
    pub timestamp: Timestamp,
    /// JSON.
    pub body: Bytes,
}

/// Why a message did not arrive. No text here holds the URL.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It is no address of the internet, and others must not be reached.
    #[error("the address is not a public one")]
    NotPublic,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It answered with a redirect, which is not followed.
    #[error("it answered {0}, a redirect; redirects are not followed")]
    Redirect(StatusCode),
    /// It answered that it did not take it.
    #[error("it answered {0}")]
    Refused(StatusCode, String),
    /// It answered 410: it wants no more.
    #[error("it answered 410 Gone: it takes no messages any more")]
    Gone,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl SendError {
    /// Whether a later try could succeed.
    pub fn may_succeed_later(&self) -> bool {
        !matches!(self, Self::Gone | Self::NotPublic)
    }

    /// Whether it says something about the whole host: that it cannot be reached, or fails.
    pub fn is_of_the_host(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout(_) | Self::Broken(_) => true,
            Self::Refused(status, _) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::NotPublic | Self::Redirect(_) | Self::Gone => false,
        }
    }
}

/// Sends messages. Cheap to clone; connections are kept and shared.
#[derive(Clone, Debug)]
pub struct WebhookClient {
    client: Client,
    limits: WebhookLimits,
    reach: Reach,
}

impl WebhookClient {
    /// A client; the error says what the system lacks (root certificates, say).
    pub fn new(limits: WebhookLimits, reach: Reach) -> Result<Self, String> {
        install_crypto_provider();
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("adjutant/", env!("CARGO_PKG_VERSION")));
        let builder = match reach {
            Reach::Anywhere => builder,
            Reach::Internet => builder
                .no_proxy()
                .pool_max_idle_per_host(0)
                .dns_resolver(std::sync::Arc::new(PublicAddresses)),
        };
        Ok(Self { client: builder.build().map_err(error_text)?, limits, reach })
    }

    /// Sends once; `Ok` means that the receiver answered 2xx.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        message: &WebhookMessage,
    ) -> Result<(), SendError> {
        if self.reach == Reach::Internet && literal(endpoint.url()).is_some_and(|it| !is_public(it))
        {
            return Err(SendError::NotPublic);
        }
        let timestamp = message.timestamp.unix_timestamp();
        let mut request = self
            .client
            .post(endpoint.url().clone())
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp);
        if let Some(signature) = endpoint.signature(&message.id, timestamp, &message.body) {
            request = request.header("webhook-signature", signature);
        }
        let sent = request.body(message.body.clone()).send().await;
        let response = sent.map_err(|error| self.failed(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(match status {
            StatusCode::GONE => SendError::Gone,
            _ if status.is_redirection() => SendError::Redirect(status),
            _ => SendError::Refused(status, self.beginning(response).await),
        })
    }

    /// What a person wants to see of an answer. It is cut where the limit is, or where it breaks.
    async fn beginning(&self, mut response: Response) -> String {
        let mut read = Vec::new();
        while read.len() < self.limits.answer_bytes
            && let Ok(Some(chunk)) = response.chunk().await
        {
            let room = self.limits.answer_bytes - read.len();
            read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        }
        String::from_utf8_lossy(&read).chars().filter(|c| !c.is_control()).take(200).collect()
    }

    fn failed(&self, error: reqwest::Error) -> SendError {
        if is_not_public(&error) {
            SendError::NotPublic
        } else if error.is_timeout() {
            SendError::Timeout(self.limits.total)
        } else if error.is_connect() {
            SendError::Connect(error_text(error))
        } else {
            SendError::Broken(error_text(error))
        }
    }
}

/// Whether the resolver found nothing that may be reached.
fn is_not_public(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<NotPublic>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The innermost cause; the outer texts may hold the URL.
fn error_text(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
