//! The view `balances`: one document an account, by account id.

use adjutant::prelude::*;

use super::{Account, AccountEvent, Status};

/// Maintains the view.
#[derive(Default)]
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
            let never = format!("{key} has a movement, but was never opened");
            return Err(ProjectionError::fatal(never));
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

#[cfg(test)]
mod tests {
    use adjutant::testing::GivenView;

    use super::*;
    use crate::accounts::{Closed, Deposited, Opened, Withdrawn};

    fn balance(owner: &str, balance: i64, entries: u64) -> Balance {
        Balance { owner: owner.into(), balance, entries, status: Status::Open }
    }

    #[test]
    fn a_balance_follows_the_movements_of_its_account() {
        let opened = Opened { owner: "Ada".into() };
        GivenView::<Balances>::nothing()
            .when::<Account>("acc-42", (opened, Deposited { amount: 500, balance: 500 }))
            .then_document("acc-42", &balance("Ada", 500, 1))
            .then_version("acc-42", 2)
            .when::<Account>("acc-42", (Withdrawn { amount: 200, balance: 300 },))
            .then_document("acc-42", &balance("Ada", 300, 2))
            .then_version("acc-42", 3)
            .when::<Account>("acc-42", (Withdrawn { amount: 300, balance: 0 }, Closed {}))
            .then_document("acc-42", &Balance { status: Status::Closed, ..balance("Ada", 0, 3) });
    }

    #[test]
    fn accounts_do_not_touch_each_other() {
        GivenView::<Balances>::document("a", &balance("Ada", 7, 1))
            .when::<Account>("b", (Opened { owner: "Bob".into() },))
            .then_document("a", &balance("Ada", 7, 1))
            .then_document("b", &balance("Bob", 0, 0))
            .then_keys(["a", "b"]);
    }

    #[test]
    fn a_movement_of_an_account_that_nobody_opened_stops_the_view() {
        GivenView::<Balances>::nothing()
            .when::<Account>("a", (Deposited { amount: 1, balance: 1 },))
            .then_stopped("was never opened");
    }
}
