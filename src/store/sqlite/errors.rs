//! What SQLite's answers mean.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::{Fence, StoreError};

/// An error of a statement: COMMIT was not tried, nothing took place.
pub(super) fn statement(error: Error) -> StoreError {
    let text = error.to_string();
    match error {
        Error::SqliteFailure(failure, message) => from_code(failure, message.as_deref(), text),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..)
        | Error::InvalidColumnType(..) => StoreError::Corrupt(text),
        Error::ToSqlConversionFailure(_) | Error::NulError(_) => StoreError::Unstorable(text),
        _ => StoreError::Internal(text),
    }
}

fn from_code(failure: ffi::Error, message: Option<&str>, text: String) -> StoreError {
    match failure.code {
        ErrorCode::ConstraintViolation => constraint(message.unwrap_or_default(), text),
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::SchemaChanged
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OperationAborted
        | ErrorCode::OperationInterrupted => StoreError::Transient(text),
        ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::OutOfMemory
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied => StoreError::Unavailable(text),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(text),
        ErrorCode::TooBig => StoreError::Unstorable(text),
        _ => StoreError::Internal(text),
    }
}

/// Which fence it was: SQLite names the columns of the key.
fn constraint(message: &str, text: String) -> StoreError {
    match message.strip_prefix("UNIQUE constraint failed: ") {
        Some(columns) if columns.starts_with("outcomes.") => StoreError::Fenced(Fence::Outcome),
        Some("events.partition, events.stream, events.version") => {
            StoreError::Fenced(Fence::StreamVersion)
        }
        _ => StoreError::Internal(text),
    }
}

/// Why a transaction that many callers share did not take place, or may not have; each of them is
/// told the same.
pub(super) struct Failed {
    kind: fn(String) -> StoreError,
    text: String,
}

impl Failed {
    /// COMMIT failed.
    pub(super) fn commit(error: &Error) -> Self {
        let text = format!("COMMIT failed: {error}");
        let kind = match error.sqlite_error_code() {
            // The lock was not to be had: nothing was written.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Transient,
            // The frame that ends the transaction comes last, and did not fit.
            Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory) => StoreError::Unavailable,
            // All frames may be in the log, and only the sync failed: after a crash SQLite may
            // find the transaction complete.
            _ => StoreError::Unknown,
        };
        Self { kind, text }
    }

    /// The transaction was rolled back before COMMIT, by an error of one of those that share it.
    pub(super) fn rolled_back(text: impl Into<String>) -> Self {
        Self { kind: StoreError::Transient, text: text.into() }
    }

    pub(super) fn error(&self) -> StoreError {
        (self.kind)(self.text.clone())
    }
}
