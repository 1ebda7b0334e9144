//! Commands of the immediate lane that enter with the transaction that decides them: rows of
//! `adjutant.commands` are written, rows of `adjutant.immediate` taken away, both before any log
//! lock, because they may wait for others (law 4).
//!
//! All of it is one statement with what is decided: should BEGIN fail, and the statements behind it
//! run on their own, none of them takes place without the others.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{PostgresStore, new_commands::NewColumns};
use crate::store::{Entering, StoreError};

/// See `migrations/0006_immediate_lane.sql`.
pub(super) const ENTER: &str = "
    SELECT adjutant.enter($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                          $17, $18)";

/// How many parameters [`ENTER`] has.
pub(super) const PARAMS: usize = 18;

/// What enters, column by column.
pub(super) struct EnteringColumns<'a> {
    new: NewColumns<'a>,
    held_partitions: Vec<i16>,
    held_commands: Vec<Uuid>,
    strict_partitions: Vec<i16>,
    strict_streams: Vec<&'a str>,
}

impl<'a> EnteringColumns<'a> {
    pub(super) fn of(store: &PostgresStore, entering: &'a Entering) -> Result<Self, StoreError> {
        let mut held = entering.held.clone();
        held.sort_unstable();
        let mut strict: Vec<_> = entering.strict.iter().collect();
        strict.sort_unstable();
        Ok(Self {
            new: NewColumns::of(store, &entering.new)?,
            held_partitions: held.iter().map(|(partition, _)| partition.0).collect(),
            held_commands: held.iter().map(|(_, command)| command.0).collect(),
            strict_partitions: strict.iter().map(|(partition, _)| partition.0).collect(),
            strict_streams: strict.iter().map(|(_, stream)| stream.as_str()).collect(),
        })
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut params = self.new.params().to_vec();
        params.extend([
            &self.held_partitions as &(dyn ToSql + Sync),
            &self.held_commands,
            &self.strict_partitions,
            &self.strict_streams,
        ]);
        params
    }

    /// Those of `adjutant.expect_nothing_before`.
    pub(super) fn strict_params(&self) -> [&(dyn ToSql + Sync); 2] {
        [&self.strict_partitions, &self.strict_streams]
    }
}
