//! Sending webhooks: signed as [Standard Webhooks](https://www.standardwebhooks.com/) says, one try
//! at a time, bounded in time and in what is read of the answer. Whoever sends keeps the message
//! durably, decides when to try again, and uses the same id each time: notification does, and so do
//! callbacks. Where somebody else than the operator says where requests go, public addresses alone
//! are reached.

mod address;
mod endpoint;
mod resolve;
mod send;
mod sign;
mod target;

pub use address::is_public;
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use resolve::Reach;
pub use send::{SendError, WebhookClient, WebhookLimits, WebhookMessage};
pub use sign::{InvalidSecret, SigningSecret};
pub use target::{CallbackTarget, InvalidTarget, LONGEST_URL, TargetRules};

/// Rust's TLS needs to be told once which cryptography to use; whoever was first has chosen.
fn install_crypto_provider() {
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
}
