//! The configuration: a commented default file, then a file, then the environment, then flags; the
//! later wins. The default file names every setting, so it is also the list of keys that exist:
//! any other key is an error.

mod callbacks;
mod environment;
mod known_keys;
mod load;
mod notify;
mod retention;
mod retry;
mod roles;
mod secret;
mod sections;

#[cfg(test)]
mod tests;

pub use callbacks::CallbacksConfig;
pub use load::{ConfigError, Place, Settings, load};
pub use notify::{NotifyConfig, WebhookConfig, WebhookForm};
pub use retention::RetentionConfig;
pub use retry::{BreakerConfig, RetryConfig, RetryRule, TypeRule};
pub use roles::Roles;
pub use secret::{SecretText, SecretUrl};
pub use sections::{
    Admin, BankConfig, BrokerConfig, DatabaseConfig, EmbeddedConfig, ImmediateConfig, Log,
    LogFormat, Membership, RecurringConfig, RelayConfig, Server, Token, TokenRole, WorkerConfig,
};

use serde::{Deserialize, Serialize};

/// The default file, as `bank config` prints it.
pub const DEFAULT: &str = include_str!("default.toml");

/// Every setting. What each means stands in `default.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this process does.
    pub roles: Roles,
    /// How long stopping may take, in milliseconds.
    pub shutdown_ms: u64,
    /// Where data is if neither PostgreSQL nor RabbitMQ is configured.
    pub embedded: EmbeddedConfig,
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// RabbitMQ.
    pub broker: BrokerConfig,
    /// The HTTP API.
    pub server: Server,
    /// Probes and metrics.
    pub admin: Admin,
    /// Logs.
    pub log: Log,
    /// Command and projection workers.
    pub worker: WorkerConfig,
    /// What is done about commands that fail.
    pub retry: RetryConfig,
    /// When trying commands of a type is suspended.
    pub breaker: BreakerConfig,
    /// The immediate lane.
    pub immediate: ImmediateConfig,
    /// When a projection pauses.
    pub projection_breaker: BreakerConfig,
    /// The relay.
    pub relay: RelayConfig,
    /// Recurring commands.
    pub recurring: RecurringConfig,
    /// Heartbeats.
    pub membership: Membership,
    /// The bank itself.
    pub bank: BankConfig,
    /// Who is told of what is wrong.
    pub notify: NotifyConfig,
    /// Who is called back when a command ends.
    pub callbacks: CallbacksConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
}
