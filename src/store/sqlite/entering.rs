//! Commands of the immediate lane that enter with the transaction that decides them: the rules of
//! `migrations/0006_immediate_lane.sql`.

use std::time::Duration;

use rusqlite::params;

use super::{
    intake,
    transaction::{Transaction, column, id, partition},
};
use crate::{
    message::{CommandId, GroupName, MemberId, Partition, StreamId},
    store::{Entering, Fence, HeldCommand, StoreError},
};

/// Served by the unique key.
const FINISH: &str = "DELETE FROM immediate WHERE command_id = ?1";

/// Served by the primary key.
const HELD: &str = "SELECT 1 FROM holds WHERE partition = ?1 AND stream = ?2 LIMIT 1";

/// Served by the unique key.
const HELD_COMMAND: &str = "SELECT 1 FROM immediate WHERE command_id = ?1";

/// Served by the primary key.
const ACCEPTED: &str = "SELECT 1 FROM commands WHERE id = ?1";

/// Served by the primary key.
const HELD_BY: &str = "
    SELECT id, partition, command_id, accepted_at FROM immediate
     WHERE owner = ?1 AND id > ?2 AND accepted_at < ?3 ORDER BY id LIMIT ?4";

/// The owner that nobody is. Served by the unique key.
const LET_GO_OF_HELD: &str = "UPDATE immediate SET owner = zeroblob(16) WHERE command_id = ?1";

impl Transaction<'_> {
    pub(super) fn accepted(&self, commands: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        let mut accepted = Vec::new();
        for command in commands {
            if self.exists(ACCEPTED, [command.0.as_bytes()])? {
                accepted.push(*command);
            }
        }
        Ok(accepted)
    }

    pub(super) fn held_by(
        &self,
        owner: MemberId,
        older_than: Duration,
        after: i64,
        limit: i64,
    ) -> Result<Vec<HeldCommand>, StoreError> {
        let older_than = i64::try_from(older_than.as_micros()).unwrap_or(i64::MAX);
        let before = self.now.saturating_sub(older_than);
        self.all(HELD_BY, params![owner.0.as_bytes(), after, before, limit], |row| {
            Ok(HeldCommand {
                place: column(row, 0)?,
                partition: partition(row, 1)?,
                id: CommandId(id(row, 2)?),
                age_ms: self.now.saturating_sub(column(row, 3)?) / 1_000,
            })
        })
    }

    pub(super) fn let_go_of_held(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<(), StoreError> {
        for (_, command) in commands {
            self.execute(LET_GO_OF_HELD, [command.0.as_bytes()])?;
        }
        Ok(())
    }

    pub(super) fn held(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<CommandId>, StoreError> {
        let mut held = Vec::new();
        for (_, command) in commands {
            if self.exists(HELD_COMMAND, [command.0.as_bytes()])? {
                held.push(*command);
            }
        }
        Ok(held)
    }

    pub(super) fn enter(&self, entering: &Entering) -> Result<(), StoreError> {
        for command in &entering.new {
            if !intake::insert(self, command)? {
                return Err(StoreError::Fenced(Fence::Accepted));
            }
        }
        for (_, command) in &entering.held {
            let finished = if planted!(HeldAfterItsEnd) {
                usize::from(self.exists(HELD_COMMAND, [command.0.as_bytes()])?)
            } else {
                self.execute(FINISH, [command.0.as_bytes()])?
            };
            if finished != 1 && !planted!(HeldNotFenced) {
                return Err(StoreError::Fenced(Fence::Held));
            }
        }
        for (partition, stream) in &entering.strict {
            self.expect_nothing_before(*partition, stream)?;
        }
        Ok(())
    }

    fn expect_nothing_before(
        &self,
        partition: Partition,
        stream: &StreamId,
    ) -> Result<(), StoreError> {
        let finished = self.checkpoint(&GroupName::commands(), partition)?;
        if self.command_head(partition)? > finished
            || self.exists(HELD, params![partition.0, stream.as_str()])?
        {
            return Err(StoreError::Fenced(Fence::Before));
        }
        Ok(())
    }
}
