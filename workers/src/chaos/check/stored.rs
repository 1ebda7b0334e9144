//! What the tables hold of each command.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::{Connection as _, Row};
use uuid::Uuid;

use crate::chaos::{error::ChaosError, services::Postgres};

const COMMANDS: &str = include_str!("../queries/commands.sql");

/// An outcome, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// 1 succeeded, 2 rejected, 3 dead, 4 cancelled.
    pub(super) status: i16,
    /// The stream's version afterwards.
    pub(super) version: i64,
    /// How many events it caused.
    pub(super) events: i32,
    /// How many attempts it took.
    pub(super) attempts: i32,
}

impl Outcome {
    /// The word that the API has for its status.
    pub(super) fn word(self) -> &'static str {
        match self.status {
            1 => "succeeded",
            2 => "rejected",
            3 => "dead",
            4 => "cancelled",
            _ => "something unknown",
        }
    }
}

/// A command, as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: String,
    pub(super) stream: String,
    pub(super) payload: Value,
    /// Where it first stands in the command log.
    pub(super) first_offset: Option<i64>,
    pub(super) outcomes: Vec<Outcome>,
}

/// All commands.
#[derive(Debug, Default)]
pub(super) struct Stored(HashMap<Uuid, Record>);

impl Stored {
    pub(super) async fn read(postgres: &Postgres) -> Result<Self, ChaosError> {
        let mut connection = postgres.connect().await?;
        let mut all: HashMap<Uuid, Record> = HashMap::new();
        let mut rows = sqlx::query(COMMANDS).fetch(&mut connection);
        while let Some(row) = rows.try_next().await? {
            let status: Option<i16> = row.try_get("status")?;
            let outcome = match status {
                None => None,
                Some(status) => {
                    let (version, events) = (row.try_get("version")?, row.try_get("events")?);
                    Some(Outcome { status, version, events, attempts: row.try_get("attempts")? })
                }
            };
            let (kind, stream) = (row.try_get("type")?, row.try_get("stream")?);
            let (payload, first_offset) = (row.try_get("payload")?, row.try_get("first_offset")?);
            let command = all.entry(row.try_get("id")?);
            let command = command.or_insert_with(|| Record {
                kind,
                stream,
                payload,
                first_offset,
                outcomes: Vec::new(),
            });
            command.outcomes.extend(outcome);
        }
        drop(rows);
        connection.close().await?;
        Ok(Self(all))
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Record> {
        self.0.get(&id)
    }

    /// Its outcome, if it has exactly one.
    pub(super) fn outcome(&self, id: Uuid) -> Option<Outcome> {
        match self.0.get(&id)?.outcomes[..] {
            [outcome] => Some(outcome),
            _ => None,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.0.keys().copied()
    }

    #[cfg(test)]
    pub(super) fn of(rows: impl IntoIterator<Item = (Uuid, Record)>) -> Self {
        Self(rows.into_iter().collect())
    }
}
