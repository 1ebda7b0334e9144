//! What the tables hold of commands that were called off, and of the jobs that did it.

use std::collections::BTreeMap;

use sqlx::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::chaos::{error::ChaosError, services::Postgres};

const CANCELLATIONS: &str = include_str!("../queries/cancellations.sql");
const JOBS: &str = include_str!("../queries/cancel_jobs.sql");

/// A cancellation that is kept.
#[derive(Clone, Debug)]
pub(super) struct Cancellation {
    pub(super) command: Uuid,
    pub(super) reason: Option<String>,
    /// The job that did it, if one did.
    pub(super) job: Option<Uuid>,
}

from_row!(Cancellation { command, reason, job });

/// A job over commands.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) reason: Option<String>,
    /// 1 running, 2 done, 3 stopped, 4 cancelled.
    pub(super) state: i16,
    /// How many commands it says that it cancelled.
    pub(super) done: i64,
    pub(super) created_at: OffsetDateTime,
    pub(super) finished_at: Option<OffsetDateTime>,
}

from_row!(Job { id, reason, state, done, created_at, finished_at });

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancelled {
    /// By command.
    pub(super) rows: BTreeMap<Uuid, Vec<Cancellation>>,
    pub(super) jobs: Vec<Job>,
}

impl Cancelled {
    pub(super) async fn read(postgres: &Postgres) -> Result<Self, ChaosError> {
        let mut connection = postgres.connect().await?;
        let mut cancelled = Self::default();
        let rows = sqlx::query_as(CANCELLATIONS).fetch_all(&mut connection).await?;
        for row in rows {
            cancelled.add(row);
        }
        cancelled.jobs = sqlx::query_as(JOBS).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(cancelled)
    }

    pub(super) fn add(&mut self, row: Cancellation) {
        self.rows.entry(row.command).or_default().push(row);
    }

    /// Who called it off.
    pub(super) fn of(&self, command: Uuid) -> &[Cancellation] {
        self.rows.get(&command).map(Vec::as_slice).unwrap_or_default()
    }
}
