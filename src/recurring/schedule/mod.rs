//! When a recurring command is due: a cron expression, read by the clocks of a time zone. Pure: every
//! time comes in.
//!
//! The dialect is that of Vixie cron with an optional field for seconds in front and the marks `L`,
//! `W`, `#` and `+` of the Open Cron Pattern Specification; the crate `croner` reads it. Where clocks
//! are changed, a fixed time (one second, one minute, one hour) runs once a day: in a gap at its end,
//! in a repeated hour at the first of the two. Anything else follows the clock on the wall.

mod expression;
mod zone;

use croner::Cron;
use jiff::{Zoned, tz::TimeZone};

use crate::message::Timestamp;

/// How many changes of a zone's clocks a search goes on behind.
const MOST_GAPS: usize = 8;

/// Why a recurring command would never be due, or nobody knows when.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// Not as many fields as there should be.
    #[error(
        "write five fields (minute, hour, day of month, month, day of week), as in `30 3 * * MON-FRI`; \
         six with seconds in front; or one of @hourly, @daily, @weekly, @monthly, @yearly"
    )]
    Fields,
    /// A field that cannot be read.
    #[error("`{text}` is no {field}: write {allowed}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it says.
        text: String,
        /// What it may say.
        allowed: &'static str,
    },
    /// No date fits.
    #[error(
        "no date fits this expression, so it would never run; look at the day of the month and the \
         month"
    )]
    Never,
    /// There is no such time zone.
    #[error(
        "`{0}` is no time zone: write a name of the IANA database, such as `UTC` or `Europe/Berlin`"
    )]
    TimeZone(String),
}

impl InvalidSchedule {
    /// Whether it is about the time zone, and not about the expression.
    pub fn is_about_time_zone(&self) -> bool {
        matches!(self, Self::TimeZone(_))
    }
}

/// When a recurring command is due.
///
/// ```
/// use adjutant::recurring::Schedule;
/// use time::macros::datetime;
///
/// let schedule = Schedule::parse("30 3 * * *", "Europe/Berlin").unwrap();
/// let next = schedule.after(datetime!(2026-07-01 12:00 UTC)).unwrap();
/// assert_eq!(next, datetime!(2026-07-02 01:30 UTC));
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    expression: String,
    time_zone: String,
}

impl Schedule {
    /// Reads an expression and the name of a time zone.
    pub fn parse(expression: &str, time_zone: &str) -> Result<Self, InvalidSchedule> {
        let (expression, cron) = expression::read(expression)?;
        let (time_zone, zone) = zone::find(time_zone)?;
        Ok(Self { cron, zone, expression, time_zone })
    }

    /// The expression, with single spaces between its fields.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The time zone's name, as the IANA database writes it.
    pub fn time_zone(&self) -> &str {
        &self.time_zone
    }

    /// The first due time after a time.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let from = self.wall_clock(time)?;
        let found = self.cron.find_next_occurrence(&from, false);
        let found = found.ok().or_else(|| self.after_a_gap(&from));
        found.as_ref().and_then(timestamp)
    }

    /// The last due time at or before a time.
    pub fn until(&self, time: Timestamp) -> Option<Timestamp> {
        let from = self.wall_clock(time)?;
        let found = self.cron.find_previous_occurrence(&from, true);
        let found = found.ok().or_else(|| self.before_a_gap(&from));
        found.as_ref().and_then(timestamp)
    }

    /// The next due times after a time.
    pub fn upcoming(&self, time: Timestamp, many: usize) -> Vec<Timestamp> {
        std::iter::successors(self.after(time), |due| self.after(*due)).take(many).collect()
    }

    /// A search gives up in a gap of more than two hours (a zone that leaves a day out, as Samoa did
    /// in 2011): it goes on behind it.
    fn after_a_gap(&self, from: &Zoned) -> Option<Zoned> {
        let changes = self.zone.following(from.timestamp()).take(MOST_GAPS);
        let mut starts = changes.map(|change| change.timestamp().to_zoned(self.zone.clone()));
        starts.find_map(|start| self.cron.find_next_occurrence(&start, true).ok())
    }

    fn before_a_gap(&self, from: &Zoned) -> Option<Zoned> {
        let second = jiff::SignedDuration::from_secs(1);
        let changes = self.zone.preceding(from.timestamp()).take(MOST_GAPS);
        let mut ends = changes.filter_map(|change| {
            Some(change.timestamp().checked_sub(second).ok()?.to_zoned(self.zone.clone()))
        });
        ends.find_map(|end| self.cron.find_previous_occurrence(&end, true).ok())
    }

    /// What the zone's clocks show, in whole seconds: due times have no others.
    fn wall_clock(&self, time: Timestamp) -> Option<Zoned> {
        let time = jiff::Timestamp::from_second(time.unix_timestamp()).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }
}

fn timestamp(zoned: &Zoned) -> Option<Timestamp> {
    Timestamp::from_unix_timestamp(zoned.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests;
