//! The account: decides commands, one stream an account (`account/acc-42`).

use adjutant::prelude::*;

use super::{
    AccountCommand, AccountEvent, Closed, Deposit, Deposited, Opened, Rejection, Withdraw,
    Withdrawn,
};

/// The most an account may hold: 10¹⁵ cents, which every JSON reader holds exactly (below 2⁵³).
pub const MAX_BALANCE: i64 = 1_000_000_000_000_000;

/// Where an account is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nobody opened it yet.
    #[default]
    Unopened,
    /// In use.
    Open,
    /// Closed for good.
    Closed,
}

/// The state that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    status: Status,
    balance: i64,
}

/// What a successful command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The balance afterwards.
    pub balance: i64,
}

type Decided = Result<Decision<AccountEvent, Reply>, Rejection>;

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Error = Rejection;
    type Reply = Reply;

    fn decide(&self, command: &AccountCommand, _: &Context) -> Decided {
        match command {
            AccountCommand::Open(open) => match self.status {
                Status::Unopened => Ok(happens(Opened { owner: open.owner.clone() }, 0)),
                Status::Open => Err(Rejection::AlreadyOpen),
                Status::Closed => Err(Rejection::Closed),
            },
            AccountCommand::Deposit(deposit) => self.in_use()?.deposit(deposit),
            AccountCommand::Withdraw(withdraw) => self.in_use()?.withdraw(withdraw),
            AccountCommand::Close(_) => match self.in_use()?.balance {
                0 => Ok(happens(Closed {}, 0)),
                balance => Err(Rejection::BalanceNotZero { balance }),
            },
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened(_) => self.status = Status::Open,
            AccountEvent::Deposited(deposited) => self.balance = deposited.balance,
            AccountEvent::Withdrawn(withdrawn) => self.balance = withdrawn.balance,
            AccountEvent::Closed(_) => self.status = Status::Closed,
        }
    }
}

impl Account {
    fn in_use(&self) -> Result<&Self, Rejection> {
        match self.status {
            Status::Unopened => Err(Rejection::NotOpen),
            Status::Open => Ok(self),
            Status::Closed => Err(Rejection::Closed),
        }
    }

    /// The rules bound the amount at the door; a command that came past them (an older release's,
    /// say) must not overflow all the same.
    fn deposit(&self, &Deposit { amount }: &Deposit) -> Decided {
        let balance = self.balance.checked_add(amount).filter(|balance| *balance <= MAX_BALANCE);
        let balance = balance.ok_or(Rejection::BalanceLimit)?;
        Ok(happens(Deposited { amount, balance }, balance))
    }

    fn withdraw(&self, &Withdraw { amount }: &Withdraw) -> Decided {
        let left = self.balance.checked_sub(amount).filter(|balance| *balance >= 0);
        let short = Rejection::InsufficientFunds { asked: amount, balance: self.balance };
        let balance = left.ok_or(short)?;
        Ok(happens(Withdrawn { amount, balance }, balance))
    }
}

fn happens(event: impl Into<AccountEvent>, balance: i64) -> Decision<AccountEvent, Reply> {
    Decision::event(event).reply(Reply { balance })
}

#[cfg(test)]
mod tests {
    use adjutant::{
        message::{CommandId, Metadata, Version},
        testing::{Given, START, assert_replayable},
    };

    use super::*;
    use crate::accounts::{Close, MAX_AMOUNT, Open};

    fn opened() -> Given<Account> {
        Given::events((Opened { owner: "Ada".into() },))
    }

    #[test]
    fn money_goes_in_and_out_and_every_reply_is_the_new_balance() {
        Given::<Account>::nothing()
            .when(Open { owner: "Ada".into() })
            .then_events((Opened { owner: "Ada".into() },))
            .then_reply(Reply { balance: 0 })
            .when(Deposit { amount: 500 })
            .then_events((Deposited { amount: 500, balance: 500 },))
            .then_reply(Reply { balance: 500 })
            .when(Withdraw { amount: 200 })
            .then_events((Withdrawn { amount: 200, balance: 300 },))
            .then_reply(Reply { balance: 300 })
            .when(Withdraw { amount: 300 })
            .then_reply(Reply { balance: 0 })
            .when(Close {})
            .then_events((Closed {},))
            .then_reply(Reply { balance: 0 });
    }

    #[test]
    fn an_account_that_was_never_opened_refuses_everything_but_opening() {
        Given::<Account>::nothing()
            .when(Deposit { amount: 1 })
            .then_rejected("not_open")
            .when(Withdraw { amount: 1 })
            .then_rejected("not_open")
            .when(Close {})
            .then_rejected("not_open");
    }

    #[test]
    fn an_account_opens_once_and_a_closed_one_never_again() {
        let open = Open { owner: "Bob".into() };
        opened()
            .when(open.clone())
            .then_rejected("already_open")
            .and()
            .after(Close {})
            .when(open)
            .then_rejected("closed")
            .when(Deposit { amount: 1 })
            .then_rejected("closed")
            .when(Withdraw { amount: 1 })
            .then_rejected("closed")
            .when(Close {})
            .then_rejected("closed");
    }

    #[test]
    fn nobody_takes_out_more_than_is_there_or_closes_what_is_not_empty() {
        opened()
            .after(Deposit { amount: 10 })
            .when(Withdraw { amount: 11 })
            .then_error(Rejection::InsufficientFunds { asked: 11, balance: 10 })
            .when(Close {})
            .then_error(Rejection::BalanceNotZero { balance: 10 });
    }

    #[test]
    fn the_rules_bound_what_one_command_may_say() {
        opened()
            .when(Deposit { amount: 0 })
            .then_invalid(["/amount"])
            .when(Withdraw { amount: MAX_AMOUNT + 1 })
            .then_invalid(["/amount"])
            .when(Open { owner: String::new() })
            .then_invalid(["/owner"]);
    }

    #[test]
    fn the_balance_has_a_limit() {
        opened()
            .and_events((Deposited { amount: MAX_AMOUNT, balance: MAX_BALANCE - 1 },))
            .when(Deposit { amount: 1 })
            .then_reply(Reply { balance: MAX_BALANCE })
            .when(Deposit { amount: 1 })
            .then_rejected("balance_limit");
    }

    /// By hand, because the kit refuses such commands by their rules, as the ingress does.
    #[test]
    fn an_amount_that_came_past_the_rules_does_not_overflow() {
        let account = Account { status: Status::Open, balance: 1 };
        let decide = |command: AccountCommand| {
            let stream = "account/acc-42".parse().unwrap();
            let (id, who) = (CommandId::generate(), Metadata::default());
            account.decide(&command, &Context::new(stream, Version(1), id, who, START))
        };
        let refused = decide(Deposit { amount: i64::MAX }.into()).unwrap_err();
        assert_eq!(refused, Rejection::BalanceLimit);
        let refused = decide(Withdraw { amount: i64::MAX }.into()).unwrap_err();
        assert_eq!(refused.code(), "insufficient_funds");
    }

    #[test]
    fn accounts_are_replayable_and_old_events_stay_readable() {
        assert_replayable::<Account>();
    }
}
