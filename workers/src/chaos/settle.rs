//! The wait at the end: until everything that was accepted has ended, every view has caught up,
//! nothing waits for its time, and people have left no dead letter open; or nothing moves any more.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{
    INTAKE,
    error::ChaosError,
    services::{Postgres, Rabbit},
};

/// How long the system may take altogether.
const PATIENCE: Duration = Duration::from_secs(90);
/// After so long without any movement it does not move any more.
const STUCK: Duration = Duration::from_secs(30);

const QUIET: &str = include_str!("queries/quiet.sql");

/// How far the system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    commands: i64,
    outcomes: i64,
    outbox: i64,
    behind: i64,
    scheduled: i64,
    holds: i64,
    letters: i64,
    parked: i64,
    suspects: i64,
    held: i64,
    jobs: i64,
    /// Counts what happens without changing any of the others: people, attempts, the schedule.
    happened: i64,
}

from_row!(Reached {
    commands,
    outcomes,
    outbox,
    behind,
    scheduled,
    holds,
    letters,
    parked,
    suspects,
    held,
    jobs,
    happened
});

impl Reached {
    fn is_quiet(self) -> bool {
        let left = [
            self.outbox,
            self.behind,
            self.scheduled,
            self.holds,
            self.letters,
            self.parked,
            self.held,
            self.jobs,
        ];
        self.commands == self.outcomes && left.iter().all(|left| *left == 0)
    }
}

/// Waits; answers what was left undone, in words, if anything.
pub(super) async fn settle(
    postgres: &Postgres,
    rabbit: &Rabbit,
) -> Result<Option<String>, ChaosError> {
    let mut connection = postgres.connect().await?;
    let began = Instant::now();
    let (mut last, mut moved) = (None, began);
    loop {
        let reached = look(&mut connection).await?;
        let messages = if reached.is_quiet() { intake_messages(rabbit).await? } else { 0 };
        // Once more: what was unacknowledged may just have been accepted.
        if messages == 0 && reached.is_quiet() && look(&mut connection).await? == reached {
            return Ok(None);
        }
        if last != Some((reached, messages)) {
            last = Some((reached, messages));
            moved = Instant::now();
        }
        if began.elapsed() > PATIENCE || moved.elapsed() > STUCK {
            return Ok(Some(format!(
                "{} commands have no outcome, {} rows wait in the outbox, views are {} events \
                 behind, {} rows are in the schedule, {} hold streams or wait, {} dead letters \
                 are not done with, {} keys are parked, {} entries are suspect, {} commands are \
                 held by processes, {} jobs run, {messages} messages are in {INTAKE}",
                reached.commands - reached.outcomes,
                reached.outbox,
                reached.behind,
                reached.scheduled,
                reached.holds,
                reached.letters,
                reached.parked,
                reached.suspects,
                reached.held,
                reached.jobs,
            )));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn look(connection: &mut PgConnection) -> Result<Reached, ChaosError> {
    Ok(sqlx::query_as(QUIET).fetch_one(connection).await?)
}

/// How many messages are in the intake, unacknowledged ones included.
async fn intake_messages(rabbit: &Rabbit) -> Result<u64, ChaosError> {
    let listed = rabbit.control(&["-q", "list_queues", "name", "messages"]).await?;
    let line = listed.lines().find_map(|line| line.trim().strip_prefix(&format!("{INTAKE}\t")));
    let unknown = || ChaosError::Program {
        what: "rabbitmqctl list_queues".into(),
        words: format!("it does not show {INTAKE}: {listed}"),
    };
    line.and_then(|count| count.trim().parse().ok()).ok_or_else(unknown)
}
