//! What a deployment chooses about RabbitMQ, and the parsed address. Credentials stay in here:
//! nothing that is printed shows them.

use std::{fmt, time::Duration};

use lapin::uri::AMQPUri;

/// The heartbeat that is asked for when the URL does not name one. A stopped consumer is replaced
/// after two missed ones (measured: 10.8 s); with RabbitMQ's own 60 s it takes minutes.
const HEARTBEAT_SECONDS: u16 = 4;

/// How RabbitMQ is reached and what its queues may hold.
///
/// The limits are part of the queues' declaration: changing them for queues that exist makes
/// RabbitMQ refuse the declaration, see [`BrokerError::Incompatible`](crate::broker::BrokerError).
#[derive(Clone)]
pub struct RabbitSettings {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS. A heartbeat of 4 s is added
    /// if `?heartbeat=` does not set one. An empty virtual host means `/`.
    pub url: String,
    /// What the names of all exchanges and queues start with: `adjutant`. 1–64 of `[A-Za-z0-9._-]`.
    pub prefix: String,
    /// How long a confirmation may take: 10 s.
    pub confirm_timeout: Duration,
    /// The most messages that one queue of a group holds: 10,000. More push out the oldest, which
    /// the group then reads from its log.
    pub queue_max_messages: u32,
    /// The most bytes of bodies that one queue of a group holds: 64 MiB.
    pub queue_max_bytes: u64,
    /// How often a message is delivered before it goes to the dead-letter queue: 20.
    pub delivery_limit: u32,
    /// What RabbitMQ shows for the connections of this process: `adjutant`.
    pub connection_name: String,
}

impl RabbitSettings {
    /// The defaults, with this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "adjutant".to_owned(),
            confirm_timeout: Duration::from_secs(10),
            queue_max_messages: 10_000,
            queue_max_bytes: 64 * 1024 * 1024,
            delivery_limit: 20,
            connection_name: "adjutant".to_owned(),
        }
    }
}

impl fmt::Debug for RabbitSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitSettings")
            .field("prefix", &self.prefix)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("queue_max_messages", &self.queue_max_messages)
            .field("queue_max_bytes", &self.queue_max_bytes)
            .field("delivery_limit", &self.delivery_limit)
            .field("connection_name", &self.connection_name)
            .finish_non_exhaustive()
    }
}

/// Settings with which no broker can be reached. A person must change them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRabbitSettings {
    /// The URL cannot be read. It is not repeated here, because it may hold a password.
    #[error(
        "the AMQP URL cannot be read; write amqp://user:password@host:5672/vhost (or amqps://), \
         with special characters in user, password and vhost percent-encoded"
    )]
    Url,
    /// The prefix is not 1–64 bytes of `[A-Za-z0-9._-]`.
    #[error("the broker prefix `{0}` must be 1 to 64 bytes of [A-Za-z0-9._-]")]
    Prefix(String),
}

/// The broker's address, parsed. Shown without credentials.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) uri: AMQPUri,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Self, InvalidRabbitSettings> {
        let mut uri: AMQPUri = url.trim().parse().map_err(|_| InvalidRabbitSettings::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        if let Some(address) = ipv6_literal(url) {
            uri.authority.host = address;
        }
        Ok(Self { uri })
    }

    /// Takes user name and password out of a text that came from the broker or a library.
    pub(super) fn redact(&self, text: &str) -> String {
        let userinfo = &self.uri.authority.userinfo;
        [&userinfo.password, &userinfo.username]
            .into_iter()
            .filter(|secret| secret.len() >= 3)
            .fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        write!(f, "{}:{} vhost {}", authority.host, authority.port, self.uri.vhost)
    }
}

/// The host of `amqp://[::1]:5672`: the URI library drops it and connects to localhost instead.
fn ipv6_literal(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(address, _)| address.to_owned())
}

/// Checks a prefix: whatever it is put before must stay below AMQP's 255 bytes.
pub(super) fn check_prefix(prefix: &str) -> Result<(), InvalidRabbitSettings> {
    let fits = (1..=64).contains(&prefix.len())
        && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    fits.then_some(()).ok_or_else(|| InvalidRabbitSettings::Prefix(prefix.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_a_heartbeat_and_a_virtual_host() {
        let uri = Endpoint::parse("amqp://u:p@broker.example/").expect("valid").uri;
        assert_eq!((uri.query.heartbeat, uri.vhost.as_str()), (Some(4), "/"));
        let uri = Endpoint::parse("amqp://broker.example/shop?heartbeat=2").expect("valid").uri;
        assert_eq!((uri.query.heartbeat, uri.vhost.as_str()), (Some(2), "shop"));
        let uri = Endpoint::parse("amqp://u:p@[::1]:5673/x").expect("valid").uri;
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("::1", 5673));
    }

    #[test]
    fn credentials_are_never_shown() {
        let url = "amqp://alice:s3cret@broker.example:5672/shop";
        let endpoint = Endpoint::parse(url).expect("valid");
        let shown = format!(
            "{endpoint} {:?} {}",
            RabbitSettings::new(url),
            endpoint.redact("access to vhost 'shop' refused for user 'alice' with s3cret")
        );
        assert!(!shown.contains("alice") && !shown.contains("s3cret"), "{shown}");
        let error = Endpoint::parse("guest:s3cret@host").err().expect("invalid").to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_prefix_is_short_and_plain() {
        assert_eq!(check_prefix("adjutant.test-1"), Ok(()));
        for bad in ["", "a b", &"x".repeat(65)] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
