//! What PostgreSQL's answers mean.

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::{Fence, StoreError};

/// An error at a point where COMMIT had not been sent: nothing took place.
pub(super) fn before_commit(error: tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(answer) => from_answer(answer),
        None if is_value_error(&error) => StoreError::Unstorable(with_sources(&error)),
        None => StoreError::Unavailable(with_sources(&error)),
    }
}

/// An error after COMMIT was sent. Only an answer of the server that leaves the session alive says
/// that nothing took place; a lost connection says nothing.
pub(super) fn after_commit(error: tokio_postgres::Error) -> StoreError {
    match error.as_db_error() {
        // Not `severity()`: that one is in the server's language.
        Some(answer) if answer.parsed_severity() == Some(Severity::Error) => from_answer(answer),
        None if is_value_error(&error) => StoreError::Unstorable(with_sources(&error)),
        _ => StoreError::Unknown(with_sources(&error)),
    }
}

/// An error of the read pool.
pub(super) fn read(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(answer) => match answer.code().as_deref() {
            Some("42P01" | "3F000" | "42883") => StoreError::Schema(not_migrated(answer.message())),
            Some("40001" | "40P01" | "57014" | "55P03") => StoreError::Transient(error.to_string()),
            Some(code) if code.starts_with("57P") || code.starts_with("53") => {
                StoreError::Unavailable(error.to_string())
            }
            Some(code) if code.starts_with("28") || code.starts_with("3D") => {
                StoreError::Unavailable(error.to_string())
            }
            _ => StoreError::Internal(error.to_string()),
        },
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_) => StoreError::Unavailable(error.to_string()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Corrupt(error.to_string())
        }
        _ => StoreError::Internal(error.to_string()),
    }
}

fn from_answer(answer: &DbError) -> StoreError {
    let text = format!("{} ({})", answer.message(), answer.code().code());
    match answer.code().code() {
        "AJ001" => return StoreError::Fenced(Fence::Checkpoint),
        "AJ002" | "AJ004" => return StoreError::Fenced(Fence::NotInLog),
        "AJ005" => return StoreError::Fenced(Fence::StreamVersion),
        "AJ006" => return StoreError::Fenced(Fence::Holds),
        "AJ008" => return StoreError::Fenced(Fence::Held),
        "AJ009" => return StoreError::Fenced(Fence::Before),
        "AJ010" => return StoreError::Fenced(Fence::Outcome),
        "AJ041" => return StoreError::Fenced(Fence::Job),
        "AJ003" => return StoreError::ScopeViolated(answer.message().to_owned()),
        _ => {}
    }
    match *answer.code() {
        SqlState::UNIQUE_VIOLATION => unique_violation(answer, text),
        SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::LOCK_NOT_AVAILABLE
        | SqlState::QUERY_CANCELED => StoreError::Transient(text),
        SqlState::UNDEFINED_TABLE
        | SqlState::INVALID_SCHEMA_NAME
        | SqlState::UNDEFINED_FUNCTION => StoreError::Schema(not_migrated(&text)),
        _ => match &answer.code().code()[..2] {
            // Data exceptions and program limits: this value, ever.
            "22" | "54" => StoreError::Unstorable(text),
            // Resources (disk full, memory, connections), operator intervention, system errors,
            // connections that may not be made now, a session ended in its transaction.
            "53" | "57" | "58" | "08" | "28" | "25" => StoreError::Unavailable(text),
            _ => StoreError::Internal(text),
        },
    }
}

/// Which fence it was: they are named by their constraint.
fn unique_violation(answer: &DbError, text: String) -> StoreError {
    match answer.constraint() {
        Some("checkpoints_pkey") => StoreError::Fenced(Fence::Checkpoint),
        Some("commands_pkey") => StoreError::Fenced(Fence::Accepted),
        Some("outcomes_pkey") => StoreError::Fenced(Fence::Outcome),
        Some("parked_keys_pkey") => StoreError::Fenced(Fence::Parked),
        Some("events_partition_stream_version_key") => StoreError::Fenced(Fence::StreamVersion),
        // Two writers of one log without its lock: law 4's second line of defence.
        Some("events_pkey" | "command_log_pkey") => StoreError::Transient(text),
        _ => StoreError::Internal(text),
    }
}

fn not_migrated(text: &str) -> String {
    format!("the database is not set up for this release ({text}); run the `migrate` command")
}

/// The client could not even write the parameters (for example, more than 1 GiB).
fn is_value_error(error: &tokio_postgres::Error) -> bool {
    !error.is_closed() && error.to_string().starts_with("error serializing parameter")
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
