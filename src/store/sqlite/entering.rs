//! Commands of the immediate lane that enter with the transaction that decides them: the rules of
//! `migrations/0006_immediate_lane.sql`.

use rusqlite::params;

use super::{intake, transaction::Transaction};
use crate::{
    message::{CommandId, GroupName, Partition, StreamId},
    store::{Entering, Fence, StoreError},
};

/// Served by the unique key.
const FINISH: &str = "DELETE FROM immediate WHERE command_id = ?1";

/// Served by the primary key.
const HELD: &str = "SELECT 1 FROM holds WHERE partition = ?1 AND stream = ?2 LIMIT 1";

/// Served by the unique key.
const HELD_COMMAND: &str = "SELECT 1 FROM immediate WHERE command_id = ?1";

impl Transaction<'_> {
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
