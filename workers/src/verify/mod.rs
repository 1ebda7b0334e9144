//! `bank verify`: audits a database after the fact, from plain SQL and a fold of its own. It knows
//! nothing of the run that filled it, and shares no code with the processes that did.
//!
//! All questions are asked of one read-only snapshot. Answers are streamed, so that memory does not
//! grow with the database. Each kind of damage is one check's business: a missing
//! event is a hole and nothing else, although outcomes and views refer to it; see `damage`.

mod accounts_fold;
mod answers;
mod damage;
mod documents;
mod no_holes;
mod outcomes;
mod parked;
mod rejected;
mod report;
mod views;

pub use report::{Check, Counts, Report};

use std::path::Path;

use crate::database::{Connection, DatabaseError, Question, Snapshot, Source};
use damage::Damage;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database did not answer, or is not one of ours.
    #[error("the database cannot be audited: {0}")]
    Database(#[from] DatabaseError),
    /// The file of answered commands cannot be read.
    #[error("{path}, line {line}: {reason}")]
    Answers {
        /// The file.
        path: String,
        /// Which line, from 1; 0 for the file itself.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Runs every check. `answers` is a client's NDJSON of answered commands.
pub async fn verify(source: &Source, answers: Option<&Path>) -> Result<Report, VerifyError> {
    let mut snapshot = Snapshot::open(source).await?;
    let mut damage = Damage::default();
    let main = &mut snapshot.main;
    let rejected = rejected::check(main, &mut damage).await?;
    let no_holes = no_holes::check(main, &mut damage).await?;
    let mut outcomes = outcomes::check(main, &damage).await?;
    if let Some(path) = answers {
        answers::check(main, path, &mut outcomes).await?;
    }
    let (views, parked) = views::check(&mut snapshot, &damage).await?;
    let counts = report::counts(&mut snapshot.main).await?;
    let behind = report::groups_behind(&mut snapshot.main).await?;
    snapshot.close().await;
    let parked = parked.counts.into_iter().collect();
    Ok(Report { checks: [outcomes, views, no_holes, rejected], counts, behind, parked })
}

/// How many partitions the database has.
async fn partitions(database: &mut Connection) -> Result<u64, DatabaseError> {
    let row = database.one(Question::plain(include_str!("queries/partitions.sql"))).await?;
    Ok(row.integer("partitions")?.unsigned_abs())
}
