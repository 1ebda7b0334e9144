//! Reading a cron expression. `croner` says what it means; what is wrong with it is said here, field by
//! field.

use croner::{
    Cron,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Zoned, civil, tz::TimeZone};

use super::InvalidSchedule;

/// The longest expression, in bytes.
const LONGEST: usize = 255;

const NICKNAMES: [&str; 6] = ["@HOURLY", "@DAILY", "@WEEKLY", "@MONTHLY", "@YEARLY", "@ANNUALLY"];

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// The letters and words that a day of the week may be written with.
const WEEKDAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L"];

/// A field: its name, the words it may hold, and how it is written.
struct Field {
    name: &'static str,
    words: &'static [&'static str],
    allowed: &'static str,
}

const FIELDS: [Field; 6] = [
    Field {
        name: "second",
        words: &[],
        allowed: "0 to 59, `*`, or lists, ranges and steps of them: `0,30`, `10-20`, `*/5`",
    },
    Field {
        name: "minute",
        words: &[],
        allowed: "0 to 59, `*`, or lists, ranges and steps of them: `0,30`, `10-20`, `*/5`",
    },
    Field {
        name: "hour",
        words: &[],
        allowed: "0 to 23, `*`, or lists, ranges and steps of them: `6,18`, `9-17`, `*/2`",
    },
    Field {
        name: "day of the month",
        words: &["L", "W", "LW"],
        allowed: "1 to 31, `*`, `L` (the last one), `15W` (the weekday nearest to it), or lists, ranges and steps",
    },
    Field {
        name: "month",
        words: &MONTHS,
        allowed: "1 to 12 or JAN to DEC, `*`, or lists, ranges and steps of them: `JAN,JUL`, `*/3`",
    },
    Field {
        name: "day of the week",
        words: &WEEKDAYS,
        allowed: "0 to 7 or SUN to SAT, `*`, lists and ranges, `MON#2` (the second one of the month), `FRI#L` (the last one), or `+MON` (only if the day of the month fits, too)",
    },
];

/// The expression with single spaces, and what it means.
pub(super) fn read(text: &str) -> Result<(String, Cron), InvalidSchedule> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let expression = parts.join(" ");
    let is_nickname = NICKNAMES.contains(&expression.to_ascii_uppercase().as_str());
    if !is_nickname {
        check_fields(text, &parts)?;
    }
    let cron = parse(&expression).map_err(|_| InvalidSchedule::Fields)?;
    if fires(&cron) { Ok((expression, cron)) } else { Err(InvalidSchedule::Never) }
}

fn check_fields(text: &str, parts: &[&str]) -> Result<(), InvalidSchedule> {
    let fields = match parts.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        _ => return Err(InvalidSchedule::Fields),
    };
    if text.len() > LONGEST {
        return Err(InvalidSchedule::Fields);
    }
    for (at, (field, part)) in fields.iter().zip(parts).enumerate() {
        // A field that can be read alone, among fields that say nothing, can be read with the others.
        let alone: Vec<&str> =
            (0..parts.len()).map(|other| if other == at { *part } else { "*" }).collect();
        if !field.has_only_its_words(part) || parse(&alone.join(" ")).is_err() {
            let (field, allowed) = (field.name, field.allowed);
            return Err(InvalidSchedule::Field { field, text: (*part).to_owned(), allowed });
        }
    }
    Ok(())
}

impl Field {
    /// The parser takes a month for a day of the week and the other way round, and nothing for an item
    /// of a list.
    fn has_only_its_words(&self, part: &str) -> bool {
        let part = part.to_ascii_uppercase();
        let mut words = part.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
        words.all(|word| self.words.contains(&word)) && part.split(',').all(|item| !item.is_empty())
    }
}

fn parse(expression: &str) -> Result<Cron, CronError> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(expression)
}

/// Whether any date fits; without a year, one that fits comes again. In UTC, where no time is left out.
fn fires(cron: &Cron) -> bool {
    let from = civil::date(2000, 1, 1).to_zoned(TimeZone::UTC);
    from.is_ok_and(|from: Zoned| cron.find_next_occurrence(&from, true).is_ok())
}
