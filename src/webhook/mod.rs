//! Sending webhooks: signed as [Standard Webhooks](https://www.standardwebhooks.com/) says, one try
//! at a time, bounded in time and in what is read of the answer. Whoever sends keeps the message
//! durably, decides when to try again, and uses the same id each time; notification does, and so can
//! a callback.

mod endpoint;
mod send;
mod sign;

pub use endpoint::{Endpoint, InvalidEndpoint};
pub use send::{SendError, WebhookClient, WebhookLimits, WebhookMessage};
pub use sign::{InvalidSecret, SigningSecret};

/// Rust's TLS needs to be told once which cryptography to use; whoever was first has chosen.
fn install_crypto_provider() {
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
}
