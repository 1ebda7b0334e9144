//! What the tables hold of each command.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::{Connection as _, Row, postgres::PgRow};
use time::OffsetDateTime;
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
    /// When, by the database's clock.
    pub(super) completed_at: OffsetDateTime,
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

    /// Whether it was called off, or expired.
    pub(super) fn is_cancelled(self) -> bool {
        self.status == 4
    }

    /// Whether it was decided on its stream's state.
    pub(super) fn saw_a_version(self) -> bool {
        matches!(self.status, 1 | 2)
    }
}

/// What an outcome says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Says {
    /// Where its events stand.
    pub(super) positions: Vec<String>,
    /// What the aggregate answered; null if there is nothing.
    pub(super) reply: Value,
    /// The code of its error.
    pub(super) code: Option<String>,
}

/// A command, as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: String,
    pub(super) stream: String,
    pub(super) payload: Value,
    pub(super) accepted_at: OffsetDateTime,
    pub(super) not_before: Option<OffsetDateTime>,
    pub(super) not_after: Option<OffsetDateTime>,
    /// Where it first stands in the command log.
    pub(super) first_offset: Option<i64>,
    /// How many events name it as their cause.
    pub(super) own_events: i64,
    pub(super) outcomes: Vec<Outcome>,
    /// Of its outcome.
    pub(super) says: Says,
}

impl Record {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kind: row.try_get("type")?,
            stream: row.try_get("stream")?,
            payload: row.try_get("payload")?,
            accepted_at: row.try_get("accepted_at")?,
            not_before: row.try_get("not_before")?,
            not_after: row.try_get("not_after")?,
            first_offset: row.try_get("first_offset")?,
            own_events: row.try_get("own_events")?,
            outcomes: Vec::new(),
            says: Says::default(),
        })
    }

    fn ends(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let Some(status) = row.try_get("status")? else { return Ok(()) };
        let (partition, events): (i16, i32) = (row.try_get("partition")?, row.try_get("events")?);
        let first: Option<i64> = row.try_get("first_event")?;
        let place = |i| first.map(|first| format!("{partition}:{}", first + i64::from(i)));
        self.outcomes.push(Outcome {
            status,
            version: row.try_get("version")?,
            events,
            attempts: row.try_get("attempts")?,
            completed_at: row.try_get("completed_at")?,
        });
        self.says = Says {
            positions: (0..events).filter_map(place).collect(),
            reply: row.try_get::<Option<Value>, _>("reply")?.unwrap_or_default(),
            code: row.try_get("code")?,
        };
        Ok(())
    }
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
            let read = Record::read(&row)?;
            all.entry(row.try_get("id")?).or_insert(read).ends(&row)?;
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
