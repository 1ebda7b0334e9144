//! What is done about a command that failed: tried again at once, tried again later, or dead. The
//! rules of a command type; [`RetryPolicy`] is for steps of the executor itself.

use std::{collections::BTreeMap, time::Duration};

use super::RetryPolicy;
use crate::message::Attempt;

/// How a command whose handler failed is tried again, before it is dead.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySchedule {
    /// How often it is decided again at once, within the same attempt. There is no pause between:
    /// it would hold up the commands that wait behind.
    pub immediate: u32,
    /// The waits before the second, third … attempt. After the last one it is dead.
    pub delays: Vec<Duration>,
    /// How far a wait is spread at random, as a share of itself (0 to 1): 0.2 is ±20 %.
    pub jitter: f64,
}

impl Default for RetrySchedule {
    /// Twice at once; then after 1 s, 10 s, 1 min and 5 min, each ±20 %.
    fn default() -> Self {
        Self { immediate: 2, delays: [1, 10, 60, 300].map(Duration::from_secs).into(), jitter: 0.2 }
    }
}

impl RetrySchedule {
    /// Dead at the first failure.
    pub fn never() -> Self {
        Self { immediate: 0, delays: Vec::new(), jitter: 0.0 }
    }

    /// These waits, without spreading them.
    pub fn after(delays: impl IntoIterator<Item = Duration>) -> Self {
        Self { immediate: 0, delays: delays.into_iter().collect(), jitter: 0.0 }
    }

    /// How long to wait when this attempt has failed; `None`: there is no further one.
    pub fn delay_after(&self, failed: Attempt) -> Option<Duration> {
        let index = usize::try_from(failed.0).ok()?.checked_sub(1)?;
        let wait = *self.delays.get(index)?;
        let spread = RetryPolicy { initial: wait, max_interval: wait, ..RetryPolicy::forever() };
        spread.with_jitter(self.jitter).start().next_delay()
    }
}

/// A value for each command type: a default, and exceptions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PerType<T> {
    /// For types that are not named.
    pub default: T,
    /// By wire name.
    pub types: BTreeMap<String, T>,
}

impl<T> PerType<T> {
    /// The same for every type.
    pub fn all(default: T) -> Self {
        Self { default, types: BTreeMap::new() }
    }

    /// What holds for this type.
    pub fn of(&self, command_type: &str) -> &T {
        self.types.get(command_type).unwrap_or(&self.default)
    }

    /// The default and every exception.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.default).chain(self.types.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_delay_there_is_no_further_attempt() {
        let schedule = RetrySchedule::after([1, 10].map(Duration::from_secs));
        let delays = (0..4).map(|attempt| schedule.delay_after(Attempt(attempt)));
        let seconds = |delay: Option<Duration>| delay.map(|delay| delay.as_secs());
        assert_eq!(delays.map(seconds).collect::<Vec<_>>(), [None, Some(1), Some(10), None]);
        assert_eq!(RetrySchedule::never().delay_after(Attempt::FIRST), None);
    }

    #[test]
    fn a_delay_is_spread_around_its_middle() {
        let schedule = RetrySchedule::default();
        for _ in 0..200 {
            let delay = schedule.delay_after(Attempt(2)).unwrap().as_millis();
            assert!((8_000..=12_000).contains(&delay), "{delay}");
        }
    }

    #[test]
    fn a_type_that_is_named_has_its_own() {
        let mut per_type = PerType::all(1);
        per_type.types.insert("account.deposit".into(), 2);
        assert_eq!((per_type.of("account.deposit"), per_type.of("account.open")), (&2, &1));
    }
}
