//! Callbacks: whoever named a `callback_url` with a command is sent the command by a POST when it has
//! ended, signed as Standard Webhooks define, at least once.
//!
//! What is owed is written with the outcome (`callbacks`), so no crash loses one. The relays deliver
//! it: each takes those of its partitions in hand for a while, so that one process sends and another
//! takes over when it is gone. Receivers are strangers: how many are called at a time is bounded,
//! for each host and over all, a host that fails is left alone for a while, and public addresses
//! alone are reached. See `docs/operations/callbacks.md`.

mod deliver;
mod hosts;
mod sender;
mod settings;

pub use settings::{CallbackSettings, HostBreaker};

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    message::Partition,
    signals::Signals,
    store::{CommandRecord, Store},
    webhook::{Reach, WebhookClient},
};

/// Writes a command.
pub type Writer = fn(&CommandRecord) -> Result<Bytes, serde_json::Error>;

/// What delivering works with.
pub struct CallbackParts {
    /// Where what is owed is kept.
    pub store: Arc<dyn Store>,
    /// Hints that more is owed.
    pub signals: Signals,
    /// The partitions whose callbacks it should deliver; others may serve the same for a moment.
    pub partitions: watch::Receiver<Vec<Partition>>,
    /// Writes a command as `GET /v1/commands/{id}` shows it.
    pub write: Writer,
    /// How it works.
    pub settings: CallbackSettings,
    /// Ends it; what is in hand is finished.
    pub stop: CancellationToken,
}

/// Callbacks cannot be sent: the system lacks something.
#[derive(Debug, thiserror::Error)]
#[error("callbacks cannot be sent: {0}")]
pub struct NoCallbacks(pub String);

/// Starts to deliver; `None` if there is no secret to sign with: then other processes deliver, or
/// nobody.
pub fn start(parts: CallbackParts) -> Result<Option<AbortOnDropHandle<()>>, NoCallbacks> {
    if parts.settings.secrets.is_empty() {
        return Ok(None);
    }
    let reach = if parts.settings.rules.allow_private { Reach::Anywhere } else { Reach::Internet };
    let client = WebhookClient::new(parts.settings.limits, reach).map_err(NoCallbacks)?;
    let sender = sender::Sender::new(parts, client);
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(sender.run()))))
}
