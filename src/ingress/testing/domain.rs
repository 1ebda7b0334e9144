//! A small bank, one of whose rules has a bug.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Aggregate, Context, Decision, EventRecord, EventSelection, NoError, Projection,
    ProjectionError, Service,
};

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deposit {
    #[garde(range(min = 1))]
    amount: i64,
    #[garde(inner(length(max = 10)), custom(panics))]
    #[serde(default)]
    note: Option<String>,
    #[garde(skip)]
    #[serde(default)]
    extra: serde_json::Value,
}

/// A rule of a user that has a bug. garde prescribes its shape.
#[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, clippy::unnecessary_wraps)]
fn panics(note: &Option<String>, (): &()) -> garde::Result {
    assert!(note.as_deref() != Some("panic"), "a bug in a rule");
    Ok(())
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Deposited {
    amount: i64,
}

crate::commands! {
    pub(crate) enum AccountCommand {
        Deposit(Deposit) = "deposit" v1,
    }
}

crate::events! {
    pub(crate) enum AccountEvent {
        Deposited(Deposited) = "deposited" v1,
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    balance: i64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = NoError;
    type Reply = ();

    fn decide(
        &self,
        command: &AccountCommand,
        _: &Context,
    ) -> Result<Decision<AccountEvent, ()>, NoError> {
        let AccountCommand::Deposit(deposit) = command;
        Ok(Decision::event(Deposited { amount: deposit.amount }))
    }

    fn evolve(&mut self, event: &AccountEvent) {
        let AccountEvent::Deposited(deposited) = event;
        self.balance += deposited.amount;
    }
}

pub(crate) struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances";
    type View = i64;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Account>()
    }
    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![event.stream.id().to_owned()]
    }
    fn apply(
        &self,
        _: &str,
        view: &mut Option<i64>,
        _: &EventRecord,
    ) -> Result<(), ProjectionError> {
        *view = Some(view.unwrap_or_default() + 1);
        Ok(())
    }
}

pub(crate) fn bank() -> Service {
    Service::builder().aggregate::<Account>().projection(Balances).build().unwrap()
}
