//! Commands of the immediate lane that enter with the transaction that decides them: rows of
//! `adjutant.commands` are written, rows of `adjutant.immediate` taken away, both before any log
//! lock, because they may wait for others (law 4).

use tokio_postgres::{Statement, types::ToSql};
use uuid::Uuid;

use super::{
    PostgresStore,
    new_commands::{self, NewColumns},
    transaction::{Params, Step, Transaction},
};
use crate::store::{Entering, StoreError};

/// See `migrations/0006_immediate_lane.sql`.
const FINISH: &str = "SELECT adjutant.finish_immediate($1, $2)";
/// See `migrations/0006_immediate_lane.sql`. It takes the first log locks, so it comes last.
const NOTHING_BEFORE: &str = "SELECT adjutant.expect_nothing_before($1, $2)";

/// Whether a statement takes log locks: nothing that can wait may come behind it.
pub(super) fn locks(sql: &str) -> bool {
    sql == NOTHING_BEFORE
}

/// The statements of what enters, with their parameters.
pub(super) struct Steps<'a> {
    new: NewColumns<'a>,
    has_new: bool,
    held_partitions: Vec<i16>,
    held_commands: Vec<Uuid>,
    strict_partitions: Vec<i16>,
    strict_streams: Vec<&'a str>,
}

impl<'a> Steps<'a> {
    pub(super) fn of(store: &PostgresStore, entering: &'a Entering) -> Result<Self, StoreError> {
        let mut held = entering.held.clone();
        held.sort_unstable();
        let mut strict: Vec<_> = entering.strict.iter().collect();
        strict.sort_unstable();
        Ok(Self {
            new: NewColumns::of(store, &entering.new)?,
            has_new: !entering.new.is_empty(),
            held_partitions: held.iter().map(|(partition, _)| partition.0).collect(),
            held_commands: held.iter().map(|(_, command)| command.0).collect(),
            strict_partitions: strict.iter().map(|(partition, _)| partition.0).collect(),
            strict_streams: strict.iter().map(|(_, stream)| stream.as_str()).collect(),
        })
    }

    /// Each statement that has something to do, in the order in which they are sent.
    pub(super) fn params(&self) -> Vec<(&'static str, Vec<&(dyn ToSql + Sync)>)> {
        let mut steps: Vec<(&'static str, Vec<&(dyn ToSql + Sync)>)> = Vec::new();
        if self.has_new {
            steps.push((new_commands::INSERT, self.new.params().to_vec()));
        }
        if !self.held_commands.is_empty() {
            steps.push((FINISH, vec![&self.held_partitions, &self.held_commands]));
        }
        if !self.strict_streams.is_empty() {
            steps.push((NOTHING_BEFORE, vec![&self.strict_partitions, &self.strict_streams]));
        }
        steps
    }
}

/// Statements that were prepared, with their parameters.
pub(super) struct Prepared<'a>(Vec<(Statement, Vec<&'a (dyn ToSql + Sync)>)>);

impl<'a> Prepared<'a> {
    pub(super) async fn all(
        transaction: &Transaction,
        steps: Vec<(&'static str, Vec<&'a (dyn ToSql + Sync)>)>,
    ) -> Result<Self, StoreError> {
        let mut prepared = Vec::with_capacity(steps.len());
        for (sql, params) in steps {
            prepared.push((transaction.prepare(sql).await?, params));
        }
        Ok(Self(prepared))
    }

    pub(super) fn steps(&self) -> Vec<Step<'_>> {
        self.0.iter().map(|(statement, params)| (statement, &params[..] as Params<'_>)).collect()
    }
}
