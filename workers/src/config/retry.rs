//! The sections `retry`, `breaker` and `projection_breaker`.

use std::{collections::BTreeMap, time::Duration};

use adjutant::execute::{BreakerSettings, PerType, RetrySchedule};
use serde::{Deserialize, Serialize};

/// The longest that a retry may be away: a day.
const LONGEST_DELAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The most delays of a type.
const MOST_DELAYS: usize = 100;

/// What is done about commands that fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// For command types that are not named.
    pub default: RetryRule,
    /// By wire name.
    pub types: BTreeMap<String, TypeRule>,
}

/// The rules of a command type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRule {
    /// How often a command is decided again at once.
    pub immediate: u32,
    /// The waits before the second, third … attempt, in milliseconds.
    pub delays_ms: Vec<u64>,
    /// How far a wait is spread at random, as a share of itself.
    pub jitter: f64,
    /// How long a decision may take, in milliseconds.
    pub time_limit_ms: u64,
}

/// What is different for a command type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeRule {
    /// [`RetryRule::immediate`]
    pub immediate: Option<u32>,
    /// [`RetryRule::delays_ms`]
    pub delays_ms: Option<Vec<u64>>,
    /// [`RetryRule::jitter`]
    pub jitter: Option<f64>,
    /// [`RetryRule::time_limit_ms`]
    pub time_limit_ms: Option<u64>,
}

/// When trying commands of a type is suspended, or a projection pauses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// How many recent tries of a type, or keys of a projection, count.
    pub window: usize,
    /// At least so many of them failed for the same reason.
    pub min_calls: usize,
    /// The share of them that failed from which on it opens.
    pub threshold: f64,
    /// How long it stays open at first, in milliseconds.
    pub open_ms: u64,
    /// The longest it stays open without a probe, in milliseconds.
    pub open_at_most_ms: u64,
}

impl RetryConfig {
    /// Whether a key below `retry.types` names a rule of a type.
    pub(super) fn is_rule_of_a_type(key: &str) -> bool {
        let rule = key.strip_prefix("retry.types.").and_then(|key| key.rsplit_once('.'));
        let fields = ["immediate", "delays_ms", "jitter", "time_limit_ms"];
        rule.is_some_and(|(name, field)| !name.is_empty() && fields.contains(&field))
    }

    fn rule_of(&self, of: &TypeRule) -> RetryRule {
        RetryRule {
            immediate: of.immediate.unwrap_or(self.default.immediate),
            delays_ms: of.delays_ms.clone().unwrap_or_else(|| self.default.delays_ms.clone()),
            jitter: of.jitter.unwrap_or(self.default.jitter),
            time_limit_ms: of.time_limit_ms.unwrap_or(self.default.time_limit_ms),
        }
    }

    /// How commands are tried again, by type.
    pub fn schedules(&self) -> PerType<RetrySchedule> {
        self.per_type(|rule| RetrySchedule {
            immediate: rule.immediate,
            delays: rule.delays_ms.iter().copied().map(Duration::from_millis).collect(),
            jitter: rule.jitter,
        })
    }

    /// How long decisions may take, by type.
    pub fn time_limits(&self) -> PerType<Duration> {
        self.per_type(|rule| Duration::from_millis(rule.time_limit_ms))
    }

    fn per_type<T>(&self, of: impl Fn(&RetryRule) -> T) -> PerType<T> {
        let types = self.types.iter();
        let types = types.map(|(name, rule)| (name.clone(), of(&self.rule_of(rule)))).collect();
        PerType { default: of(&self.default), types }
    }

    /// What is wrong although every value has the right type.
    pub(super) fn errors(&self) -> Vec<String> {
        let types = self.types.iter();
        let types = types.map(|(name, rule)| (format!("retry.types.{name:?}"), self.rule_of(rule)));
        let default = ("retry.default".to_owned(), self.default.clone());
        std::iter::once(default).chain(types).flat_map(|(name, rule)| rule.errors(&name)).collect()
    }
}

impl RetryRule {
    fn errors(&self, name: &str) -> Vec<String> {
        let mut errors = Vec::new();
        if self.immediate > 10 {
            errors.push(format!("{name}.immediate must be 0 to 10"));
        }
        if self.delays_ms.len() > MOST_DELAYS
            || self.delays_ms.iter().any(|delay| *delay > LONGEST_DELAY_MS)
        {
            errors.push(format!(
                "{name}.delays_ms must be at most {MOST_DELAYS} of 0 to {LONGEST_DELAY_MS} each"
            ));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            errors.push(format!("{name}.jitter must be 0 to 1"));
        }
        if !(1..=60_000).contains(&self.time_limit_ms) {
            errors.push(format!("{name}.time_limit_ms must be 1 to 60000"));
        }
        errors
    }
}

impl BreakerConfig {
    /// As the library's settings.
    pub fn settings(&self) -> BreakerSettings {
        BreakerSettings {
            window: self.window,
            min_calls: self.min_calls,
            threshold: self.threshold,
            open_for: Duration::from_millis(self.open_ms),
            open_at_most: Duration::from_millis(self.open_at_most_ms),
        }
    }

    /// What is wrong although every value has the right type.
    pub(super) fn errors(&self, name: &str) -> Vec<String> {
        let mut errors = Vec::new();
        if !(1..=1_000).contains(&self.window) {
            errors.push(format!("{name}.window must be 1 to 1000"));
        }
        if !(1..=self.window.max(1)).contains(&self.min_calls) {
            errors.push(format!("{name}.min_calls must be 1 to {name}.window"));
        }
        if !(0.0..=2.0).contains(&self.threshold) {
            errors.push(format!("{name}.threshold must be 0 to 1, or 2: never"));
        }
        if self.open_ms == 0 || self.open_at_most_ms < self.open_ms {
            errors.push(format!(
                "{name}.open_ms must be at least 1, and {name}.open_at_most_ms no less"
            ));
        }
        errors
    }
}
