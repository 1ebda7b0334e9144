//! Commands that do harm, for tests of what follows. They exist only where `bank.fault_injection` is
//! switched on; elsewhere they are refused as unknown.

use adjutant::prelude::*;

/// Ends the process at once, as a crash does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Abort {}

/// Fails with an error that may go away, and never does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// Whether it says that trying again is of no use.
    #[garde(skip)]
    pub fatal: bool,
}

/// The same, in strict order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailInOrder {
    /// Whether it says that trying again is of no use.
    #[garde(skip)]
    pub fatal: bool,
}

/// Does nothing, in strict order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassInOrder {}

adjutant::commands! {
    /// What can be broken.
    pub enum FaultCommand {
        Abort(Abort) = "abort" v1,
        Fail(Fail) = "fail" v1,
        FailInOrder(FailInOrder) = "fail_in_order" v1 strict,
        PassInOrder(PassInOrder) = "pass_in_order" v1 strict,
    }
}

/// It never happens: faults leave no events.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Never {}

adjutant::events! {
    /// Faults leave no events.
    pub enum FaultEvent {
        Never(Never) = "never" v1,
    }
}

/// Where faults are sent to: `fault/…`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fault;

/// Why a fault failed.
#[derive(Debug, thiserror::Error)]
pub enum Injected {
    /// Another time it may do.
    #[error("it was told to fail")]
    Retryable,
    /// It never will.
    #[error("it was told to fail for good")]
    Fatal,
}

impl DomainError for Injected {
    fn code(&self) -> &'static str {
        "injected"
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Retryable => FailureKind::Retryable,
            Self::Fatal => FailureKind::Fatal,
        }
    }
}

impl Aggregate for Fault {
    const TYPE: &'static str = "fault";
    type Command = FaultCommand;
    type Event = FaultEvent;
    type Error = Injected;
    type Reply = ();

    fn decide(
        &self,
        command: &FaultCommand,
        _: &Context,
    ) -> Result<Decision<FaultEvent, ()>, Injected> {
        match command {
            FaultCommand::Abort(_) => std::process::abort(),
            FaultCommand::Fail(Fail { fatal })
            | FaultCommand::FailInOrder(FailInOrder { fatal }) => {
                Err(if *fatal { Injected::Fatal } else { Injected::Retryable })
            }
            FaultCommand::PassInOrder(_) => Ok(Decision::none()),
        }
    }

    fn evolve(&mut self, _: &FaultEvent) {}
}
