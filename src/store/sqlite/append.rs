//! Appending to the command log: entries and the outbox rows that carry them.

use std::collections::BTreeMap;

use rusqlite::params;

use super::transaction::Transaction;
use crate::{
    message::{CommandEnvelope, MAX_BATCH_BYTES, Offset, Partition, encode_commands},
    store::StoreError,
};

/// Commands by partition, each partition in the order of its log.
pub(super) type Appended = BTreeMap<Partition, Vec<CommandEnvelope>>;

/// Served by the primary key, read backwards.
const HEAD: &str = "
    SELECT \"offset\" FROM command_log WHERE partition = ?1 ORDER BY \"offset\" DESC LIMIT 1";

const ENTRY: &str = "
    INSERT INTO command_log (partition, \"offset\", command_id, recorded_at, attempt, first_offset,
                             edit)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const MESSAGE: &str = "
    INSERT INTO outbox (partition, route, first_offset, entries, content_type, body, recorded_at)
    VALUES (?1, ?2, ?3, ?4, 'application/msgpack', ?5, ?6)";

/// `outbox.route` of commands.
pub(super) const COMMANDS: i16 = 1;
/// `outbox.route` of events.
pub(super) const EVENTS: i16 = 2;

impl Transaction<'_> {
    /// The newest offset of a command log.
    pub(super) fn command_head(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.number(HEAD, [partition.0]).map(Offset)
    }

    /// Appends commands with the next offsets of their logs. There is no other writer between the
    /// head that is read and the entries that follow it.
    pub(super) fn append(&self, commands: &Appended) -> Result<(), StoreError> {
        for (partition, commands) in commands {
            let head = self.command_head(*partition)?;
            #[cfg(feature = "planted-bugs")]
            let head = if planted!(OffsetBeforeCommit) {
                let n = commands.len();
                Offset(crate::planted::taken("commands", partition.0, head.0, n))
            } else {
                head
            };
            let first = head.next();
            for (i, command) in commands.iter().enumerate() {
                let id = command.id.0.as_bytes();
                let (offset, first_offset) = (first.plus(i).0, command.first_offset.map(|it| it.0));
                let params = params![
                    partition.0,
                    offset,
                    id,
                    self.now,
                    command.attempt.0,
                    first_offset,
                    command.edit
                ];
                self.execute(ENTRY, params)?;
            }
            self.tell(*partition, first, commands)?;
        }
        Ok(())
    }

    /// One outbox row, or as many as the size limit of a message asks for.
    fn tell(
        &self,
        partition: Partition,
        first: Offset,
        commands: &[CommandEnvelope],
    ) -> Result<(), StoreError> {
        let body =
            encode_commands(commands).map_err(|error| StoreError::Unstorable(error.to_string()))?;
        if body.len() > MAX_BATCH_BYTES && commands.len() > 1 {
            let (head, tail) = commands.split_at(commands.len() / 2);
            self.tell(partition, first, head)?;
            return self.tell(partition, first.plus(head.len()), tail);
        }
        self.write_message(COMMANDS, partition, first, commands.len(), &body)
    }

    /// An outbox row that carries entries of a log.
    pub(super) fn write_message(
        &self,
        route: i16,
        partition: Partition,
        first: Offset,
        entries: usize,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let entries = entries as i64;
        self.execute(MESSAGE, params![partition.0, route, first.0, entries, body, self.now])?;
        Ok(())
    }
}
