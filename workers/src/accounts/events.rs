//! What can happen to an account. Movements carry the balance that they lead to, so that a reader
//! of one event needs no other.

use adjutant::prelude::*;

/// The account exists now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// Whose account it is.
    pub owner: String,
}

/// Money came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deposited {
    /// How much, in cents.
    pub amount: i64,
    /// The balance afterwards.
    pub balance: i64,
}

/// Money went out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Withdrawn {
    /// How much, in cents.
    pub amount: i64,
    /// The balance afterwards.
    pub balance: i64,
}

/// The account is closed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Closed {}

adjutant::events! {
    /// What can happen to an account.
    #[derive(PartialEq, Eq)]
    pub enum AccountEvent {
        Opened(Opened) = "opened" v1,
        Deposited(Deposited) = "deposited" v1,
        Withdrawn(Withdrawn) = "withdrawn" v1,
        Closed(Closed) = "closed" v1,
    }
}
