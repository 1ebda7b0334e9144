//! Accepting commands.

use async_trait::async_trait;
use rusqlite::params;

use super::{
    SqliteStore,
    append::Appended,
    clock::to_micros,
    failures::Scheduled,
    storable,
    transaction::{Transaction, column, time},
};
use crate::{
    message::{Attempt, CommandEnvelope, CommandId, Partition, Timestamp},
    store::{
        Accepted, Intake, NewCommand, Occupied, RejectedMessage, StoreError, WhenDue,
        stored::{content_hash, headers_json, json_text, lane_code, metadata_json},
    },
};

const INSERT: &str = "
    INSERT INTO commands (id, partition, stream, type, lane, payload, metadata, expected_version,
                          not_before, reply_to, content_hash, accepted_at, not_after,
                          callback_url)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
    ON CONFLICT (id) DO NOTHING";

/// Served by the primary key.
const OCCUPIED: &str = "SELECT content_hash, accepted_at FROM commands WHERE id = ?1";

const HOLD: &str = "
    INSERT INTO immediate (partition, command_id, owner, accepted_at) VALUES (?1, ?2, ?3, ?4)";

const REJECT: &str = "
    INSERT INTO outbox (partition, route, entries, content_type, headers, body, recorded_at)
    VALUES (0, 4, 0, ?1, ?2, ?3, ?4)";

#[async_trait]
impl Intake for SqliteStore {
    async fn accept(&self, batch: Vec<NewCommand>) -> Result<Vec<Accepted>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.engine.write(|transaction| accept(transaction, batch)).await
    }

    async fn reject_messages(&self, messages: Vec<RejectedMessage>) -> Result<(), StoreError> {
        self.engine.write(move |transaction| reject_messages(transaction, &messages)).await
    }
}

fn accept(
    transaction: &Transaction<'_>,
    batch: Vec<NewCommand>,
) -> Result<Vec<Accepted>, StoreError> {
    let accepted_at = transaction.time()?;
    let mut answers = Vec::with_capacity(batch.len());
    let mut appended = Appended::new();
    for mut command in batch {
        let mut is_new = insert(transaction, &command)?;
        if planted!(AcceptsAgain) && !is_new {
            command.id = CommandId::generate();
            is_new = insert(transaction, &command)?;
        }
        if !is_new {
            // Accepted before, or earlier in this batch.
            answers.push(Accepted::Occupied(occupied(transaction, &command)?));
            continue;
        }
        answers.push(Accepted::New { accepted_at });
        let partition = transaction.partitions.of(&command.stream);
        let schedule = |due_at| {
            let row = Scheduled::first(partition, due_at, command.id, command.when_due);
            transaction.schedule(&row)
        };
        match command.not_before.map(to_micros) {
            Some(due_at) if due_at > transaction.now && !planted!(DueTooEarly) => schedule(due_at)?,
            _ if command.when_due == WhenDue::Lane => schedule(transaction.now)?,
            _ if command.held_by.is_some() => hold(transaction, partition, &command)?,
            _ => appended.entry(partition).or_default().push(envelope(command, accepted_at)),
        }
    }
    transaction.append(&appended)?;
    Ok(answers)
}

/// Whether the id was new.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    command: &NewCommand,
) -> Result<bool, StoreError> {
    let metadata = metadata_json(&command.metadata)?;
    let reply_to = command.reply_to.as_ref().map(json_text).transpose()?;
    let inserted = transaction.execute(
        INSERT,
        params![
            command.id.0.as_bytes(),
            transaction.partitions.of(&command.stream).0,
            command.stream.as_str(),
            storable::text(&command.command_type)?,
            lane_code(command.lane),
            storable::json(command.payload.as_str())?,
            storable::maybe_json(metadata.as_deref())?,
            command.expected_version.map(|version| version.0),
            command.not_before.map(to_micros),
            storable::maybe_json(reply_to.as_deref())?,
            &command.content_hash.0[..],
            transaction.now,
            command.not_after.map(to_micros),
            command.callback_url.as_deref().map(storable::text).transpose()?,
        ],
    )?;
    Ok(inserted == 1)
}

/// A process executes it.
pub(super) fn hold(
    transaction: &Transaction<'_>,
    partition: Partition,
    command: &NewCommand,
) -> Result<(), StoreError> {
    let owner = command.held_by.map(|owner| *owner.0.as_bytes());
    transaction
        .execute(HOLD, params![partition.0, command.id.0.as_bytes(), owner, transaction.now])?;
    Ok(())
}

fn occupied(transaction: &Transaction<'_>, command: &NewCommand) -> Result<Occupied, StoreError> {
    let found = transaction.first(OCCUPIED, [command.id.0.as_bytes()], |row| {
        let hash = content_hash(&column::<Vec<u8>>(row, 0)?)?;
        Ok(Occupied { content_hash: hash, accepted_at: time(row, 1)? })
    })?;
    found.ok_or_else(|| StoreError::Internal(format!("command {} vanished", command.id)))
}

fn envelope(command: NewCommand, accepted_at: Timestamp) -> CommandEnvelope {
    CommandEnvelope {
        id: command.id,
        command_type: command.command_type,
        stream: command.stream,
        payload: command.payload,
        metadata: command.metadata,
        expected_version: command.expected_version,
        reply_to: command.reply_to,
        accepted_at,
        attempt: Attempt::FIRST,
        first_offset: None,
        edit: 0,
        not_after: command.not_after,
        callback_url: command.callback_url,
    }
}

fn reject_messages(
    transaction: &Transaction<'_>,
    messages: &[RejectedMessage],
) -> Result<(), StoreError> {
    for message in messages {
        let headers = headers_json(&message.headers)?;
        let content_type = storable::text(&message.content_type)?;
        let params =
            params![content_type, storable::json(&headers)?, message.body, transaction.now];
        transaction.execute(REJECT, params)?;
    }
    Ok(())
}
