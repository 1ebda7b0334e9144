//! How callbacks are delivered.

use std::time::Duration;

use crate::{
    execute::RetryPolicy,
    webhook::{SigningSecret, TargetRules, WebhookLimits},
};

/// How callbacks are delivered. The same in every process that accepts or relays.
#[derive(Clone, Debug)]
pub struct CallbackSettings {
    /// What they are signed with, each signature beside the others; none: commands with a
    /// `callback_url` are refused.
    pub secrets: Vec<SigningSecret>,
    /// What a `callback_url` may be.
    pub rules: TargetRules,
    /// The waits between tries of one callback.
    pub retry: RetryPolicy,
    /// How often one callback is tried before a person must look at it.
    pub attempts: i32,
    /// After how long without success a person must look at it.
    pub give_up_after: Duration,
    /// What a receiver may take.
    pub limits: WebhookLimits,
    /// How many are sent at a time by this process.
    pub concurrency: usize,
    /// How many of them to one host.
    pub per_host: usize,
    /// When a host is left alone.
    pub breaker: HostBreaker,
    /// How often it looks for what is due, if nobody tells it of any.
    pub poll: Duration,
}

/// When a host is left alone for a while.
#[derive(Clone, Copy, Debug)]
pub struct HostBreaker {
    /// After so many tries in a row that it failed (no connection, no answer, 5xx, 429).
    pub failures: u32,
    /// For how long; then one try says whether it is back.
    pub rest: Duration,
    /// Each further time twice as long, up to this.
    pub longest_rest: Duration,
}

impl Default for CallbackSettings {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            rules: TargetRules::default(),
            // 5 s, 25 s, 2 min, 10 min, 52 min, then every 4 h: 11 tries in 21 h.
            retry: RetryPolicy {
                initial: Duration::from_secs(5),
                multiplier: 5.0,
                max_interval: Duration::from_hours(4),
                jitter: 0.2,
                max_elapsed: None,
            },
            attempts: 12,
            give_up_after: Duration::from_hours(24),
            limits: WebhookLimits::default(),
            concurrency: 32,
            per_host: 4,
            breaker: HostBreaker {
                failures: 5,
                rest: Duration::from_secs(10),
                longest_rest: Duration::from_mins(5),
            },
            poll: Duration::from_secs(1),
        }
    }
}

impl CallbackSettings {
    /// What a `callback_url` may be; `None`: nothing, for nobody would sign.
    pub fn target_rules(&self) -> Option<TargetRules> {
        (!self.secrets.is_empty()).then_some(self.rules)
    }
}
