//! How the immediate lane works.

use serde::Deserialize;

/// What can be configured of the immediate lane. Every field has a default; unknown fields are
/// errors.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImmediateSettings {
    /// How many commands may be executed at a time.
    pub executions: usize,
    /// How many transactions they are executed in, at a time.
    pub transactions: usize,
    /// How many commands may wait, those that are being executed included; over it: 503, or the
    /// queued lane if the caller allows it.
    pub waiting_commands: usize,
    /// How many bytes they may hold, roughly; over it: the same.
    pub waiting_bytes: usize,
    /// After how long a command that this process holds by the database, and does not have, is let go
    /// of, in milliseconds.
    pub lost_after_ms: u64,
    /// How often it looks for what fell due for the lane, in milliseconds.
    pub due_poll_ms: u64,
}

impl Default for ImmediateSettings {
    /// 256 executions in 2 transactions; 120,000 commands and 128 MiB wait.
    fn default() -> Self {
        Self {
            executions: 256,
            transactions: 2,
            waiting_commands: 120_000,
            waiting_bytes: 128 << 20,
            lost_after_ms: 10_000,
            due_poll_ms: 200,
        }
    }
}
