//! What the histories showed.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use adjutant::simulation::{Fault, FaultCounts, History};
use comfy_table::{Table, presets};

/// How many violations of a seed are printed.
const SHOWN: usize = 5;

/// All histories together.
#[derive(Clone, Debug, Default)]
pub struct Report {
    seeds: u64,
    commands: usize,
    succeeded: usize,
    cancelled: usize,
    steps: u64,
    simulated: Duration,
    /// How long the run took, by the machine's clock.
    pub took: Duration,
    faults: FaultCounts,
    repeated: u64,
    hashes: BTreeMap<u64, u64>,
    bad: BTreeMap<u64, Vec<String>>,
}

impl Report {
    /// Takes a history in, and the same once more if it was repeated.
    pub fn add(&mut self, history: &History, again: Option<&History>) {
        self.seeds += 1;
        self.commands += history.commands;
        self.succeeded += history.succeeded;
        self.cancelled += history.cancelled;
        self.steps += history.steps;
        self.simulated += history.simulated;
        for (fault, count) in &history.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        let mut violations = history.violations.clone();
        if let Some(again) = again {
            self.repeated += 1;
            if again != history {
                let (first, second) = (history.hash, again.hash);
                violations.push(format!("it does not repeat: {first:016x}, then {second:016x}"));
            }
        }
        if let Some(twin) = self.hashes.insert(history.hash, history.seed) {
            violations.push(format!("it has the hash of seed {twin}"));
        }
        if !violations.is_empty() {
            self.bad.insert(history.seed, violations);
        }
    }

    /// The seeds with violations.
    pub fn bad_seeds(&self) -> impl Iterator<Item = u64> + '_ {
        self.bad.keys().copied()
    }

    /// The kinds of faults that did not occur.
    pub fn missing_faults(&self) -> Vec<&'static str> {
        let missing = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault));
        missing.map(|fault| fault.name()).collect()
    }

    /// Whether no law was broken.
    pub fn is_clean(&self) -> bool {
        self.bad.is_empty()
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", "result"]);
        let minutes = self.took.as_secs_f64() / 60.0;
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let (succeeded, cancelled) = (self.succeeded, self.cancelled);
        let accepted = format!("{} ({succeeded} succeeded, {cancelled} cancelled)", self.commands);
        let rows = [
            ("seeds", self.seeds.to_string()),
            ("commands accepted", accepted),
            ("writes and deliveries", self.steps.to_string()),
            ("simulated", format!("{hours:.1} hours")),
            ("took", format!("{:.1} s", self.took.as_secs_f64())),
            ("histories a minute", format!("{:.0}", self.seeds as f64 / minutes)),
            ("repeated, with the same hash", self.repeated.to_string()),
            ("seeds with violations", self.bad.len().to_string()),
        ];
        for (what, result) in rows {
            table.add_row([what.to_owned(), result]);
        }
        let mut faults = Table::new();
        faults.load_style(presets::UTF8_FULL_CONDENSED).set_header(["fault", "times"]);
        for fault in Fault::ALL {
            let count = self.faults.get(fault).copied().unwrap_or_default();
            faults.add_row([fault.name().to_owned(), count.to_string()]);
        }
        let mut text = format!("{table}\n{faults}");
        for (seed, violations) in &self.bad {
            let _ = write!(text, "\nseed {seed}: {} violations", violations.len());
            for violation in violations.iter().take(SHOWN) {
                let _ = write!(text, "\n  - {violation}");
            }
        }
        text
    }
}
