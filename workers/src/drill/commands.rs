//! What can be asked of a drill, and what happens to it.

use adjutant::prelude::*;

/// The longest time that a task may block, in milliseconds.
const LONGEST_BLOCK: u64 = 60_000;

/// How a task goes. `{}` goes well.
#[allow(clippy::struct_excessive_bools)] // switches that do not depend on each other
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Task {
    /// How many attempts fail before one succeeds.
    #[garde(range(min = 0, max = 1_000))]
    #[schemars(range(min = 0, max = 1_000))]
    pub fails: i32,
    /// Whether it can never succeed: it is dead at the first attempt.
    #[garde(skip)]
    pub fatal: bool,
    /// For how long it blocks its thread, in milliseconds.
    #[garde(range(max = LONGEST_BLOCK))]
    #[schemars(range(max = 60_000))]
    pub blocks_ms: u64,
    /// Whether it aborts the process that executes it.
    #[garde(skip)]
    pub aborts: bool,
    /// Whether the view `drills` cannot apply its event, unless `bank.cured` is set.
    #[garde(skip)]
    pub poisons: bool,
    /// Whether its event aborts the process that applies it to the view `drills`, unless
    /// `bank.cured` is set.
    #[garde(skip)]
    pub aborts_view: bool,
}

/// Runs a task. A later one may overtake it while it is retried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(transparent)]
pub struct Run(#[garde(dive)] pub Task);

/// Runs a task; later ones of this kind wait behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(transparent)]
pub struct RunInOrder(#[garde(dive)] pub Task);

adjutant::commands! {
    /// What can be asked of a drill.
    #[derive(PartialEq, Eq)]
    pub enum DrillCommand {
        Run(Run) = "run" v1,
        RunInOrder(RunInOrder) = "run_in_order" v1 strict,
    }
}

/// A task ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ran {
    /// The how manieth of its drill, from 1.
    pub number: u64,
    /// Whether the view cannot apply this.
    pub poisons: bool,
    /// Whether the view aborts its process at this.
    #[serde(default)]
    pub aborts_view: bool,
}

adjutant::events! {
    /// What happens to a drill.
    #[derive(PartialEq, Eq)]
    pub enum DrillEvent {
        Ran(Ran) = "ran" v1,
    }
}
