//! What the tables hold of failures: attempts, deaths, dead letters, and what people did with them.

use std::collections::BTreeMap;

use sqlx::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::chaos::{error::ChaosError, services::Postgres};

const ATTEMPTS: &str = include_str!("../queries/attempts.sql");
const PAST_DEATHS: &str = include_str!("../queries/past_deaths.sql");
const DEAD_LETTERS: &str = include_str!("../queries/dead_letters.sql");
const ACTIONS: &str = include_str!("../queries/actions.sql");
const DRILLS: &str = include_str!("../queries/drills.sql");

/// An attempt that failed.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) command: Uuid,
    pub(super) number: i32,
    pub(super) code: Option<String>,
    pub(super) failed_at: OffsetDateTime,
}

from_row!(Attempt { command, number, code, failed_at });

/// A death that a retry took back.
#[derive(Clone, Copy, Debug)]
pub(super) struct PastDeath {
    pub(super) command: Uuid,
    pub(super) attempts: i32,
}

from_row!(PastDeath { command, attempts });

/// A dead letter.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) id: Uuid,
    /// 1 command, 2 parked key, 3 callback.
    pub(super) kind: i16,
    pub(super) key: String,
    /// The command, or the event's.
    pub(super) command: Uuid,
    pub(super) attempts: i32,
    /// 1 open, 2 retrying, 3 resolved, 4 discarded.
    pub(super) state: i16,
    pub(super) code: Option<String>,
}

from_row!(Letter { id, kind, key, command, attempts, state, code });

impl Letter {
    pub(super) fn is_parked_key(&self) -> bool {
        self.kind == 2
    }
}

/// What somebody did with a dead letter.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) letter: Uuid,
    /// `retry`, `retry_edited` or `discard`.
    pub(super) word: String,
    pub(super) reason: Option<String>,
}

from_row!(Action { letter, word, reason });

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Failed {
    pub(super) attempts: BTreeMap<Uuid, Vec<Attempt>>,
    /// By command.
    pub(super) past_deaths: BTreeMap<Uuid, Vec<PastDeath>>,
    pub(super) letters: Vec<Letter>,
    pub(super) actions: Vec<Action>,
    /// How often each drill ran, as the view shows it.
    pub(super) drills: BTreeMap<String, i64>,
}

impl Failed {
    pub(super) async fn read(postgres: &Postgres) -> Result<Self, ChaosError> {
        let mut connection = postgres.connect().await?;
        let mut failed = Self::default();
        let attempts: Vec<Attempt> = sqlx::query_as(ATTEMPTS).fetch_all(&mut connection).await?;
        for attempt in attempts {
            failed.attempts.entry(attempt.command).or_default().push(attempt);
        }
        let past: Vec<PastDeath> = sqlx::query_as(PAST_DEATHS).fetch_all(&mut connection).await?;
        for death in past {
            failed.past_deaths.entry(death.command).or_default().push(death);
        }
        failed.letters = sqlx::query_as(DEAD_LETTERS).fetch_all(&mut connection).await?;
        failed.actions = sqlx::query_as(ACTIONS).fetch_all(&mut connection).await?;
        let drills: Vec<(String, i64)> = sqlx::query_as(DRILLS).fetch_all(&mut connection).await?;
        failed.drills = drills.into_iter().collect();
        connection.close().await?;
        Ok(failed)
    }

    /// Whether a command died and was brought back, once or more.
    pub(super) fn came_back(&self, command: Uuid) -> bool {
        self.past_deaths.contains_key(&command)
    }
}
