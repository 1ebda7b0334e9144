//! The view `drills`: how often each drill ran. It cannot apply what is poisoned, until it is cured.

use adjutant::prelude::*;

use super::{Drill, DrillEvent};

/// Maintains the view.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drills {
    /// Whether poisoned events, and those that abort, are applied like others.
    pub cured: bool,
}

/// A document of the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// How many tasks ran.
    pub runs: u64,
}

impl Projection for Drills {
    const NAME: &'static str = "drills";
    const SCOPE: Scope = Scope::Stream;
    type View = Runs;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Drill>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![event.stream.id().to_owned()]
    }

    fn apply(
        &self,
        key: &str,
        view: &mut Option<Runs>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let Some(DrillEvent::Ran(ran)) = event.get::<DrillEvent>() else { return Ok(()) };
        if ran.aborts_view && !self.cured {
            std::process::abort();
        }
        if ran.poisons && !self.cured {
            return Err(ProjectionError::fatal(format!(
                "task {} of {key} is poisoned",
                ran.number
            )));
        }
        view.get_or_insert_default().runs += 1;
        Ok(())
    }
}
