//! `bank verify`: audits a database after the fact, from plain SQL and a fold of its own. It knows
//! nothing of the run that filled it, and shares no code with the processes that did.
//!
//! All questions are asked in one read-only REPEATABLE READ snapshot. Answers are streamed, so that
//! memory does not grow with the database. Each kind of damage is one check's business: a missing
//! event is a hole and nothing else, although outcomes and views refer to it; see `damage`.

mod accounts_fold;
mod answers;
mod damage;
mod documents;
mod no_holes;
mod outcomes;
mod rejected;
mod report;
mod snapshot;
mod views;

pub use report::{Check, Counts, Report};

use std::path::Path;

use damage::Damage;
use snapshot::Snapshot;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database did not answer, or is not one of ours.
    #[error("the database cannot be audited: {0}")]
    Database(#[from] sqlx::Error),
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
pub async fn verify(database_url: &str, answers: Option<&Path>) -> Result<Report, VerifyError> {
    let mut snapshot = Snapshot::open(database_url).await?;
    let mut damage = Damage::default();
    let rejected = rejected::check(&mut snapshot, &mut damage).await?;
    let no_holes = no_holes::check(&mut snapshot, &mut damage).await?;
    let mut outcomes = outcomes::check(&mut snapshot, &damage).await?;
    if let Some(path) = answers {
        answers::check(&mut snapshot, path, &mut outcomes).await?;
    }
    let views = views::check(&mut snapshot, &damage).await?;
    let counts = report::counts(&mut snapshot).await?;
    let behind = report::groups_behind(&mut snapshot).await?;
    snapshot.close().await;
    Ok(Report { checks: [outcomes, views, no_holes, rejected], counts, behind })
}
