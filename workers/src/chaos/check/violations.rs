//! What must not be.

use std::collections::BTreeMap;

/// How many of a kind are kept in words; all are counted.
const SHOWN: usize = 10;

/// Violations, by kind.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    kinds: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Violations {
    /// Counts one.
    pub fn found(&mut self, kind: &'static str, words: impl FnOnce() -> String) {
        let (count, shown) = self.kinds.entry(kind).or_default();
        *count += 1;
        if shown.len() < SHOWN {
            shown.push(words());
        }
    }

    /// Counts several, of which some are given in words.
    pub fn found_many(&mut self, kind: &'static str, count: u64, words: &[String]) {
        if count > 0 {
            let (total, shown) = self.kinds.entry(kind).or_default();
            *total += count;
            shown.extend(words.iter().take(SHOWN.saturating_sub(shown.len())).cloned());
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.kinds.values().map(|(count, _)| count).sum()
    }

    /// Each kind, how many, and the first few in words.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64, &[String])> {
        self.kinds.iter().map(|(kind, (count, shown))| (*kind, *count, shown.as_slice()))
    }
}
