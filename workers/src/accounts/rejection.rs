//! Why an account refuses.

use adjutant::prelude::DomainError;

use super::MAX_BALANCE;

/// Why a command is rejected. `Display` is for people, [`DomainError::code`] for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Nobody opened it.
    #[error("the account was never opened")]
    NotOpen,
    /// It exists already.
    #[error("the account is open already")]
    AlreadyOpen,
    /// It existed.
    #[error("the account is closed")]
    Closed,
    /// There is not enough in it.
    #[error("a withdrawal of {asked} exceeds the balance of {balance}")]
    InsufficientFunds {
        /// What was asked for.
        asked: i64,
        /// What is there.
        balance: i64,
    },
    /// There is something in it still.
    #[error("an account with a balance of {balance} cannot be closed")]
    BalanceNotZero {
        /// What is there.
        balance: i64,
    },
    /// It would hold more than it may.
    #[error("the balance would exceed {MAX_BALANCE}")]
    BalanceLimit,
}

impl DomainError for Rejection {
    fn code(&self) -> &str {
        match self {
            Self::NotOpen => "not_open",
            Self::AlreadyOpen => "already_open",
            Self::Closed => "closed",
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::BalanceNotZero { .. } => "balance_not_zero",
            Self::BalanceLimit => "balance_limit",
        }
    }
}
