//! What can be asked of an account.

use adjutant::prelude::*;

/// The largest amount that one command may move: 10¹² (ten billion, in cents).
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;

/// Opens the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Whose account it is.
    #[garde(length(chars, min = 1, max = 200))]
    #[schemars(length(min = 1, max = 200))]
    pub owner: String,
}

/// Puts money in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deposit {
    /// How much, in cents.
    #[garde(range(min = 1, max = MAX_AMOUNT))]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub amount: i64,
}

/// Takes money out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    /// How much, in cents.
    #[garde(range(min = 1, max = MAX_AMOUNT))]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub amount: i64,
}

/// Closes the account, which must be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Close {}

adjutant::commands! {
    /// What can be asked of an account.
    #[derive(PartialEq, Eq)]
    pub enum AccountCommand {
        Open(Open) = "open" v1,
        Deposit(Deposit) = "deposit" v1,
        Withdraw(Withdraw) = "withdraw" v1,
        Close(Close) = "close" v1,
    }
}
