//! `[callbacks]`.

use std::time::Duration;

use adjutant::{
    callback::{CallbackSettings, HostBreaker},
    execute::RetryPolicy,
    webhook::{InvalidSecret, SigningSecret, TargetRules, WebhookLimits},
};
use serde::{Deserialize, Serialize};

use super::SecretText;
use crate::run::RunError;

/// Who is called back when a command ends, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbacksConfig {
    /// What callbacks are signed with; none, here and in the file: there are no callbacks.
    pub secrets: Vec<SecretText>,
    /// A file with secrets; empty if none.
    pub secrets_file: String,
    /// The most tries of a callback.
    pub attempts: i32,
    /// After how long a callback is given up, in milliseconds.
    pub give_up_ms: u64,
    /// The wait after the first try, in milliseconds.
    pub first_wait_ms: u64,
    /// The longest wait, in milliseconds.
    pub longest_wait_ms: u64,
    /// How long a connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a whole answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// How many are sent at a time.
    pub concurrency: usize,
    /// How many of them to one host.
    pub per_host: usize,
    /// After so many failures in a row a host is left alone.
    pub host_failures: u32,
    /// For how long, in milliseconds.
    pub host_rest_ms: u64,
    /// And for how long at most, in milliseconds.
    pub host_rest_at_most_ms: u64,
    /// Whether URLs may begin with `http://`.
    pub allow_http: bool,
    /// Whether addresses may be private.
    pub allow_private: bool,
}

impl CallbacksConfig {
    /// What is wrong although every value has the right type.
    pub(super) fn errors(&self) -> Vec<String> {
        let parsed = self.secrets.iter().map(|secret| secret.expose().parse::<SigningSecret>());
        let mut errors: Vec<String> = parsed
            .zip(1..)
            .filter_map(|(secret, number)| Some((secret.err()?, number)))
            .map(|(error, number)| format!("callbacks.secrets, number {number}: {error}"))
            .collect();
        let positive = [
            ("callbacks.attempts", self.attempts.max(0).unsigned_abs().into()),
            ("callbacks.first_wait_ms", self.first_wait_ms),
            ("callbacks.connect_timeout_ms", self.connect_timeout_ms),
            ("callbacks.timeout_ms", self.timeout_ms),
            ("callbacks.concurrency", self.concurrency as u64),
            ("callbacks.per_host", self.per_host as u64),
            ("callbacks.host_failures", self.host_failures.into()),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        errors.extend(zero.map(|(key, _)| format!("{key} must be at least 1")));
        if self.longest_wait_ms < self.first_wait_ms {
            errors
                .push("callbacks.longest_wait_ms must be at least callbacks.first_wait_ms".into());
        }
        errors
    }

    /// As the library's settings.
    pub(crate) fn settings(&self) -> Result<CallbackSettings, RunError> {
        let millis = Duration::from_millis;
        let defaults = CallbackSettings::default();
        Ok(CallbackSettings {
            secrets: self.all_secrets()?,
            rules: TargetRules { allow_http: self.allow_http, allow_private: self.allow_private },
            retry: RetryPolicy {
                initial: millis(self.first_wait_ms),
                max_interval: millis(self.longest_wait_ms),
                ..defaults.retry
            },
            attempts: self.attempts,
            give_up_after: millis(self.give_up_ms),
            limits: WebhookLimits {
                connect: millis(self.connect_timeout_ms),
                total: millis(self.timeout_ms),
                ..defaults.limits
            },
            concurrency: self.concurrency,
            per_host: self.per_host,
            breaker: HostBreaker {
                failures: self.host_failures,
                rest: millis(self.host_rest_ms),
                longest_rest: millis(self.host_rest_at_most_ms),
            },
            ..defaults
        })
    }

    fn all_secrets(&self) -> Result<Vec<SigningSecret>, RunError> {
        let named = |place: String| {
            move |error: InvalidSecret| RunError::Setting(format!("{place}: {error}"))
        };
        let mut secrets = Vec::new();
        for (secret, number) in self.secrets.iter().zip(1..) {
            let place = format!("callbacks.secrets, number {number}");
            secrets.push(secret.expose().parse().map_err(named(place))?);
        }
        if !self.secrets_file.is_empty() {
            let path = &self.secrets_file;
            let text = std::fs::read_to_string(path).map_err(|error| {
                RunError::Setting(format!("callbacks.secrets_file `{path}`: {error}"))
            })?;
            for (line, number) in text.lines().map(str::trim).zip(1..) {
                if !line.is_empty() && !line.starts_with('#') {
                    let place = format!("{path}, line {number}");
                    secrets.push(line.parse().map_err(named(place))?);
                }
            }
        }
        Ok(secrets)
    }
}
