//! How recurring commands are fired.

use std::time::Duration;

/// How recurring commands are fired.
#[derive(Clone, Debug)]
pub struct RecurringSettings {
    /// How often it is looked for new ones. What is known to be due earlier is not waited for.
    pub poll: Duration,
    /// How late a run may be and is still on time. One that is later was missed: its policy says
    /// what becomes of it.
    pub grace: Duration,
    /// The most runs of one recurring command that are sent at once; of more that were missed, only
    /// the newest are.
    pub most_at_once: usize,
    /// So many rows in the outbox are too many: nothing is fired before the broker has taken some.
    pub outbox_limit: i64,
}

impl Default for RecurringSettings {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            grace: Duration::from_mins(1),
            most_at_once: 1_000,
            outbox_limit: 100_000,
        }
    }
}
