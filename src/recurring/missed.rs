//! What is sent of what is due: everything if it is on time, otherwise what the policy says. Pure, so
//! that it can be tested; it is asked once for each due time, and its answer is written down before
//! anything is sent.

use super::{RecurringSettings, Schedule};
use crate::{message::Timestamp, store::MissedRuns};

/// How many due times that get no run are counted at a time; of more, this many are reported.
const MOST_COUNTED: usize = 10_000;

/// What is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// The due times of the runs, in order.
    pub(super) owed: Vec<Timestamp>,
    /// How many due times get no run of their own.
    pub(super) missed: usize,
    /// When it is due next.
    pub(super) next: Option<Timestamp>,
}

/// What is sent of everything that has fallen due from `first` until `now`.
pub(super) fn decide(
    schedule: &Schedule,
    policy: MissedRuns,
    first: Timestamp,
    now: Timestamp,
    settings: &RecurringSettings,
) -> Decision {
    let next = schedule.after(now);
    if first > now {
        return Decision { next: Some(first), ..Decision::default() };
    }
    let is_on_time = |due: &Timestamp| now - *due <= settings.grace;
    let most = settings.most_at_once.max(1);
    let owed = match policy {
        _ if is_on_time(&first) => newest(schedule, first, now, most),
        MissedRuns::All => newest(schedule, first, now, most),
        MissedRuns::Once => newest(schedule, first, now, 1),
        MissedRuns::Skip => {
            newest(schedule, first, now, 1).into_iter().filter(is_on_time).collect()
        }
    };
    let missed = count(schedule, first, now, owed.len() + MOST_COUNTED) - owed.len();
    Decision { owed, missed, next }
}

/// The newest due times, in order. The first one counts even if the zone's rules have changed since it
/// was announced.
fn newest(schedule: &Schedule, first: Timestamp, now: Timestamp, most: usize) -> Vec<Timestamp> {
    let second = time::Duration::SECOND;
    let backwards = std::iter::successors(schedule.until(now), |due| schedule.until(*due - second));
    let mut found: Vec<_> = backwards.take_while(|due| *due > first).take(most).collect();
    if found.len() < most {
        found.push(first);
    }
    found.reverse();
    found
}

/// How many there are, up to a limit.
fn count(schedule: &Schedule, first: Timestamp, now: Timestamp, limit: usize) -> usize {
    let due = std::iter::successors(Some(first), |due| schedule.after(*due));
    due.take_while(|due| *due <= now).take(limit).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;

    fn decided(cron: &str, policy: MissedRuns, first: Timestamp, now: Timestamp) -> Decision {
        let schedule = Schedule::parse(cron, "UTC").unwrap();
        let settings = RecurringSettings {
            grace: Duration::from_secs(30),
            most_at_once: 4,
            ..RecurringSettings::default()
        };
        decide(&schedule, policy, first, now, &settings)
    }

    #[test]
    fn what_is_on_time_is_sent_whatever_the_policy() {
        let first = datetime!(2026-01-01 12:00 UTC);
        for policy in MissedRuns::ALL {
            let one = decided("*/10 * * * *", policy, first, datetime!(2026-01-01 12:00:00.4 UTC));
            let next = Some(datetime!(2026-01-01 12:10 UTC));
            assert_eq!(one, Decision { owed: vec![first], missed: 0, next });
            // A hiccup that is shorter than the grace leaves nothing out.
            let three = decided("*/10 * * * * *", policy, first, first + Duration::from_secs(29));
            let owed = [0, 10, 20].map(|s| first + Duration::from_secs(s)).to_vec();
            let next = Some(first + Duration::from_secs(30));
            assert_eq!(three, Decision { owed, missed: 0, next });
        }
    }

    #[test]
    fn what_was_missed_is_left_out_sent_once_or_made_up_for() {
        let first = datetime!(2026-01-01 12:00 UTC);
        let now = datetime!(2026-01-01 12:35 UTC);
        let newest = datetime!(2026-01-01 12:30 UTC);
        let of = |policy| {
            let decision = decided("*/10 * * * *", policy, first, now);
            assert_eq!(decision.next, Some(datetime!(2026-01-01 12:40 UTC)));
            (decision.owed, decision.missed)
        };
        assert_eq!(of(MissedRuns::Skip), (vec![], 4));
        assert_eq!(of(MissedRuns::Once), (vec![newest], 3));
        let all = [0, 10, 20, 30].map(|m| first + Duration::from_secs(60 * m)).to_vec();
        assert_eq!(of(MissedRuns::All), (all, 0));
    }

    #[test]
    fn a_run_that_is_on_time_is_sent_though_others_were_missed() {
        let first = datetime!(2026-01-01 12:00 UTC);
        let skip =
            decided("*/10 * * * *", MissedRuns::Skip, first, datetime!(2026-01-01 12:20:05 UTC));
        assert_eq!((skip.owed, skip.missed), (vec![datetime!(2026-01-01 12:20 UTC)], 2));
    }

    #[test]
    fn the_newest_are_made_up_for_and_the_rest_is_counted_up_to_a_limit() {
        let first = datetime!(2026-01-01 12:00 UTC);
        let all = decided("* * * * *", MissedRuns::All, first, datetime!(2026-01-01 13:00:40 UTC));
        let newest = [57, 58, 59, 60].map(|m| first + Duration::from_secs(60 * m)).to_vec();
        assert_eq!((all.owed, all.missed), (newest, 57));
        let long = decided("* * * * * *", MissedRuns::Once, first, datetime!(2027-01-01 0:00 UTC));
        assert_eq!(long.owed, [datetime!(2027-01-01 0:00 UTC)]);
        assert_eq!(long.missed, MOST_COUNTED);
    }

    #[test]
    fn a_due_time_of_older_rules_is_kept() {
        let announced = datetime!(2026-01-01 12:03 UTC);
        let now = datetime!(2026-01-01 12:03:01 UTC);
        let decision = decided("*/10 * * * *", MissedRuns::Skip, announced, now);
        assert_eq!((decision.owed, decision.missed), (vec![announced], 0));
        assert_eq!(decision.next, Some(datetime!(2026-01-01 12:10 UTC)));
    }

    #[test]
    fn what_is_not_due_is_not_sent() {
        let first = datetime!(2026-01-01 12:10 UTC);
        let decision =
            decided("*/10 * * * *", MissedRuns::All, first, datetime!(2026-01-01 12:09:59 UTC));
        assert_eq!(decision, Decision { owed: vec![], missed: 0, next: Some(first) });
    }
}
