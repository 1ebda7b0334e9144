//! Where a webhook goes. Its URL is often a secret itself (Slack's are), so it is never shown: in
//! logs, metrics and tables an endpoint goes by its host and a digest.

use std::{fmt, sync::Arc};

use reqwest::Url;
use sha2::{Digest as _, Sha256};

use super::{InvalidSecret, SigningSecret};

/// Why an endpoint cannot be used. It repeats neither URL nor secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URL.
    #[error("the URL is not valid: {0}")]
    Url(String),
    /// Another scheme.
    #[error("the URL must begin with https:// or http://")]
    Scheme,
    /// Not a secret.
    #[error(transparent)]
    Secret(#[from] InvalidSecret),
}

/// An address and, if requests to it are signed, the secrets.
#[derive(Clone)]
pub struct Endpoint {
    url: Url,
    secrets: Arc<[SigningSecret]>,
    name: String,
}

impl Endpoint {
    /// Checks both; an empty secret means that requests are not signed.
    pub fn new(url: &str, secret: &str) -> Result<Self, InvalidEndpoint> {
        let url = Url::parse(url).map_err(|error| InvalidEndpoint::Url(error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(InvalidEndpoint::Scheme);
        }
        let secrets = if secret.is_empty() { Vec::new() } else { vec![secret.parse()?] };
        Ok(Self::of(url, secrets.into()))
    }

    /// Signs with each of these secrets: a receiver takes any, so that secrets can be changed.
    pub(crate) fn of(url: Url, secrets: Arc<[SigningSecret]>) -> Self {
        let digest: [u8; 32] = Sha256::digest(url.as_str().as_bytes()).into();
        let [first, second, third, fourth, ..] = digest;
        let short = u32::from_be_bytes([first, second, third, fourth]);
        let name = format!("{}#{short:08x}", url.host_str().unwrap_or_default());
        Self { url, secrets, name }
    }

    /// `host#digest`: the same for the same URL, in every process.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The value of `webhook-signature`: a signature a secret, with a space between (Standard
    /// Webhooks, "Signature scheme").
    pub(super) fn signature(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
        let signatures: Vec<String> =
            self.secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_goes_by_its_host_and_a_digest() {
        let url = "https://user:pass@hooks.example/services/T000/B000/secret";
        let endpoint = Endpoint::new(url, "whsec_plJ3nmyCDGBKInavdOK15jsl").unwrap();
        assert!(endpoint.name().starts_with("hooks.example#"), "{}", endpoint.name());
        assert_eq!(endpoint.name().len(), "hooks.example#".len() + 8);
        let other = Endpoint::new("https://hooks.example/services/T001", "").unwrap();
        assert_ne!(endpoint.name(), other.name());
        let shown = format!("{endpoint:?}");
        assert!(!shown.contains("secret") && !shown.contains("pass"), "{shown}");
    }

    #[test]
    fn each_secret_signs() {
        let first = "whsec_plJ3nmyCDGBKInavdOK15jsl".parse::<SigningSecret>().unwrap();
        let second = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse::<SigningSecret>().unwrap();
        let both = [first.clone(), second.clone()];
        let url = || Url::parse("https://hooks.example/").unwrap();
        let expected = format!("{} {}", first.sign("a", 1, b"{}"), second.sign("a", 1, b"{}"));
        assert_eq!(Endpoint::of(url(), both.into()).signature("a", 1, b"{}"), Some(expected));
        assert_eq!(Endpoint::of(url(), [].into()).signature("a", 1, b"{}"), None);
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let refused = |url, secret| Endpoint::new(url, secret).unwrap_err();
        assert!(matches!(refused("hooks.example", ""), InvalidEndpoint::Url(_)));
        assert_eq!(refused("ftp://hooks.example/", ""), InvalidEndpoint::Scheme);
        let secret = refused("https://hooks.example/", "s3cret");
        assert_eq!(secret, InvalidEndpoint::Secret(InvalidSecret::Prefix));
    }
}
