//! The view `balances`: one document an account, by account id.

use adjutant::prelude::*;

use super::{Account, AccountEvent, Status};

/// Maintains the view.
pub struct Balances;

/// A document of the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Whose account it is.
    pub owner: String,
    /// What is in it, in cents.
    pub balance: i64,
    /// How many movements there were (deposits and withdrawals).
    pub entries: u64,
    /// Where it is in its life.
    pub status: Status,
}

impl Projection for Balances {
    const NAME: &'static str = "balances";
    const SCOPE: Scope = Scope::Stream;
    type View = Balance;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Account>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![event.stream.id().to_owned()]
    }

    fn apply(
        &self,
        key: &str,
        view: &mut Option<Balance>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let Some(event) = event.get::<AccountEvent>() else { return Ok(()) };
        if let AccountEvent::Opened(opened) = event {
            let owner = opened.owner.clone();
            *view = Some(Balance { owner, balance: 0, entries: 0, status: Status::Open });
            return Ok(());
        }
        let Some(view) = view else {
            return Err(ProjectionError(format!("{key} has a movement, but was never opened")));
        };
        match event {
            AccountEvent::Opened(_) => {}
            AccountEvent::Deposited(deposited) => view.moved_to(deposited.balance),
            AccountEvent::Withdrawn(withdrawn) => view.moved_to(withdrawn.balance),
            AccountEvent::Closed(_) => view.status = Status::Closed,
        }
        Ok(())
    }
}

impl Balance {
    fn moved_to(&mut self, balance: i64) {
        self.balance = balance;
        self.entries += 1;
    }
}
