//! The drill: does what the task says. The payload and the attempt decide, so that a decision can be
//! made again.

use std::{fmt, time::Duration};

use adjutant::{domain::FailureKind, prelude::*};

use super::{DrillCommand, DrillEvent, Ran, Run, RunInOrder, Task};

/// Counts its tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    runs: u64,
}

/// Why a task did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This attempt failed, as the task wants.
    Fails,
    /// No attempt can succeed.
    Fatal,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fails => "the task wants this attempt to fail",
            Self::Fatal => "the task can never succeed",
        })
    }
}

impl DomainError for Trouble {
    fn code(&self) -> &str {
        match self {
            Self::Fails => "drill_fails",
            Self::Fatal => "drill_fatal",
        }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Fails => FailureKind::Retryable,
            Self::Fatal => FailureKind::Fatal,
        }
    }
}

impl Aggregate for Drill {
    const TYPE: &'static str = "drill";
    type Command = DrillCommand;
    type Event = DrillEvent;
    type Error = Trouble;
    type Reply = u64;

    fn decide(
        &self,
        command: &DrillCommand,
        context: &Context,
    ) -> Result<Decision<DrillEvent, u64>, Trouble> {
        let (DrillCommand::Run(Run(task)) | DrillCommand::RunInOrder(RunInOrder(task))) = command;
        if task.aborts {
            std::process::abort();
        }
        if task.blocks_ms > 0 {
            std::thread::sleep(Duration::from_millis(task.blocks_ms));
        }
        if task.fatal {
            return Err(Trouble::Fatal);
        }
        if context.attempt().0 <= task.fails {
            return Err(Trouble::Fails);
        }
        let number = self.runs + 1;
        let Task { poisons, aborts_view, .. } = *task;
        Ok(Decision::event(Ran { number, poisons, aborts_view }).reply(number))
    }

    fn evolve(&mut self, DrillEvent::Ran(ran): &DrillEvent) {
        self.runs = ran.number;
    }
}

#[cfg(test)]
mod tests {
    use adjutant::testing::Given;

    use super::*;

    #[test]
    fn tasks_that_go_well_are_counted() {
        Given::<Drill>::nothing()
            .when(Run::default())
            .then_events((Ran { number: 1, poisons: false, aborts_view: false },))
            .when(RunInOrder(Task { poisons: true, ..Task::default() }))
            .then_events((Ran { number: 2, poisons: true, aborts_view: false },))
            .then_reply(2);
    }
}
