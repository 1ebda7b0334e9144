//! Finding a time zone by its name.

use std::sync::LazyLock;

use jiff::tz::{self, TimeZone, TimeZoneDatabase};

use super::InvalidSchedule;

/// For systems without a database, or with an old one.
static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Names in the system's database that are no zones, or another one on each machine.
const NO_ZONES: [&str; 3] = ["localtime", "posixrules", "Factory"];

/// The zone as the system's database has it, so that a change of a country's clocks comes with the
/// system's updates; else as the program's own has it.
pub(super) fn find(name: &str) -> Result<(String, TimeZone), InvalidSchedule> {
    let known = tz::db().get(name).or_else(|_| BUNDLED.get(name)).ok();
    // The unknown zone, and one without a name, have none.
    let zone = known.and_then(|zone| Some((zone.iana_name()?.to_owned(), zone)));
    zone.filter(|(name, _)| !NO_ZONES.contains(&name.as_str()))
        .ok_or_else(|| InvalidSchedule::TimeZone(name.to_owned()))
}
