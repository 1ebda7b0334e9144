//! How long things are kept.

use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// How long things are kept; `None`: for ever.
#[derive(Clone, Debug)]
pub struct RetentionSettings {
    /// How often housekeeping looks.
    pub every: Duration,
    /// How many rows one transaction looks at.
    pub batch: i64,
    /// How long it waits between transactions.
    pub pause: Duration,
    /// Commands with their outcomes, after they ended. Within this time an id is known.
    pub outcomes: Option<Duration>,
    /// Outbox rows whose entries all groups have finished.
    pub outbox: Option<Duration>,
    /// Dead letters, after they were resolved or discarded.
    pub dead_letters: Option<Duration>,
    /// What was done to dead letters, and who cancelled commands.
    pub audit: Option<Duration>,
    /// Members without a sign of life.
    pub members: Option<Duration>,
    /// Notifications that were sent, and conditions that are over.
    pub notifications: Option<Duration>,
    /// How many rows of counted foreign messages are kept.
    pub foreign_rows: Option<i64>,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            every: MINUTE,
            batch: 1_000,
            pause: Duration::from_millis(100),
            outcomes: Some(30 * DAY),
            outbox: Some(10 * MINUTE),
            dead_letters: Some(90 * DAY),
            audit: Some(365 * DAY),
            members: Some(60 * MINUTE),
            notifications: Some(30 * DAY),
            foreign_rows: Some(10_000),
        }
    }
}

impl RetentionSettings {
    /// Everything is kept.
    pub fn off() -> Self {
        Self {
            outcomes: None,
            outbox: None,
            dead_letters: None,
            audit: None,
            members: None,
            notifications: None,
            foreign_rows: None,
            ..Self::default()
        }
    }

    /// Whether anything is ever removed.
    pub fn is_off(&self) -> bool {
        let ages = [
            self.outcomes,
            self.outbox,
            self.dead_letters,
            self.audit,
            self.members,
            self.notifications,
        ];
        ages.iter().all(Option::is_none) && self.foreign_rows.is_none()
    }
}
