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
    use adjutant::message::{CommandId, Metadata, Version};

    use super::*;
    use crate::accounts::{Close, MAX_AMOUNT, Open};

    fn decide(account: &Account, command: impl Into<AccountCommand>) -> Decided {
        let stream = "account/acc-42".parse().unwrap();
        let (id, now) = (CommandId::generate(), time::OffsetDateTime::UNIX_EPOCH);
        let context = Context::new(stream, Version(0), id, Metadata::default(), now);
        account.decide(&command.into(), &context)
    }

    /// Decides and folds; answers the balance.
    fn execute(
        account: &mut Account,
        command: impl Into<AccountCommand>,
    ) -> Result<i64, Rejection> {
        let decision = decide(account, command)?;
        decision.events.iter().for_each(|event| account.evolve(event));
        Ok(decision.reply.balance)
    }

    fn opened() -> Account {
        let mut account = Account::default();
        execute(&mut account, Open { owner: "Ada".into() }).unwrap();
        account
    }

    #[test]
    fn money_goes_in_and_out_and_every_reply_is_the_new_balance() {
        let mut account = opened();
        assert_eq!(execute(&mut account, Deposit { amount: 500 }), Ok(500));
        assert_eq!(execute(&mut account, Withdraw { amount: 200 }), Ok(300));
        assert_eq!(execute(&mut account, Withdraw { amount: 300 }), Ok(0));
        assert_eq!(execute(&mut account, Close {}), Ok(0));
    }

    #[test]
    fn a_movement_carries_the_balance_it_leads_to() {
        let mut account = opened();
        execute(&mut account, Deposit { amount: 500 }).unwrap();
        let decision = decide(&account, Withdraw { amount: 200 }).unwrap();
        assert_eq!(decision.events, [AccountEvent::from(Withdrawn { amount: 200, balance: 300 })]);
    }

    #[test]
    fn an_account_that_was_never_opened_refuses_everything_but_opening() {
        let account = Account::default();
        assert_eq!(decide(&account, Deposit { amount: 1 }), Err(Rejection::NotOpen));
        assert_eq!(decide(&account, Withdraw { amount: 1 }), Err(Rejection::NotOpen));
        assert_eq!(decide(&account, Close {}), Err(Rejection::NotOpen));
    }

    #[test]
    fn an_account_opens_once_and_a_closed_one_never_again() {
        let mut account = opened();
        let open = Open { owner: "Bob".into() };
        assert_eq!(decide(&account, open.clone()), Err(Rejection::AlreadyOpen));
        execute(&mut account, Close {}).unwrap();
        assert_eq!(decide(&account, open), Err(Rejection::Closed));
        assert_eq!(decide(&account, Deposit { amount: 1 }), Err(Rejection::Closed));
        assert_eq!(decide(&account, Withdraw { amount: 1 }), Err(Rejection::Closed));
        assert_eq!(decide(&account, Close {}), Err(Rejection::Closed));
    }

    #[test]
    fn nobody_takes_out_more_than_is_there_or_closes_what_is_not_empty() {
        let mut account = opened();
        execute(&mut account, Deposit { amount: 10 }).unwrap();
        let short = Rejection::InsufficientFunds { asked: 11, balance: 10 };
        assert_eq!(decide(&account, Withdraw { amount: 11 }), Err(short));
        assert_eq!(decide(&account, Close {}), Err(Rejection::BalanceNotZero { balance: 10 }));
    }

    #[test]
    fn the_balance_has_a_limit_and_no_amount_overflows() {
        let mut account = opened();
        for _ in 0..MAX_BALANCE / MAX_AMOUNT {
            execute(&mut account, Deposit { amount: MAX_AMOUNT }).unwrap();
        }
        assert_eq!(decide(&account, Deposit { amount: 1 }), Err(Rejection::BalanceLimit));
        assert_eq!(decide(&account, Deposit { amount: i64::MAX }), Err(Rejection::BalanceLimit));
        let refused = decide(&opened(), Withdraw { amount: i64::MAX }).unwrap_err();
        assert_eq!(refused.code(), "insufficient_funds");
    }
}
