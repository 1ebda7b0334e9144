//! The verdict: for people as a table, for programs as JSON.

use std::fmt::Write;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::database::{Connection, DatabaseError, Question};

/// How many findings of a check are shown in words; all are counted.
const SHOWN: usize = 5;

/// A check and what it found.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its name in JSON.
    pub name: &'static str,
    /// How many findings there are.
    pub found: u64,
    /// The first few, in words.
    pub findings: Vec<String>,
}

impl Check {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, found: 0, findings: Vec::new() }
    }

    /// Counts a finding; the words are made only if they will be shown.
    pub(super) fn found(&mut self, words: impl FnOnce() -> String) {
        self.found += 1;
        if self.findings.len() < SHOWN {
            self.findings.push(words());
        }
    }

    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.found == 0
    }
}

/// How much there was to check.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Accepted commands.
    pub commands: i64,
    /// Outcomes.
    pub outcomes: i64,
    /// Of those, succeeded.
    pub succeeded: i64,
    /// Of those, rejected.
    pub rejected: i64,
    /// Events.
    pub events: i64,
    /// Documents of all views.
    pub documents: i64,
    /// Commands that wait for their time.
    pub scheduled: i64,
}

/// The verdict.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every check.
    pub checks: [Check; 4],
    /// How much there was to check.
    pub counts: Counts,
    /// Projections that are behind their logs, and by how many events.
    pub behind: Vec<(String, i64)>,
    /// Projections in which keys are parked, and how many: their documents are compared as far as they
    /// were applied.
    pub parked: Vec<(String, i64)>,
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(Check::passed)
    }

    /// `{ "every_command_one_outcome": true, … }`
    pub fn verdicts(&self) -> serde_json::Value {
        let verdicts =
            self.checks.iter().map(|check| (check.name.to_owned(), check.passed().into()));
        serde_json::Value::Object(verdicts.collect())
    }

    /// One object with everything.
    pub fn to_json(&self) -> serde_json::Value {
        let failed = self.checks.iter().filter(|check| !check.passed());
        let findings: serde_json::Map<_, _> = failed
            .map(|check| {
                let words = serde_json::json!({ "count": check.found, "first": check.findings });
                (check.name.to_owned(), words)
            })
            .collect();
        let behind: serde_json::Map<_, _> =
            self.behind.iter().map(|(group, events)| (group.clone(), (*events).into())).collect();
        let parked: serde_json::Map<_, _> =
            self.parked.iter().map(|(group, keys)| (group.clone(), (*keys).into())).collect();
        serde_json::json!({
            "checks": self.verdicts(),
            "findings": findings,
            "counts": self.counts,
            "events_behind": behind,
            "parked_keys": parked,
        })
    }

    /// The table, followed by what was found.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["check", "result"]);
        for check in &self.checks {
            let verdict = match check.found {
                0 => "ok".to_owned(),
                found => format!("FAILED ({found} findings)"),
            };
            table.add_row([check.name, &verdict]);
        }
        let counts = &self.counts;
        let mut text = format!(
            "{table}\n{} commands ({} succeeded, {} rejected), {} events, {} documents",
            counts.commands, counts.succeeded, counts.rejected, counts.events, counts.documents,
        );
        for check in &self.checks {
            for finding in &check.findings {
                let _ = write!(text, "\n{}: {finding}", check.name);
            }
            if check.found > check.findings.len() as u64 {
                let more = check.found - check.findings.len() as u64;
                let _ = write!(text, "\n{}: … and {more} more", check.name);
            }
        }
        for (group, events) in &self.behind {
            let _ = write!(text, "\nnote: {group} is {events} events behind");
        }
        for (group, keys) in &self.parked {
            let _ = write!(text, "\nnote: {keys} keys are parked in {group}");
        }
        text
    }
}

pub(super) async fn counts(database: &mut Connection) -> Result<Counts, DatabaseError> {
    let row = database.one(Question::plain(include_str!("queries/counts.sql"))).await?;
    Ok(Counts {
        commands: row.integer("commands")?,
        outcomes: row.integer("outcomes")?,
        succeeded: row.integer("succeeded")?,
        rejected: row.integer("rejected")?,
        events: row.integer("events")?,
        documents: row.integer("documents")?,
        scheduled: row.integer("scheduled")?,
    })
}

pub(super) async fn groups_behind(
    database: &mut Connection,
) -> Result<Vec<(String, i64)>, DatabaseError> {
    let rows = database.all(Question::plain(include_str!("queries/groups_behind.sql"))).await?;
    let all =
        rows.iter().map(|row| Ok((row.text("group_name")?.to_owned(), row.integer("behind")?)));
    let all: Result<Vec<(String, i64)>, DatabaseError> = all.collect();
    Ok(all?.into_iter().filter(|(_, behind)| *behind > 0).collect())
}
