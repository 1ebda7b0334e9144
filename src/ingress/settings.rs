//! What can be configured about the intake. Every field has a default; unknown fields are errors.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

/// What a caller with a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Send commands and ask for their status.
    Submit,
    /// Read views and streams.
    Read,
    /// Operate: members, projections, caches, metrics.
    Operate,
}

impl AccessRole {
    /// The word used in configuration and problems.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// A bearer token. The token itself is nowhere: only its hash is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// Who the caller is. Idempotency keys are kept apart by it, so do not rename it.
    pub name: String,
    /// SHA-256 of the token, in hex: `printf %s TOKEN | sha256sum`.
    pub sha256: String,
    /// What the caller may do.
    pub roles: Vec<AccessRole>,
    /// How many commands a second the caller may send; over it: 429.
    #[serde(default)]
    pub commands_per_second: Option<u32>,
}

/// Group commit.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommitSettings {
    /// When a batch holds this many commands it is closed. One batch request is never split, so a
    /// batch may be longer by up to one such request.
    pub batch_commands: usize,
    /// When a batch holds this many bytes of payload it is closed.
    pub batch_bytes: usize,
    /// How many commits run at a time.
    pub in_flight: usize,
    /// How many commands may wait, those being committed included; over it: 503.
    pub waiting_commands: usize,
    /// How many bytes of payload may wait, those being committed included; over it: 503.
    pub waiting_bytes: usize,
    /// How long a command may wait for its commit to begin, and how long a failing commit is tried
    /// again, in milliseconds; over it: 503.
    pub give_up_after_ms: u64,
}

impl Default for CommitSettings {
    fn default() -> Self {
        Self {
            batch_commands: 512,
            batch_bytes: 4 << 20,
            in_flight: 1,
            waiting_commands: 20_000,
            waiting_bytes: 64 << 20,
            give_up_after_ms: 5_000,
        }
    }
}

impl CommitSettings {
    pub(super) fn give_up_after(&self) -> Duration {
        Duration::from_millis(self.give_up_after_ms)
    }
}

/// The HTTP ingress.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressSettings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Serve everyone, on any address, if no token is configured.
    pub allow_anonymous: bool,
    /// Who may call. If empty, everyone may, but only from this machine (see `allow_anonymous`).
    pub tokens: Vec<TokenSettings>,
    /// How many commands a second all callers without a token may send together.
    pub anonymous_commands_per_second: Option<u32>,
    /// How many connections are open at a time; more wait to be accepted.
    pub max_connections: usize,
    /// How long a connection may take to send a request's head, or be idle, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a request's body may take to arrive, in milliseconds; over it: 408.
    pub body_timeout_ms: u64,
    /// How many bytes of bodies may be in memory, over all connections; over it: 503.
    pub body_memory_bytes: usize,
    /// The largest body of a command, and the longest line of a batch, in bytes; over it: 413.
    pub max_command_bytes: usize,
    /// The most lines of a batch; over it: 413.
    pub max_batch_lines: usize,
    /// The largest body of a batch, in bytes; over it: 413.
    pub max_batch_bytes: usize,
    /// How long a client may take nothing of its answer, in milliseconds; then it is dropped.
    pub write_timeout_ms: u64,
    /// How many clients may wait for commands (long-polls and event streams together) at a time, and
    /// how many for views. Of more, long-polls are answered at once with what is known, event
    /// streams with 503.
    pub max_waiters: usize,
    /// How many rows the outbox may hold before commands are refused with 503.
    pub outbox_limit: i64,
    /// How long a member's heartbeat counts, in milliseconds.
    pub member_ttl_ms: u64,
    /// How long requests in flight may take to end when the process stops, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Group commit.
    pub commit: CommitSettings,
    /// What a `callback_url` may be; `None`: commands with one are refused.
    #[cfg(feature = "webhooks")]
    #[serde(skip)]
    pub callbacks: Option<crate::webhook::TargetRules>,
}

impl Default for IngressSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allow_anonymous: false,
            tokens: Vec::new(),
            anonymous_commands_per_second: None,
            max_connections: 24_000,
            header_timeout_ms: 30_000,
            body_timeout_ms: 10_000,
            body_memory_bytes: 64 << 20,
            max_command_bytes: 256 << 10,
            max_batch_lines: 1_000,
            max_batch_bytes: 8 << 20,
            write_timeout_ms: 30_000,
            max_waiters: 20_000,
            outbox_limit: 100_000,
            member_ttl_ms: 6_000,
            drain_timeout_ms: 5_000,
            commit: CommitSettings::default(),
            #[cfg(feature = "webhooks")]
            callbacks: None,
        }
    }
}
