//! What a run showed: faults by class, recovery, operations checked, violations, the seed.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{
    check::{Checked, LaneCounts},
    class::Class,
    recovery::Recovery,
};

/// Which share of the commands must have ended.
const ENDED: f64 = 0.9;

/// A fault that happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Its class.
    pub class: Class,
    /// How many commands were accepted from its beginning to its healing.
    pub accepted: u64,
    /// How long the system took afterwards, if the fault came alone.
    pub recovery: Option<Recovery>,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What everything was drawn from.
    pub seed: u64,
    /// How long faults were brought about.
    pub lasted: Duration,
    /// The classes that were asked for.
    pub classes: Vec<Class>,
    /// How often each must happen under load.
    pub needed: u64,
    /// Every fault.
    pub faults: Vec<Happened>,
    /// Faults that could not be brought about, and why.
    pub failed: Vec<String>,
    /// Processes that ended by themselves, with their last words.
    pub deaths: Vec<String>,
    /// Lookups that were answered.
    pub lookups: u64,
    /// What the check afterwards saw.
    pub checked: Checked,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No violation, and enough happened.
    Passed,
    /// Something that must not be.
    Violated,
    /// No violation, but too few faults or too few commands that ended to say so.
    NotEnough,
}

impl Report {
    /// What came of it.
    pub fn verdict(&self) -> Verdict {
        if self.checked.violations.count() > 0 {
            Verdict::Violated
        } else if self.lacking().is_empty() && self.checked.counts.ended_share() >= ENDED {
            Verdict::Passed
        } else {
            Verdict::NotEnough
        }
    }

    fn counts(&self) -> BTreeMap<Class, (u64, u64)> {
        counts(&self.classes, &self.faults)
    }

    /// The classes that did not happen often enough.
    pub fn lacking(&self) -> Vec<Class> {
        lacking(&self.classes, &self.faults, self.needed)
    }

    fn recoveries(&self, of: impl Fn(Class) -> bool) -> Recoveries {
        let mut all = Recoveries::default();
        for fault in self.faults.iter().filter(|fault| of(fault.class)) {
            if let Some(recovery) = fault.recovery {
                all.first.push(recovery.first);
                all.every.push(recovery.every);
                all.visible.push(recovery.visible);
            }
        }
        all
    }

    /// One object with everything.
    pub fn to_json(&self) -> Value {
        let faults: serde_json::Map<_, _> = self
            .counts()
            .into_iter()
            .map(|(class, (all, loaded))| {
                let recovery = self.recoveries(|it| it == class).to_json();
                let value = json!({ "times": all, "under_load": loaded, "recovery": recovery });
                (class.to_string(), value)
            })
            .collect();
        let violations: serde_json::Map<_, _> = self
            .checked
            .violations
            .kinds()
            .map(|(kind, count, first)| (kind.into(), json!({ "count": count, "first": first })))
            .collect();
        let checked = &self.checked;
        let counts = &checked.counts;
        let lanes = counts.lanes().map(|(name, lane)| {
            let LaneCounts { sent, accepted, answered_with_end, ended } = lane;
            let lane = json!({
                "sent": sent, "accepted": accepted, "answered_with_end": answered_with_end,
                "ended": ended,
            });
            (name.to_owned(), lane)
        });
        json!({
            "seed": self.seed,
            "seconds": self.lasted.as_secs_f64(),
            "faults": faults,
            "not_brought_about": self.failed,
            "ended_by_themselves": self.deaths,
            "operations": {
                "sent": counts.sent(), "accepted": counts.accepted(), "refused": counts.refused,
                "unknown": counts.unknown, "could_end": counts.could_end, "ended": counts.ended(),
                "lanes": serde_json::Map::from_iter(lanes),
                "wishes_to_cancel": counts.wishes, "told_cancelled": counts.called_off,
                "jobs": counts.jobs, "cancelled": counts.cancelled, "expired": counts.expired,
                "lookups": self.lookups, "intake_dead_letters": checked.dead_letters,
                "failed_attempts": checked.failed_attempts, "dead_letters": checked.deaths,
                "actions_of_people": checked.actions,
            },
            "violations": violations,
            "violations_total": checked.violations.count(),
            "verdict": self.verdict().word(),
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.fault_table(), self.operation_table());
        for (kind, count, first) in self.checked.violations.kinds() {
            let _ = writeln!(text, "VIOLATION, {kind}: {count}");
            for words in first {
                let _ = writeln!(text, "  - {words}");
            }
        }
        for words in &self.failed {
            let _ = writeln!(text, "not brought about: {words}");
        }
        for words in &self.deaths {
            let _ = writeln!(text, "note: {words}");
        }
        text.push_str(&self.last_words());
        text
    }

    fn last_words(&self) -> String {
        let (seed, seconds) = (self.seed, self.lasted.as_secs_f64());
        let mut text = format!("seed {seed}, {seconds:.0} s of faults: ");
        match self.verdict() {
            Verdict::Passed => text.push_str("no violation"),
            Verdict::Violated => {
                let _ = write!(text, "{} VIOLATIONS", self.checked.violations.count());
            }
            Verdict::NotEnough => {
                text.push_str("no violation, but NOT ENOUGH happened:");
                let lacking = self.lacking();
                if !lacking.is_empty() {
                    let names: Vec<_> = lacking.iter().map(ToString::to_string).collect();
                    let _ = write!(
                        text,
                        " less than {} times under load: {};",
                        self.needed,
                        names.join(", ")
                    );
                }
                let _ = write!(text, " {:.1} % ended", 100.0 * self.checked.counts.ended_share());
            }
        }
        text
    }

    fn fault_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "fault",
            "times",
            "under load",
            "first command ended, p50 / p99",
            "every partition",
            "in the view",
        ]);
        for (class, (all, loaded)) in self.counts() {
            let [first, every, visible] = self.recoveries(|it| it == class).to_text();
            let row = [class.to_string(), all.to_string(), loaded.to_string(), first, every];
            table.add_row(row.into_iter().chain([visible]));
        }
        let groups: [ClassGroup; 2] = [
            ("all restarts of services (goal: first p99 ≤ 5 s)", Class::restarts_a_service),
            ("all killed processes (goal: first p99 ≤ 10 s)", Class::kills_a_process),
        ];
        for (name, of) in groups {
            let faults: Vec<_> = self.faults.iter().filter(|fault| of(fault.class)).collect();
            let loaded = faults.iter().filter(|fault| fault.accepted > 0).count();
            let [first, every, visible] = self.recoveries(of).to_text();
            let row = [name.to_owned(), faults.len().to_string(), loaded.to_string(), first, every];
            table.add_row(row.into_iter().chain([visible]));
        }
        table
    }

    fn operation_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["operations checked", ""]);
        let checked = &self.checked;
        let counts = &checked.counts;
        let share = 100.0 * counts.ended_share();
        let mut rows = vec![("commands sent", counts.sent().to_string())];
        for ((_, lane), name) in counts.lanes().into_iter().zip([
            "… through the queue",
            "… through the immediate lane",
            "… through both lanes at once",
        ]) {
            let LaneCounts { sent, accepted, answered_with_end, .. } = lane;
            let words =
                format!("{sent}: {accepted} accepted, {answered_with_end} of them by their end");
            rows.push((name, words));
        }
        rows.extend([
            ("told accepted", counts.accepted().to_string()),
            ("refused", counts.refused.to_string()),
            ("unknown", counts.unknown.to_string()),
            ("ended", format!("{} of {} ({share:.1} %)", counts.ended(), counts.could_end)),
            ("wishes to cancel", format!("{}: {} told done", counts.wishes, counts.called_off)),
            ("jobs that cancelled", counts.jobs.to_string()),
            ("cancelled by somebody", counts.cancelled.to_string()),
            ("cancelled by their deadline", counts.expired.to_string()),
            ("lookups", self.lookups.to_string()),
            ("dead letters of the intake", checked.dead_letters.to_string()),
            ("attempts that failed", checked.failed_attempts.to_string()),
            ("dead letters", checked.deaths.to_string()),
            ("retried or discarded by people", checked.actions.to_string()),
            ("violations", checked.violations.count().to_string()),
        ]);
        for (what, result) in rows {
            table.add_row([what.to_owned(), result]);
        }
        table
    }
}

/// Several classes, under one name.
type ClassGroup = (&'static str, fn(Class) -> bool);

/// How often each class happened, and how often of that under load.
fn counts(classes: &[Class], faults: &[Happened]) -> BTreeMap<Class, (u64, u64)> {
    let mut counts: BTreeMap<_, _> = classes.iter().map(|class| (*class, (0, 0))).collect();
    for fault in faults {
        let (all, loaded) = counts.entry(fault.class).or_default();
        *all += 1;
        *loaded += u64::from(fault.accepted > 0);
    }
    counts
}

/// The classes that happened less often than that under load.
pub(super) fn lacking(classes: &[Class], faults: &[Happened], needed: u64) -> Vec<Class> {
    let counts = counts(classes, faults).into_iter();
    counts.filter(|(_, (_, loaded))| *loaded < needed).map(|(class, _)| class).collect()
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Violated => "violated",
            Self::NotEnough => "not enough",
        }
    }
}

/// Measured times; `None` took longer than anybody waited.
#[derive(Default)]
struct Recoveries {
    first: Vec<Option<Duration>>,
    every: Vec<Option<Duration>>,
    visible: Vec<Option<Duration>>,
}

impl Recoveries {
    fn to_text(&self) -> [String; 3] {
        [&self.first, &self.every, &self.visible].map(|times| {
            if times.is_empty() {
                return "–".to_owned();
            }
            let word = |time: Option<Duration>| {
                time.map_or("never".to_owned(), |time| format!("{:.2}", time.as_secs_f64()))
            };
            format!("{} / {} s", word(percentile(times, 50)), word(percentile(times, 99)))
        })
    }

    fn to_json(&self) -> Value {
        let both = |times: &Vec<Option<Duration>>| {
            let seconds = |percent| percentile(times, percent).map(|time| time.as_secs_f64());
            json!({ "samples": times.len(), "p50_s": seconds(50), "p99_s": seconds(99) })
        };
        json!({
            "first_ended": both(&self.first),
            "every_partition": both(&self.every),
            "in_the_view": both(&self.visible),
        })
    }
}

/// The nearest rank; what was never seen is longer than everything.
fn percentile(times: &[Option<Duration>], percent: usize) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_by_key(|time| time.unwrap_or(Duration::MAX));
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Counts;

    fn ended(could_end: u64) -> Counts {
        let queued = LaneCounts { ended: 60, ..LaneCounts::default() };
        let immediate = LaneCounts { ended: 30, ..LaneCounts::default() };
        Counts { could_end, queued, immediate, ..Counts::default() }
    }

    fn report(accepted: u64, could_end: u64) -> Report {
        let happened = Happened { class: Class::QueuePurge, accepted, recovery: None };
        Report {
            seed: 1,
            lasted: Duration::from_mins(1),
            classes: vec![Class::QueuePurge],
            needed: 2,
            faults: vec![happened.clone(), Happened { accepted: 3, ..happened }],
            failed: Vec::new(),
            deaths: Vec::new(),
            lookups: 0,
            checked: Checked { counts: ended(could_end), ..Checked::default() },
        }
    }

    #[test]
    fn a_fault_without_load_does_not_count() {
        assert_eq!(report(1, 100).verdict(), Verdict::Passed);
        let idle = report(0, 100);
        assert_eq!((idle.verdict(), idle.lacking()), (Verdict::NotEnough, vec![Class::QueuePurge]));
        assert!(idle.to_text().contains("less than 2 times under load: queue-purge"));
    }

    #[test]
    fn nine_of_ten_commands_must_have_ended() {
        assert_eq!(report(1, 101).verdict(), Verdict::NotEnough);
    }

    #[test]
    fn a_violation_outweighs_everything() {
        let mut violated = report(0, 100);
        violated.checked.violations.found("money not conserved", || "acc-1".into());
        assert_eq!(violated.verdict(), Verdict::Violated);
        assert!(violated.to_text().contains("VIOLATION, money not conserved: 1\n  - acc-1"));
    }

    #[test]
    fn what_never_recovered_is_the_longest() {
        let seconds = |n| Some(Duration::from_secs(n));
        let times = [seconds(3), None, seconds(1)];
        assert_eq!(percentile(&times, 50), seconds(3));
        assert_eq!(percentile(&times, 99), None);
        assert_eq!(percentile(&[], 50), None);
    }
}
