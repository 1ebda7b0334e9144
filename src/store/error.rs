//! What can go wrong in a store, sorted by what the caller must do about it.

/// A fence that held: somebody else wrote first. Nothing of the transaction took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// The checkpoint is not where the caller thought: another process owns the partition.
    Checkpoint,
    /// One of the commands has an outcome already.
    Outcome,
    /// One of the streams has grown since it was read.
    StreamVersion,
    /// One of the commands was accepted before.
    Accepted,
    /// One of the commands is not held by this process any more: it was taken over, or cancelled.
    Held,
    /// A strict command would overtake others that are not finished.
    Before,
    /// Nothing holds a command any more that was to wait.
    Holds,
    /// A command came by the road but is not in the command log at that offset.
    NotInLog,
    /// A job over dead letters is another process's by now, or it has ended.
    Job,
    /// A key was parked or unparked meanwhile, or another replay of it was faster.
    Parked,
}

/// Why a transaction did not take place, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or is overloaded; nothing took place. Try again.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The transaction was rolled back by a deadlock, a serialization failure or a time limit.
    /// Try the whole of it again.
    #[error("the transaction was rolled back: {0}")]
    Transient(String),
    /// The connection broke while the answer to COMMIT was outstanding: it may have taken place.
    /// Look before you try again.
    #[error("it is unknown whether the transaction took place: {0}")]
    Unknown(String),
    /// A fence held. Look again, then decide.
    #[error("another writer was first ({0:?})")]
    Fenced(Fence),
    /// A document is fed by two partitions, but its projection says it is not.
    #[error("{0}")]
    ScopeViolated(String),
    /// Some value can never be stored (for example text with U+0000). Trying again does not help.
    #[error("a value cannot be stored: {0}")]
    Unstorable(String),
    /// The schema is not what this release needs, or a person must act.
    #[error("{0}")]
    Schema(String),
    /// What is stored cannot be read: damaged, or written by a newer release.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// A bug or a state that nobody thought of.
    #[error("unexpected answer of the store: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same transaction may succeed when tried again unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Transient(_))
    }
}
