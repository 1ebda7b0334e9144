//! Committing decisions. The fences are checked in the order in which the PostgreSQL store checks
//! them, so that the same one answers when several hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::params;

use super::{
    SqliteStore,
    append::EVENTS,
    reply, storable,
    transaction::{Transaction, column, id, time},
};
use crate::{
    message::{
        CommandId, MemberId, Offset, Outcome, OutcomeStatus, Partition, RawJson, StreamId, Version,
    },
    store::{
        CommandCommit, CommittedCommands, DecideAgain, Entering, Execution, Fence, HeldCommand,
        Hold, LoadedStream, LogKind, NewEvent, NewOutcome, StoreError,
        stored::{failure, json_text, metadata_json, positions, raw},
    },
};

/// Served by the primary key.
const IN_LOG: &str = "
    SELECT 1 FROM command_log WHERE partition = ?1 AND \"offset\" = ?2 AND command_id = ?3";

const EVENT: &str = "
    INSERT INTO events (partition, \"offset\", stream, version, type, schema_version, data,
                        metadata, command_id, recorded_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

const OUTCOME: &str = "
    INSERT INTO outcomes (partition, command_id, status, first_offset, events, version, reply,
                          error, attempts, completed_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// Served by the primary key.
const OUTCOMES: &str = "
    SELECT command_id, status, first_offset, events, version, reply, error, attempts, completed_at
      FROM outcomes WHERE partition = ?1 AND command_id = ?2";

#[async_trait]
impl Execution for SqliteStore {
    async fn load_streams(
        &self,
        streams: &[(StreamId, i16)],
    ) -> Result<Vec<LoadedStream>, StoreError> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let streams = streams.to_vec();
        self.engine.read(move |transaction| transaction.load_streams(&streams)).await
    }

    async fn commit_commands(
        &self,
        commit: CommandCommit,
    ) -> Result<CommittedCommands, StoreError> {
        self.engine.write(move |transaction| transaction.commit_commands(&commit)).await
    }

    async fn commit_exclusively(
        &self,
        _: &BTreeSet<Partition>, // the writer writes every partition
        streams: &[(StreamId, i16)],
        entering: &Entering,
        decide: DecideAgain<'_>,
    ) -> Result<CommittedCommands, StoreError> {
        let streams = streams.to_vec();
        let entering = entering.clone();
        self.engine
            .converse(
                move |transaction| transaction.load_streams(&streams),
                decide,
                move |transaction, commit: CommandCommit| {
                    transaction.commit_commands(&CommandCommit { entering, ..commit })
                },
            )
            .await
    }

    async fn accepted(&self, commands: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        let commands = commands.to_vec();
        self.engine.read(move |transaction| transaction.accepted(&commands)).await
    }

    async fn held_by(
        &self,
        owner: MemberId,
        older_than: Duration,
        after: i64,
        limit: i64,
    ) -> Result<Vec<HeldCommand>, StoreError> {
        let held = self
            .engine
            .read(move |transaction| transaction.held_by(owner, older_than, after, limit));
        held.await
    }

    async fn let_go_of_held(&self, commands: &[(Partition, CommandId)]) -> Result<(), StoreError> {
        let commands = commands.to_vec();
        self.engine.write(move |transaction| transaction.let_go_of_held(&commands)).await
    }

    async fn held(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<CommandId>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let commands = commands.to_vec();
        self.engine.read(move |transaction| transaction.held(&commands)).await
    }

    async fn holds(&self, streams: &[(Partition, StreamId)]) -> Result<Vec<Hold>, StoreError> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let streams = streams.to_vec();
        self.engine.read(move |transaction| transaction.holds_of(&streams)).await
    }

    async fn outcomes(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, Outcome)>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let commands = commands.to_vec();
        let read = self.engine.read(move |transaction| {
            let found = commands.iter().filter_map(|(partition, command)| {
                transaction.outcome(*partition, *command).transpose()
            });
            found.collect()
        });
        read.await
    }
}

impl Transaction<'_> {
    fn commit_commands(&self, commit: &CommandCommit) -> Result<CommittedCommands, StoreError> {
        self.enter(&commit.entering)?;
        for snapshot in &commit.snapshots {
            self.write_snapshot(snapshot)?;
        }
        self.move_checkpoints(LogKind::Commands, &commit.checkpoints)?;
        self.check_in_log(&commit.outcomes)?;
        let mut heads = Heads::default();
        for event in &commit.events {
            let offset = heads.take(self, event.partition, 1)?;
            self.write_event(event, offset)?;
        }
        self.check_eventless(&commit.outcomes)?;
        let first_offsets = self.write_outcomes(&commit.outcomes, &heads)?;
        let mut heads = heads.again();
        for message in &commit.messages {
            let first = heads.take(self, message.partition, message.events)?;
            self.write_message(EVENTS, message.partition, first, message.events, &message.body)?;
        }
        for (outcome, first) in commit.outcomes.iter().zip(&first_offsets) {
            if let Some(to) = &outcome.reply_to {
                reply::write(self, outcome, *first, to)?;
            }
            if let Some(callback) = &outcome.callback {
                self.owe_callback(outcome, callback)?;
            }
        }
        self.write_failures(commit)?;
        let now = self.time()?;
        let accepted_at = (!commit.entering.new.is_empty()).then_some(now);
        Ok(CommittedCommands { first_offsets, recorded_at: Some(now), accepted_at })
    }

    /// A command that came by the road is in the log where the road says.
    fn check_in_log(&self, outcomes: &[NewOutcome]) -> Result<(), StoreError> {
        for outcome in outcomes {
            let Some(offset) = outcome.log_offset else { continue };
            let id = outcome.command_id.0.as_bytes();
            if !self.exists(IN_LOG, params![outcome.partition.0, offset.0, id])? {
                return Err(StoreError::Fenced(Fence::NotInLog));
            }
        }
        Ok(())
    }

    fn write_event(&self, event: &NewEvent, offset: Offset) -> Result<(), StoreError> {
        let metadata = metadata_json(&event.metadata)?;
        let mut version = event.version;
        if planted!(VersionRenumbered) {
            version = self.stream_version(event.partition, &event.stream)?.next();
        }
        self.execute(
            EVENT,
            params![
                event.partition.0,
                offset.0,
                event.stream.as_str(),
                version.0,
                storable::text(&event.event_type)?,
                event.schema_version,
                storable::json(event.data.as_str())?,
                storable::maybe_json(metadata.as_deref())?,
                event.command_id.0.as_bytes(),
                self.now,
            ],
        )?;
        Ok(())
    }

    /// A decision without events has no version to collide on: a stream whose last decision here
    /// has none must still be where it was when that was made.
    fn check_eventless(&self, outcomes: &[NewOutcome]) -> Result<(), StoreError> {
        let mut last = BTreeMap::new();
        for outcome in outcomes {
            if let Some(stream) = &outcome.decided_on {
                last.insert(stream, outcome);
            }
        }
        for (stream, outcome) in last.into_iter().filter(|(_, outcome)| outcome.events == 0) {
            let fenced = !planted!(EventlessUnfenced);
            if fenced && self.stream_version(outcome.partition, stream)? != outcome.version {
                return Err(StoreError::Fenced(Fence::StreamVersion));
            }
        }
        Ok(())
    }

    /// Answers where the events of each begin.
    fn write_outcomes(
        &self,
        outcomes: &[NewOutcome],
        heads: &Heads,
    ) -> Result<Vec<Option<Offset>>, StoreError> {
        let mut heads = heads.again();
        let mut first_offsets = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let first = heads.take(self, outcome.partition, outcome.events)?;
            let first = (outcome.events > 0).then_some(first);
            let error = outcome.error.as_ref().map(json_text).transpose()?;
            let reply = outcome.reply.as_ref().map(RawJson::as_str);
            if planted!(OutcomeReplaced) {
                let replaced = params![outcome.partition.0, outcome.command_id.0.as_bytes()];
                self.execute(
                    "DELETE FROM outcomes WHERE partition = ?1 AND command_id = ?2",
                    replaced,
                )?;
            }
            self.execute(
                OUTCOME,
                params![
                    outcome.partition.0,
                    outcome.command_id.0.as_bytes(),
                    outcome.status.code(),
                    first.map(|offset| offset.0),
                    outcome.events as i64,
                    outcome.version.0,
                    storable::maybe_json(reply)?,
                    storable::maybe_json(error.as_deref())?,
                    outcome.attempts,
                    self.now,
                ],
            )?;
            first_offsets.push(first);
        }
        Ok(first_offsets)
    }

    pub(super) fn outcome(
        &self,
        partition: Partition,
        command: CommandId,
    ) -> Result<Option<(CommandId, Outcome)>, StoreError> {
        self.first(OUTCOMES, params![partition.0, command.0.as_bytes()], |row| {
            let status = column(row, 1)?;
            let unknown = || StoreError::Corrupt(format!("there is no outcome status {status}"));
            let outcome = Outcome {
                status: OutcomeStatus::from_code(status).ok_or_else(unknown)?,
                positions: positions(partition, column(row, 2)?, column(row, 3)?),
                version: Version(column(row, 4)?),
                reply: raw(column(row, 5)?),
                error: failure(column::<Option<String>>(row, 6)?.as_deref())?,
                attempts: column(row, 7)?,
                completed_at: time(row, 8)?,
            };
            Ok((CommandId(id(row, 0)?), outcome))
        })
    }
}

/// Served by the primary key, read backwards.
const HEAD: &str = "
    SELECT \"offset\" FROM events WHERE partition = ?1 ORDER BY \"offset\" DESC LIMIT 1";

impl Transaction<'_> {
    /// The newest offset of an event log.
    pub(super) fn event_head(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.number(HEAD, [partition.0]).map(Offset)
    }
}

/// The heads of event logs before this transaction, and how many offsets were taken since.
#[derive(Default)]
struct Heads(BTreeMap<Partition, (Offset, usize)>);

impl Heads {
    /// The first of the next `n` offsets.
    fn take(
        &mut self,
        transaction: &Transaction<'_>,
        partition: Partition,
        n: usize,
    ) -> Result<Offset, StoreError> {
        let (head, taken) = match self.0.entry(partition) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => {
                unknown.insert((transaction.event_head(partition)?, 0))
            }
        };
        #[cfg(feature = "planted-bugs")]
        if planted!(OffsetBeforeCommit) && *taken == 0 && n > 0 {
            *head = Offset(crate::planted::taken("events", partition.0, head.0, n));
        }
        let first = head.plus(*taken + 1);
        *taken += n;
        Ok(first)
    }

    /// The same heads, for what refers to the same events.
    fn again(&self) -> Self {
        Self(self.0.iter().map(|(partition, (head, _))| (*partition, (*head, 0))).collect())
    }
}
