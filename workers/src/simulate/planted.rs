//! Whether the simulation finds what it must: each planted bug, and how many seeds that took.

use adjutant::simulation::{Bug, Planted, SimulationError, SimulationSettings};
use comfy_table::{Table, presets};

use super::history;

/// A bug, and where it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The bug.
    pub bug: Bug,
    /// How many seeds it took, and the first violation; `None`: it was not found.
    pub after: Option<(u64, String)>,
    /// How many seeds were tried at most.
    pub tried: u64,
}

/// Looks for a bug in the histories from `first` on, at most `most` of them.
pub fn find(
    bug: Bug,
    first: u64,
    most: u64,
    settings: &SimulationSettings,
) -> Result<Found, SimulationError> {
    let _planted = Planted::on(bug);
    for nth in 0..most {
        let history = history(first.wrapping_add(nth), settings)?;
        if let Some(violation) = history.violations.into_iter().next() {
            return Ok(Found { bug, after: Some((nth + 1, violation)), tried: nth + 1 });
        }
    }
    Ok(Found { bug, after: None, tried: most })
}

/// For people.
pub fn to_text(found: &[Found]) -> String {
    const LONGEST: usize = 100;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["planted bug", "seeds", "found by"]);
    for Found { bug, after, tried } in found {
        let (seeds, violation) = match after {
            Some((seeds, violation)) => {
                (seeds.to_string(), violation.chars().take(LONGEST).collect())
            }
            None => (format!("not in {tried}"), String::new()),
        };
        table.add_row([bug.name().to_owned(), seeds, violation]);
    }
    table.to_string()
}
