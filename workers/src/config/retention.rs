//! `[retention]`.

use std::time::Duration;

use adjutant::housekeeping::RetentionSettings;
use serde::{Deserialize, Serialize};

/// How long things are kept; 0: for ever.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// How often it is looked, in milliseconds.
    pub every_ms: u64,
    /// How many rows one transaction looks at.
    pub batch: i64,
    /// The pause between two, in milliseconds.
    pub pause_ms: u64,
    /// Commands with their outcomes, in days.
    pub outcomes_days: u32,
    /// Outbox rows that every group has finished, in minutes.
    pub outbox_minutes: u32,
    /// Dead letters that were resolved or discarded, in days.
    pub dead_letters_days: u32,
    /// What was done to dead letters, in days.
    pub audit_days: u32,
    /// Members without a sign of life, in minutes.
    pub members_minutes: u32,
    /// Notifications and conditions that are over, in days.
    pub notifications_days: u32,
    /// Rows of counted messages of other logs.
    pub foreign_rows: i64,
}

impl RetentionConfig {
    /// What is wrong although every value has the right type.
    pub(super) fn errors(&self) -> Vec<String> {
        let positive = [
            ("retention.every_ms", self.every_ms),
            ("retention.batch", self.batch.max(0).unsigned_abs()),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        let mut errors: Vec<String> =
            zero.map(|(key, _)| format!("{key} must be at least 1")).collect();
        if self.foreign_rows < 0 {
            errors.push("retention.foreign_rows must be at least 1, or 0 for all".into());
        }
        errors
    }

    /// As the library's settings.
    pub(crate) fn settings(&self) -> RetentionSettings {
        let kept = |count: u32, unit: Duration| (count > 0).then(|| unit * count);
        let (day, minute) = (Duration::from_hours(24), Duration::from_mins(1));
        RetentionSettings {
            every: Duration::from_millis(self.every_ms),
            batch: self.batch,
            pause: Duration::from_millis(self.pause_ms),
            outcomes: kept(self.outcomes_days, day),
            outbox: kept(self.outbox_minutes, minute),
            dead_letters: kept(self.dead_letters_days, day),
            audit: kept(self.audit_days, day),
            members: kept(self.members_minutes, minute),
            notifications: kept(self.notifications_days, day),
            foreign_rows: (self.foreign_rows > 0).then_some(self.foreign_rows),
        }
    }
}
