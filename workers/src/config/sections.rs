//! The sections of the configuration.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::SecretUrl;

/// Everything in one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The directory of the database.
    pub directory: PathBuf,
}

/// PostgreSQL.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Where it is; empty if not set.
    pub url: SecretUrl,
    /// Connections for the hot path.
    pub hot_connections: usize,
    /// Connections for queries.
    pub read_connections: u32,
    /// Whether a process that starts runs the missing migrations.
    pub migrate_at_start: bool,
    /// How many partitions a database gets when it is initialised.
    pub partitions: i64,
}

/// RabbitMQ.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where it is; empty if not set.
    pub url: SecretUrl,
    /// What the names of exchanges and queues start with.
    pub prefix: String,
    /// How many messages a work queue holds.
    pub queue_length: u32,
    /// How many messages a consumer may have unacknowledged.
    pub prefetch: u16,
    /// Whether commands are taken from `{prefix}.intake`.
    pub intake: bool,
}

/// The HTTP API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether callers without a token may do everything.
    pub allow_anonymous: bool,
    /// A file with tokens; empty if none.
    pub tokens_file: String,
    /// Tokens, besides those of the file.
    pub tokens: Vec<Token>,
    /// The largest body of one command, in bytes.
    pub max_body_bytes: usize,
    /// The largest body of a batch, in bytes.
    pub max_batch_bytes: usize,
    /// The most lines of a batch.
    pub max_batch_lines: usize,
    /// The most connections at a time.
    pub max_connections: usize,
    /// The most clients that wait for commands, and the most that wait for views.
    pub max_waiters: usize,
    /// How long a request's head may take, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a request's body may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a client may take nothing of its answer, in milliseconds.
    pub write_timeout_ms: u64,
    /// The most commands that wait for a group commit.
    pub intake_queue: usize,
    /// The most commands of one group commit.
    pub intake_batch: usize,
    /// The most intake transactions at a time.
    pub intake_flights: usize,
    /// The most rows in the outbox before commands are refused.
    pub max_outbox_rows: i64,
}

/// A bearer token of which only the hash is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose it is, for logs.
    pub name: String,
    /// SHA-256 of the token, in hex.
    pub sha256: String,
    /// What its bearer may do.
    pub roles: Vec<TokenRole>,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// Send commands and ask for their status.
    Submit,
    /// Read views and streams.
    Read,
    /// Operate the service.
    Operate,
}

/// Probes and metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where they are served.
    pub listen: SocketAddr,
}

/// Logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For people or for programs.
    pub format: LogFormat,
    /// Which events, by level and module.
    pub level: String,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Command and projection workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The most entries of one transaction.
    pub batch: usize,
    /// How far apart transactions of one group begin under load, in milliseconds (0: not).
    pub pace_ms: u64,
    /// The most memory of the aggregate cache, in bytes.
    pub cache_bytes: u64,
    /// A snapshot every so many events (0: never).
    pub snapshot_every: i64,
    /// How long the log's head is left alone when nothing is delivered, in milliseconds.
    pub idle_check_ms: u64,
    /// How often an event that a projection cannot apply is tried before its key is parked.
    pub projection_tries: u32,
    /// The first wait between two of those tries, in milliseconds.
    pub projection_retry_ms: u64,
    /// The most events of one transaction of a replay.
    pub replay_batch: usize,
    /// How long a command of unknown type is set aside, in milliseconds.
    pub unknown_type_delay_ms: i64,
    /// How many handlers may hang at a time.
    pub hanging_handlers: usize,
}

/// The immediate lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImmediateConfig {
    /// The most executions at a time.
    pub executions: usize,
    /// The most transactions at a time.
    pub transactions: usize,
    /// The most commands that wait or are executed.
    pub waiting_commands: usize,
    /// The most bytes that they hold.
    pub waiting_bytes: usize,
    /// How often it is looked for what fell due, in milliseconds.
    pub due_poll_ms: u64,
}

/// The relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// The most rows of one read.
    pub batch: i64,
    /// How long it waits between two reads under load, in milliseconds.
    pub pace_ms: u64,
    /// The most unconfirmed messages.
    pub in_flight: usize,
    /// How often the outbox is looked at when nobody calls, in milliseconds.
    pub poll_ms: u64,
    /// How long a confirmation may take, in milliseconds.
    pub confirm_timeout_ms: u64,
    /// From which age on rows with log entries need not be published, in milliseconds.
    pub stale_ms: u64,
    /// How often published rows are deleted, in milliseconds.
    pub delete_ms: u64,
    /// How often the schedule is looked at, in milliseconds.
    pub schedule_ms: u64,
    /// How long what is due for the immediate lane is left to it, in milliseconds.
    pub lane_grace_ms: u64,
}

/// Recurring commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurringConfig {
    /// How often it is looked for new ones, in milliseconds.
    pub poll_ms: u64,
    /// How late a run may be and is still on time, in milliseconds.
    pub grace_ms: u64,
    /// The most runs of one that are made up for at once.
    pub most_at_once: usize,
}

/// Heartbeats.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// How often a process shows that it lives, in milliseconds.
    pub heartbeat_ms: u64,
    /// After how many milliseconds without a sign a process counts as gone.
    pub ttl_ms: u64,
}

/// The bank itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankConfig {
    /// Whether there are commands that do harm.
    pub fault_injection: bool,
    /// Whether the view `drills` applies poisoned events.
    pub cured: bool,
}
