//! The bank's domain: accounts that are opened, filled, emptied and closed, and two views of them.
//! Amounts are integers in the smallest unit of the currency (cents).

mod account;
mod balances;
mod commands;
mod events;
mod rejection;
mod statements;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod running;

pub use account::{Account, MAX_BALANCE, Reply, Status};
pub use balances::{Balance, Balances};
pub use commands::{AccountCommand, Close, Deposit, MAX_AMOUNT, Open, Withdraw};
pub use events::{AccountEvent, Closed, Deposited, Opened, Withdrawn};
pub use rejection::Rejection;
pub use statements::{Entry, EntryKind, Statements};

use adjutant::domain::{BuildError, Service, ServiceBuilder};

/// The bank as a service: what every role of it runs.
pub fn service() -> Result<Service, BuildError> {
    builder().build()
}

pub(crate) fn builder() -> ServiceBuilder {
    Service::builder().aggregate::<Account>().projection(Balances).projection(Statements)
}
