//! Signatures by HMAC-SHA256 over `id.timestamp.body`, version `v1` of Standard Webhooks.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What every secret begins with, so that it is recognised where it should not be.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has: the specification advises 24 to 64, its own example has 18.
const BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// A text that is no secret. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// The prefix is missing.
    #[error("a secret begins with whsec_")]
    Prefix,
    /// What follows is not base64.
    #[error("what follows whsec_ is not base64 (RFC 4648, with padding)")]
    Base64,
    /// Too short to be safe, or too long.
    #[error("a secret has 16 to 64 bytes (24 or more are advised), this one has {0}")]
    Length(usize),
}

/// The secret that sender and receiver share. Never shown.
#[derive(Clone)]
pub struct SigningSecret(Hmac<Sha256>);

impl SigningSecret {
    /// The value of the header `webhook-signature`.
    ///
    /// ```
    /// # use adjutant::webhook::SigningSecret;
    /// // The example of the specification.
    /// let secret: SigningSecret = "whsec_plJ3nmyCDGBKInavdOK15jsl".parse()?;
    /// let body = br#"{"event_type":"ping","data":{"success":true}}"#;
    /// assert_eq!(
    ///     secret.sign("msg_loFOjxBNrRLzqYUf", 1731705121, body),
    ///     "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    /// );
    /// # Ok::<(), adjutant::webhook::InvalidSecret>(())
    /// ```
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl FromStr for SigningSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret::Base64)?;
        let length = InvalidSecret::Length(bytes.len());
        if !BYTES.contains(&bytes.len()) {
            return Err(length);
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|_| length)
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whsec_***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification_and_its_libraries_are_signed_alike() {
        let sign = |secret: &str, id, timestamp, body: &str| {
            secret.parse::<SigningSecret>().unwrap().sign(id, timestamp, body.as_bytes())
        };
        assert_eq!(
            sign(
                "whsec_plJ3nmyCDGBKInavdOK15jsl",
                "msg_loFOjxBNrRLzqYUf",
                1_731_705_121,
                r#"{"event_type":"ping","data":{"success":true}}"#,
            ),
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        );
        assert_eq!(
            sign(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        );
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_shown() {
        let refused = |text: &str| text.parse::<SigningSecret>().unwrap_err();
        assert_eq!(refused("plJ3nmyCDGBKInavdOK15jsl"), InvalidSecret::Prefix);
        assert_eq!(refused("whsec_not base64!"), InvalidSecret::Base64);
        assert_eq!(refused("whsec_c2hvcnQ="), InvalidSecret::Length(5));
        assert!(!refused("whsec_c2hvcnQ=").to_string().contains("c2hvcnQ"));
        let secret: SigningSecret = "whsec_plJ3nmyCDGBKInavdOK15jsl".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "whsec_***");
    }
}
