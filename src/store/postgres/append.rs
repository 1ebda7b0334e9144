//! The second flight of accepting: under the command-log locks, log entries, outbox rows and COMMIT
//! in one function call, which runs only once it is received whole.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::{PostgresStore, transaction::Transaction};
use crate::{
    message::{CommandEnvelope, MAX_BATCH_BYTES, Partition, encode_commands},
    store::StoreError,
};

/// Commands by partition, each partition in the order of its log.
pub(super) type Appended = BTreeMap<Partition, Vec<CommandEnvelope>>;

const APPEND: &str = "
    SELECT adjutant.append_commands($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// With the executions that the entries owe.
const APPEND_AGAIN: &str = "
    SELECT adjutant.append_commands($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

impl PostgresStore {
    /// Appends and commits.
    pub(super) async fn append_and_commit(
        &self,
        transaction: Transaction,
        commands: &Appended,
    ) -> Result<(), StoreError> {
        let partitions: Vec<i16> = commands.keys().map(|partition| partition.0).collect();
        let (mut places, mut entry_partitions) = (Vec::new(), Vec::new());
        let (mut ids, mut buckets) = (Vec::new(), Vec::new());
        let (mut attempts, mut first_offsets, mut edits) = (Vec::new(), Vec::new(), Vec::new());
        let mut messages = Messages::default();
        for (partition, commands) in commands {
            for (i, command) in commands.iter().enumerate() {
                places.push(i as i32 + 1);
                entry_partitions.push(partition.0);
                ids.push(command.id.0);
                buckets.push(self.bucket(command.id));
                attempts.push(command.attempt.0);
                first_offsets.push(command.first_offset.map(|offset| offset.0));
                edits.push(command.edit);
            }
            messages.add(*partition, 1, commands)?;
        }
        let first_executions = attempts.iter().all(|attempt| *attempt == 1)
            && first_offsets.iter().all(Option::is_none)
            && edits.iter().all(|edit| *edit == 0);
        let append = transaction.prepare(if first_executions { APPEND } else { APPEND_AGAIN });
        let append = append.await?;
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&partitions, &places, &entry_partitions, &ids, &buckets];
        if !first_executions {
            params.extend([&attempts as &(dyn ToSql + Sync), &first_offsets, &edits]);
        }
        params.extend([
            &messages.partitions as &(dyn ToSql + Sync),
            &messages.places,
            &messages.entries,
            &messages.bodies,
        ]);
        transaction.commit_with(&append, &params).await?;
        Ok(())
    }
}

/// The columns of outbox rows that carry commands.
#[derive(Default)]
struct Messages {
    partitions: Vec<i16>,
    places: Vec<i32>,
    entries: Vec<i32>,
    bodies: Vec<Vec<u8>>,
}

impl Messages {
    /// One row, or as many as the size limit of a message asks for.
    fn add(
        &mut self,
        partition: Partition,
        first_place: usize,
        commands: &[CommandEnvelope],
    ) -> Result<(), StoreError> {
        let body =
            encode_commands(commands).map_err(|error| StoreError::Unstorable(error.to_string()))?;
        if body.len() > MAX_BATCH_BYTES && commands.len() > 1 {
            let (head, tail) = commands.split_at(commands.len() / 2);
            self.add(partition, first_place, head)?;
            return self.add(partition, first_place + head.len(), tail);
        }
        self.partitions.push(partition.0);
        self.places.push(first_place as i32);
        self.entries.push(commands.len() as i32);
        self.bodies.push(body);
        Ok(())
    }
}
