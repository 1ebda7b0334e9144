//! Money: what the commands of each account that succeeded paid in and out is what the account
//! holds, as its view shows it.

use std::collections::HashMap;

use sqlx::Connection;

use super::{Violations, stored::Stored};
use crate::chaos::{clients::Kind, error::ChaosError, log::Entry, services::Postgres};

const BALANCES: &str = include_str!("../queries/balances.sql");

pub(super) async fn check(
    entries: &[Entry],
    stored: &Stored,
    postgres: &Postgres,
    violations: &mut Violations,
) -> Result<(), ChaosError> {
    let mut connection = postgres.connect().await?;
    let shown: Vec<(String, i64)> = sqlx::query_as(BALANCES).fetch_all(&mut connection).await?;
    connection.close().await?;
    compare(&moved(entries, stored), &shown.into_iter().collect(), violations);
    Ok(())
}

pub(super) fn moved(entries: &[Entry], stored: &Stored) -> HashMap<String, i64> {
    let mut sums = HashMap::new();
    for entry in entries {
        let command = &entry.command;
        let succeeded = stored.outcome(command.id).is_some_and(|outcome| outcome.status == 1);
        if succeeded && !command.kind.is_drill() {
            let sum = sums.entry(command.account.clone()).or_insert(0_i64);
            match command.kind {
                Kind::Deposit => *sum += command.amount,
                Kind::Withdrawal => *sum -= command.amount,
                _ => {}
            }
        }
    }
    sums
}

pub(super) fn compare(
    moved: &HashMap<String, i64>,
    shown: &HashMap<String, i64>,
    violations: &mut Violations,
) {
    for (account, balance) in shown {
        let sum = moved.get(account).copied();
        if sum != Some(*balance) {
            violations.found("money not conserved", || {
                format!("{account} shows {balance}; what succeeded comes to {sum:?}")
            });
        }
    }
    for (account, sum) in moved.iter().filter(|(account, _)| !shown.contains_key(*account)) {
        violations.found("money not conserved", || {
            format!("{account} is not in the view; what succeeded comes to {sum}")
        });
    }
}
