//! What a simulation left behind: whole tables, as they are, for checks that share nothing with the
//! operations that wrote them. Only for stores in memory.

use std::sync::{PoisonError, atomic::Ordering};

use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::{SqliteStore, engine::Engine};

/// An accepted command.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandFact {
    /// Its id.
    pub id: Uuid,
    /// The partition of its stream.
    pub partition: i16,
    /// Its stream.
    pub stream: String,
    /// Its wire name.
    pub command_type: String,
    /// Its payload, JSON.
    pub payload: String,
    /// The version that its stream had to have.
    pub expected_version: Option<i64>,
    /// Not to be started before; microseconds since 1970, as all times here.
    pub not_before: Option<i64>,
    /// Not to be started after.
    pub not_after: Option<i64>,
    /// When it was accepted.
    pub accepted_at: i64,
}

/// An entry of a command log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFact {
    /// Its partition.
    pub partition: i16,
    /// Its offset.
    pub offset: i64,
    /// The command.
    pub command: Uuid,
    /// Which try it owes.
    pub attempt: i32,
    /// The offset of the command's first entry; `None`: this one.
    pub first_offset: Option<i64>,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventFact {
    /// Its partition.
    pub partition: i16,
    /// Its offset.
    pub offset: i64,
    /// Its stream.
    pub stream: String,
    /// Its version.
    pub version: i64,
    /// Its wire name.
    pub event_type: String,
    /// The schema version of `data`.
    pub schema_version: i16,
    /// Its data, JSON.
    pub data: String,
    /// Its metadata, JSON.
    pub metadata: Option<String>,
    /// The command that caused it.
    pub command: Uuid,
    /// When it was recorded.
    pub recorded_at: i64,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OutcomeFact {
    /// The partition.
    pub partition: i16,
    /// The command.
    pub command: Uuid,
    /// 1 succeeded, 2 rejected, 3 dead, 4 cancelled.
    pub status: i16,
    /// The offset of its first event.
    pub first_offset: Option<i64>,
    /// How many events it has.
    pub events: i64,
    /// Its stream's version afterwards.
    pub version: i64,
    /// What it answered, JSON.
    pub reply: Option<String>,
    /// Why it did not succeed, JSON.
    pub error: Option<String>,
    /// How often it was tried.
    pub attempts: i32,
    /// When it ended.
    pub completed_at: i64,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptFact {
    /// The command.
    pub command: Uuid,
    /// Which one it was.
    pub attempt: i32,
    /// When it failed.
    pub failed_at: i64,
    /// When the next one was due.
    pub next_due_at: Option<i64>,
}

/// A stream that is held, or waits.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldFact {
    /// The stream.
    pub stream: String,
    /// The command.
    pub command: Uuid,
    /// 1 holds, 2 waits, 3 released.
    pub state: i16,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterFact {
    /// Its id.
    pub id: Uuid,
    /// 1 command, 2 parked key.
    pub kind: i16,
    /// The group.
    pub group: String,
    /// The stream, or the key that is parked.
    pub key: String,
    /// The command, or the event's.
    pub command: Uuid,
    /// How often it was tried.
    pub attempts: i32,
    /// 1 open, 2 retrying, 3 resolved, 4 discarded.
    pub state: i16,
}

/// What a person did with a dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditFact {
    /// The dead letter.
    pub dead_letter: Uuid,
    /// `retry`, `retry_edited` or `discard`.
    pub action: String,
    /// Who.
    pub who: String,
}

/// Who called a command off.
#[derive(Clone, Debug, PartialEq)]
pub struct CancellationFact {
    /// The command.
    pub command: Uuid,
    /// Who.
    pub who: String,
}

/// An outcome that a retry took back.
#[derive(Clone, Debug, PartialEq)]
pub struct PastOutcomeFact {
    /// The command.
    pub command: Uuid,
    /// How often it had been tried.
    pub attempts: i32,
}

/// A payload that a person corrected.
#[derive(Clone, Debug, PartialEq)]
pub struct EditFact {
    /// The command.
    pub command: Uuid,
    /// 1, 2, 3 …
    pub edit: i32,
    /// The payload, JSON.
    pub payload: String,
}

/// A document of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentFact {
    /// The view.
    pub view: String,
    /// The key.
    pub key: String,
    /// How often it changed.
    pub version: i64,
    /// The value, JSON.
    pub value: Option<String>,
}

/// How far a group came.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointFact {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: i16,
    /// The last offset that it finished.
    pub reached: i64,
}

/// A key that is parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedFact {
    /// The group.
    pub group: String,
    /// 1 stream, 2 document, 3 saga instance.
    pub scope: i16,
    /// The key.
    pub key: String,
    /// The partition of the event that failed.
    pub partition: i16,
    /// Its offset.
    pub failed_offset: i64,
    /// Stream: the last offset applied to it. Else: how many references have been replayed.
    pub cursor: i64,
    /// 1 waits for a person, 2 is replayed, 3 is replayed without the event that failed.
    pub state: i16,
    /// What its dead letter is: 1 open, 2 retrying, 3 resolved, 4 discarded; `None`: there is none.
    pub dead_letter: Option<i16>,
}

/// An event that waits for a document which is parked.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceFact {
    /// The group.
    pub group: String,
    /// The document.
    pub key: String,
    /// The partition of the event.
    pub partition: i16,
    /// Its offset.
    pub offset: i64,
}

/// An event that a person decided is never applied to a key.
#[derive(Clone, Debug, PartialEq)]
pub struct DiscardFact {
    /// The group.
    pub group: String,
    /// The key.
    pub key: String,
    /// The partition of the event.
    pub partition: i16,
    /// Its offset.
    pub offset: i64,
}

/// All of it, each table in the order of its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Accepted commands.
    pub commands: Vec<CommandFact>,
    /// The command logs, by partition and offset.
    pub command_log: Vec<LogFact>,
    /// The event logs, by partition and offset.
    pub events: Vec<EventFact>,
    /// Outcomes, by partition and command.
    pub outcomes: Vec<OutcomeFact>,
    /// Views, by name and key.
    pub documents: Vec<DocumentFact>,
    /// Checkpoints, by group and partition.
    pub checkpoints: Vec<CheckpointFact>,
    /// Parked keys, by group, scope and key.
    pub parked: Vec<ParkedFact>,
    /// Events that wait for documents, by group, key, partition and offset.
    pub references: Vec<ReferenceFact>,
    /// Events that were discarded, or are to be.
    pub discards: Vec<DiscardFact>,
    /// Attempts that failed, by command and number.
    pub attempts: Vec<AttemptFact>,
    /// Streams that are held.
    pub holds: Vec<HoldFact>,
    /// Dead letters, by id.
    pub dead_letters: Vec<DeadLetterFact>,
    /// What people did with them, in order.
    pub audit: Vec<AuditFact>,
    /// What was called off, in order.
    pub cancellations: Vec<CancellationFact>,
    /// Outcomes that were taken back, by command and attempts.
    pub past_outcomes: Vec<PastOutcomeFact>,
    /// Corrected payloads, by command and number.
    pub edits: Vec<EditFact>,
    /// Commands that a process holds in the immediate lane.
    pub immediate: Vec<Uuid>,
    /// How many rows the outbox still holds.
    pub outbox_rows: i64,
    /// When the scheduled commands are due, by time.
    pub due: Vec<i64>,
}

impl SqliteStore {
    /// Reads everything. A store that is a file has no evidence to give.
    pub(crate) fn evidence(&self) -> Option<rusqlite::Result<Evidence>> {
        let Engine::Inline(inline) = &self.engine else { return None };
        let connection = inline.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Evidence::read(&connection))
    }

    /// The next write is undone at its COMMIT, and its caller hears that nobody knows.
    pub(crate) fn loses_next_commit(&self, loses: bool) {
        if let Engine::Inline(inline) = &self.engine {
            inline.loses_next_commit.store(loses, Ordering::Relaxed);
        }
    }
}

impl Evidence {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            commands: all(
                connection,
                "SELECT id, partition, stream, type, payload, expected_version, not_before,
                        accepted_at, not_after
                   FROM commands ORDER BY id",
                |row| {
                    Ok(CommandFact {
                        id: id(row, 0)?,
                        partition: row.get(1)?,
                        stream: row.get(2)?,
                        command_type: row.get(3)?,
                        payload: row.get(4)?,
                        expected_version: row.get(5)?,
                        not_before: row.get(6)?,
                        accepted_at: row.get(7)?,
                        not_after: row.get(8)?,
                    })
                },
            )?,
            command_log: all(
                connection,
                "SELECT partition, \"offset\", command_id, attempt, first_offset FROM command_log
                  ORDER BY partition, \"offset\"",
                |row| {
                    Ok(LogFact {
                        partition: row.get(0)?,
                        offset: row.get(1)?,
                        command: id(row, 2)?,
                        attempt: row.get(3)?,
                        first_offset: row.get(4)?,
                    })
                },
            )?,
            events: all(
                connection,
                "SELECT partition, \"offset\", stream, version, type, schema_version, data,
                        metadata, command_id, recorded_at
                   FROM events ORDER BY partition, \"offset\"",
                |row| {
                    Ok(EventFact {
                        partition: row.get(0)?,
                        offset: row.get(1)?,
                        stream: row.get(2)?,
                        version: row.get(3)?,
                        event_type: row.get(4)?,
                        schema_version: row.get(5)?,
                        data: row.get(6)?,
                        metadata: row.get(7)?,
                        command: id(row, 8)?,
                        recorded_at: row.get(9)?,
                    })
                },
            )?,
            outcomes: all(
                connection,
                "SELECT partition, command_id, status, first_offset, events, version, reply, error,
                        attempts, completed_at
                   FROM outcomes ORDER BY partition, command_id",
                |row| {
                    Ok(OutcomeFact {
                        partition: row.get(0)?,
                        command: id(row, 1)?,
                        status: row.get(2)?,
                        first_offset: row.get(3)?,
                        events: row.get(4)?,
                        version: row.get(5)?,
                        reply: row.get(6)?,
                        error: row.get(7)?,
                        attempts: row.get(8)?,
                        completed_at: row.get(9)?,
                    })
                },
            )?,
            documents: all(
                connection,
                // A document that waits from its first event on is not there yet.
                "SELECT view, key, version, value FROM views WHERE version > 0 ORDER BY view, key",
                |row| {
                    Ok(DocumentFact {
                        view: row.get(0)?,
                        key: row.get(1)?,
                        version: row.get(2)?,
                        value: row.get(3)?,
                    })
                },
            )?,
            checkpoints: all(
                connection,
                "SELECT group_name, partition, reached FROM checkpoints
                  ORDER BY group_name, partition",
                |row| {
                    Ok(CheckpointFact {
                        group: row.get(0)?,
                        partition: row.get(1)?,
                        reached: row.get(2)?,
                    })
                },
            )?,
            parked: all(
                connection,
                "SELECT k.group_name, k.scope, k.key, k.partition, k.failed_offset, k.cursor,
                        k.state, l.state
                   FROM parked_keys k LEFT JOIN dead_letters l ON l.id = k.dead_letter_id
                  ORDER BY k.group_name, k.scope, k.key",
                |row| {
                    Ok(ParkedFact {
                        group: row.get(0)?,
                        scope: row.get(1)?,
                        key: row.get(2)?,
                        partition: row.get(3)?,
                        failed_offset: row.get(4)?,
                        cursor: row.get(5)?,
                        state: row.get(6)?,
                        dead_letter: row.get(7)?,
                    })
                },
            )?,
            references: all(
                connection,
                "SELECT group_name, key, partition, \"offset\" FROM parked_references
                  ORDER BY group_name, key, partition, \"offset\"",
                |row| {
                    Ok(ReferenceFact {
                        group: row.get(0)?,
                        key: row.get(1)?,
                        partition: row.get(2)?,
                        offset: row.get(3)?,
                    })
                },
            )?,
            discards: all(
                connection,
                "SELECT group_name, key, partition, \"offset\" FROM dead_letters
                  WHERE kind = 2 AND state = 4 AND \"offset\" IS NOT NULL
                 UNION
                 SELECT group_name, key, partition, failed_offset FROM parked_keys WHERE state = 3",
                |row| {
                    Ok(DiscardFact {
                        group: row.get(0)?,
                        key: row.get(1)?,
                        partition: row.get(2)?,
                        offset: row.get(3)?,
                    })
                },
            )?,
            attempts: attempts(connection)?,
            holds: holds(connection)?,
            dead_letters: dead_letters(connection)?,
            audit: audit(connection)?,
            cancellations: cancellations(connection)?,
            past_outcomes: past_outcomes(connection)?,
            edits: edits(connection)?,
            immediate: all(connection, "SELECT command_id FROM immediate ORDER BY id", |row| {
                id(row, 0)
            })?,
            outbox_rows: connection
                .query_row("SELECT count(*) FROM outbox", (), |row| row.get(0))?,
            due: all(connection, "SELECT due_at FROM schedule ORDER BY due_at", |row| row.get(0))?,
        })
    }
}

fn attempts(connection: &Connection) -> rusqlite::Result<Vec<AttemptFact>> {
    let sql = "SELECT command_id, attempt, failed_at, next_due_at FROM attempts ORDER BY 1, 2";
    all(connection, sql, |row| {
        Ok(AttemptFact {
            command: id(row, 0)?,
            attempt: row.get(1)?,
            failed_at: row.get(2)?,
            next_due_at: row.get(3)?,
        })
    })
}

fn holds(connection: &Connection) -> rusqlite::Result<Vec<HoldFact>> {
    let sql = "SELECT stream, command_id, state FROM holds ORDER BY stream, first_offset";
    all(connection, sql, |row| {
        Ok(HoldFact { stream: row.get(0)?, command: id(row, 1)?, state: row.get(2)? })
    })
}

fn dead_letters(connection: &Connection) -> rusqlite::Result<Vec<DeadLetterFact>> {
    let sql = "SELECT id, kind, group_name, key, command_id, attempts, state FROM dead_letters
                ORDER BY id";
    all(connection, sql, |row| {
        Ok(DeadLetterFact {
            id: id(row, 0)?,
            kind: row.get(1)?,
            group: row.get(2)?,
            key: row.get(3)?,
            command: id(row, 4)?,
            attempts: row.get(5)?,
            state: row.get(6)?,
        })
    })
}

fn audit(connection: &Connection) -> rusqlite::Result<Vec<AuditFact>> {
    let sql = "SELECT dead_letter_id, action, who FROM dead_letter_audit ORDER BY id";
    all(connection, sql, |row| {
        Ok(AuditFact { dead_letter: id(row, 0)?, action: row.get(1)?, who: row.get(2)? })
    })
}

fn cancellations(connection: &Connection) -> rusqlite::Result<Vec<CancellationFact>> {
    let sql = "SELECT command_id, who FROM cancellations ORDER BY id";
    all(connection, sql, |row| Ok(CancellationFact { command: id(row, 0)?, who: row.get(1)? }))
}

fn past_outcomes(connection: &Connection) -> rusqlite::Result<Vec<PastOutcomeFact>> {
    let sql = "SELECT command_id, attempts FROM past_outcomes ORDER BY 1, 2";
    all(connection, sql, |row| Ok(PastOutcomeFact { command: id(row, 0)?, attempts: row.get(1)? }))
}

fn edits(connection: &Connection) -> rusqlite::Result<Vec<EditFact>> {
    let sql = "SELECT command_id, edit, payload FROM command_edits ORDER BY 1, 2";
    all(connection, sql, |row| {
        Ok(EditFact { command: id(row, 0)?, edit: row.get(1)?, payload: row.get(2)? })
    })
}

fn all<T>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(sql)?.query_map((), read)?.collect()
}

fn id(row: &Row<'_>, i: usize) -> rusqlite::Result<Uuid> {
    row.get(i).map(Uuid::from_bytes)
}
