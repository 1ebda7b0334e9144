//! Drills: commands that fail, block, poison a view or abort the process, as their payload says, so
//! that operators and tests see what becomes of them. Registered only if `bank.fault_injection` is set; the
//! simulation uses the same ones.

mod aggregate;
mod commands;
mod view;

pub use aggregate::Drill;
pub use commands::{DrillCommand, DrillEvent, Ran, Run, RunInOrder, Task};
pub use view::{Drills, Runs};

use adjutant::domain::{BuildError, Service};

use crate::accounts;

/// The bank with drills.
pub fn service(cured: bool) -> Result<Service, BuildError> {
    accounts::builder().aggregate::<Drill>().projection(Drills { cured }).build()
}
