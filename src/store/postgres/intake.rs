//! Accepting commands, in two flights.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    PostgresStore,
    append::Appended,
    columns::{Jsonb, content_hash, headers_json},
    errors,
    new_commands::{self, NewColumns},
    pool,
    transaction::Transaction,
};
use crate::{
    message::{Attempt, CommandEnvelope, CommandId, ContentHash, Timestamp},
    store::{Accepted, Intake, NewCommand, Occupied, RejectedMessage, StoreError, WhenDue},
};

/// Served by commands_pkey.
const OCCUPIED: &str = "
    SELECT c.id, c.content_hash, c.accepted_at
      FROM unnest($1::smallint[], $2::uuid[]) AS n(bucket, id)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.commands f
                          WHERE f.bucket = n.bucket AND f.id = n.id OFFSET 0) AS c";

const SCHEDULE: &str = "
    INSERT INTO adjutant.schedule (partition, due_at, command_id, bucket, reason)
    SELECT * FROM unnest($1::smallint[], $2::timestamptz[], $3::uuid[], $4::smallint[], $5::text[])";

const HOLD: &str = "
    INSERT INTO adjutant.immediate (partition, command_id, bucket, owner, accepted_at)
    SELECT n.p, n.id, n.bucket, n.owner, n.accepted_at
      FROM unnest($1::smallint[], $2::uuid[], $3::smallint[], $4::uuid[], $5::timestamptz[])
           WITH ORDINALITY AS n(p, id, bucket, owner, accepted_at, i)
     ORDER BY n.i";

const REJECT: &str = "
    INSERT INTO adjutant.outbox (partition, route, entries, content_type, headers, body, recorded_at)
    SELECT 0, 4, 0, n.content_type, n.headers, n.body, clock_timestamp()
      FROM unnest($1::text[], $2::jsonb[], $3::bytea[]) AS n(content_type, headers, body)";

#[async_trait]
impl Intake for PostgresStore {
    async fn accept(&self, batch: Vec<NewCommand>) -> Result<Vec<Accepted>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.transaction().await?;
        let inserted = self.insert_new(&mut transaction, &batch).await?;
        let occupied = self.look_up_occupied(&mut transaction, &batch, &inserted).await?;
        let mut answered = HashMap::new();
        let answers =
            batch.iter().map(|command| answer(command, &inserted, &occupied, &mut answered));
        let answers = answers.collect::<Result<_, _>>()?;
        if inserted.is_empty() {
            transaction.roll_back().await?;
        } else {
            self.schedule_delayed(&mut transaction, &batch, &inserted).await?;
            self.hold_immediate(&mut transaction, &batch, &inserted).await?;
            let appended = self.log_entries(&batch, &inserted);
            self.append_and_commit(transaction, &appended).await?;
        }
        Ok(answers)
    }

    async fn reject_messages(&self, messages: Vec<RejectedMessage>) -> Result<(), StoreError> {
        let client = self.hot().await?;
        let reject = pool::prepare(&client, REJECT).await?;
        let headers = messages
            .iter()
            .map(|message| headers_json(&message.headers))
            .collect::<Result<Vec<_>, _>>()?;
        let headers: Vec<_> = headers.iter().map(|text| Jsonb(text)).collect();
        let content_types: Vec<_> = messages.iter().map(|m| m.content_type.as_str()).collect();
        let bodies: Vec<_> = messages.iter().map(|m| m.body.as_slice()).collect();
        let result = client.execute(&reject, &[&content_types, &headers, &bodies]).await;
        result.map(|_| ()).map_err(errors::after_commit)
    }
}

/// A command that this transaction inserted.
#[derive(Clone, Copy)]
struct Inserted {
    accepted_at: Timestamp,
    delayed: bool,
}

impl Inserted {
    fn is_scheduled(self, command: &NewCommand) -> bool {
        self.delayed || command.when_due == WhenDue::Lane
    }
}

type InsertedById = HashMap<Uuid, Inserted>;

impl PostgresStore {
    async fn insert_new(
        &self,
        transaction: &mut Transaction,
        batch: &[NewCommand],
    ) -> Result<InsertedById, StoreError> {
        let columns = NewColumns::of(self, batch)?;
        let insert = transaction.prepare(new_commands::INSERT_UNLESS_THERE).await?;
        let rows = transaction.begin_with(&insert, &columns.params()).await?;
        let inserted =
            |row: &Row| (row.get(0), Inserted { accepted_at: row.get(1), delayed: row.get(2) });
        Ok(rows.iter().map(inserted).collect())
    }

    /// Whatever was not inserted is there already: committed before, or meanwhile (the insert
    /// waited for it).
    async fn look_up_occupied(
        &self,
        transaction: &mut Transaction,
        batch: &[NewCommand],
        inserted: &InsertedById,
    ) -> Result<HashMap<Uuid, Occupied>, StoreError> {
        let ids: Vec<Uuid> =
            batch.iter().map(|c| c.id.0).filter(|id| !inserted.contains_key(id)).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let buckets: Vec<_> = ids.iter().map(|id| self.bucket(CommandId(*id))).collect();
        let occupied = transaction.prepare(OCCUPIED).await?;
        let rows = transaction.query(&occupied, &[&buckets, &ids]).await?;
        rows.iter()
            .map(|row| {
                let hash = content_hash(row.get(1))?;
                Ok((row.get(0), Occupied { content_hash: hash, accepted_at: row.get(2) }))
            })
            .collect()
    }

    /// The new commands that wait in the schedule.
    async fn schedule_delayed(
        &self,
        transaction: &mut Transaction,
        batch: &[NewCommand],
        inserted: &InsertedById,
    ) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        let (mut partitions, mut due, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let (mut buckets, mut reasons) = (Vec::new(), Vec::new());
        for command in batch {
            let Some(new) = inserted.get(&command.id.0) else { continue };
            if !new.is_scheduled(command) || !seen.insert(command.id) {
                continue;
            }
            partitions.push(self.partitions().of(&command.stream).0);
            due.push(command.not_before.filter(|_| new.delayed).unwrap_or(new.accepted_at));
            ids.push(command.id.0);
            buckets.push(self.bucket(command.id));
            reasons.push(command.when_due.reason());
        }
        if ids.is_empty() {
            return Ok(());
        }
        let schedule = transaction.prepare(SCHEDULE).await?;
        transaction.query(&schedule, &[&partitions, &due, &ids, &buckets, &reasons]).await?;
        Ok(())
    }

    /// The new commands that are due and that a process executes.
    async fn hold_immediate(
        &self,
        transaction: &mut Transaction,
        batch: &[NewCommand],
        inserted: &InsertedById,
    ) -> Result<(), StoreError> {
        let mut seen = HashSet::new();
        let (mut partitions, mut ids, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
        let (mut owners, mut times) = (Vec::new(), Vec::new());
        for command in batch {
            let Some(owner) = command.held_by else { continue };
            let Some(new) = inserted.get(&command.id.0) else { continue };
            if new.is_scheduled(command) || !seen.insert(command.id) {
                continue;
            }
            partitions.push(self.partitions().of(&command.stream).0);
            ids.push(command.id.0);
            buckets.push(self.bucket(command.id));
            owners.push(owner.0);
            times.push(new.accepted_at);
        }
        if ids.is_empty() {
            return Ok(());
        }
        let hold = transaction.prepare(HOLD).await?;
        transaction.query(&hold, &[&partitions, &ids, &buckets, &owners, &times]).await?;
        Ok(())
    }

    /// The log entries of the new commands that are due, by partition, in the order of arrival.
    fn log_entries(&self, batch: &[NewCommand], inserted: &InsertedById) -> Appended {
        let mut appended = Appended::new();
        let mut seen = HashSet::new();
        for command in batch {
            let Some(new) = inserted.get(&command.id.0) else { continue };
            let goes_elsewhere = new.is_scheduled(command) || command.held_by.is_some();
            if goes_elsewhere || !seen.insert(command.id) {
                continue;
            }
            let partition = self.partitions().of(&command.stream);
            appended.entry(partition).or_default().push(CommandEnvelope {
                id: command.id,
                command_type: command.command_type.clone(),
                stream: command.stream.clone(),
                payload: command.payload.clone(),
                metadata: command.metadata.clone(),
                expected_version: command.expected_version,
                reply_to: command.reply_to.clone(),
                accepted_at: new.accepted_at,
                attempt: Attempt::FIRST,
                first_offset: None,
                edit: 0,
                not_after: command.not_after,
                callback_url: command.callback_url.clone(),
            });
        }
        appended
    }
}

/// The first command of the batch with a new id is the new one; a second one finds it occupied.
fn answer(
    command: &NewCommand,
    inserted: &InsertedById,
    occupied: &HashMap<Uuid, Occupied>,
    answered: &mut HashMap<CommandId, ContentHash>,
) -> Result<Accepted, StoreError> {
    if let Some(new) = inserted.get(&command.id.0) {
        let accepted_at = new.accepted_at;
        return Ok(if let Some(first) = answered.get(&command.id) {
            Accepted::Occupied(Occupied { content_hash: *first, accepted_at })
        } else {
            answered.insert(command.id, command.content_hash);
            Accepted::New { accepted_at }
        });
    }
    let found = occupied.get(&command.id.0).cloned().map(Accepted::Occupied);
    found.ok_or_else(|| StoreError::Transient(format!("command {} vanished", command.id)))
}
