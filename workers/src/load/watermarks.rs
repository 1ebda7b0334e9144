//! How far the service is, by the ends of the logs and the checkpoints of the groups.

use std::time::{Duration, Instant};

use super::{LoadError, WaitFor};
use crate::database::{Connection, DatabaseError, Question, Source};

/// How often the database is asked.
const PACE: Duration = Duration::from_millis(40);

/// Sums over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Entries of the command logs.
    pub commands: i64,
    /// Of those, finished by the executor.
    pub executed: i64,
    /// Events.
    pub events: i64,
    /// Of those, applied by the view `balances`.
    pub balances: i64,
    /// Of those, applied by the view `statements`.
    pub statements: i64,
}

impl Watermarks {
    /// Events that every view shows.
    pub fn visible(&self) -> i64 {
        self.balances.min(self.statements)
    }
}

/// When a stage came to its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Every command was executed.
    pub completed: Option<Instant>,
    /// Every event was visible.
    pub visible: Option<Instant>,
}

/// Watches the watermarks over a connection of its own, made again when it breaks.
pub struct Watch {
    source: Source,
    connection: Option<Connection>,
    patience: Duration,
}

impl Watch {
    /// Watches a database; gives up when nothing has moved for `patience`.
    pub fn new(source: &Source, patience: Duration) -> Self {
        Self { source: source.clone(), connection: None, patience }
    }

    /// Where everything is now.
    pub async fn look(&mut self) -> Result<Watermarks, DatabaseError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.source).await?,
        };
        let question = Question::by_dialect(
            include_str!("queries/watermarks.sql"),
            include_str!("queries/sqlite/watermarks.sql"),
        );
        let row = connection.one(question).await?;
        self.connection = Some(connection);
        Ok(Watermarks {
            commands: row.integer("commands")?,
            executed: row.integer("executed")?,
            events: row.integer("events")?,
            balances: row.integer("balances")?,
            statements: row.integer("statements")?,
        })
    }

    /// Waits until all commands are accepted, or until all are executed and visible besides.
    /// `all_accepted` says whether the last one has been accepted, `show` gets every look.
    pub async fn until(
        &mut self,
        what: WaitFor,
        all_accepted: impl Fn() -> bool,
        mut show: impl FnMut(&Watermarks),
    ) -> Result<Reached, LoadError> {
        let (mut reached, mut last) = (Reached::default(), Watermarks::default());
        let mut moved = Instant::now();
        loop {
            // First whether all are accepted: then the look that follows sees their entries.
            let complete = all_accepted();
            match self.look().await {
                Ok(marks) => {
                    if marks != last {
                        (last, moved) = (marks, Instant::now());
                    }
                    show(&marks);
                    if complete && what == WaitFor::Accepted {
                        return Ok(reached);
                    }
                    if complete && marks.executed >= marks.commands {
                        reached.completed.get_or_insert_with(Instant::now);
                        if marks.visible() >= marks.events {
                            reached.visible = Some(Instant::now());
                            return Ok(reached);
                        }
                    }
                }
                Err(error) if moved.elapsed() > self.patience => return Err(error.into()),
                Err(_) => {}
            }
            if moved.elapsed() > self.patience {
                let seconds = self.patience.as_secs();
                return Err(LoadError::Stuck { seconds, reached: format!("{last:?}") });
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
