//! What projection workers need: documents and checkpoints that move together.

use async_trait::async_trait;

use super::{CheckpointMove, Folded, NewParkedKey, StoreError};
use crate::message::{Partition, Position, RawJson, StreamId};

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentRow {
    /// Its key.
    pub key: String,
    /// How often it changed (0: it is not there).
    pub version: i64,
    /// The value (`None`: not there, or deleted).
    pub value: Option<RawJson>,
    /// For each partition that fed it, the last position that did.
    pub as_of: Vec<Position>,
    /// The parked key with which it waits, if it does: the stream, or the document itself.
    pub parked: Option<String>,
}

impl DocumentRow {
    /// A document that is not there.
    pub fn absent(key: impl Into<String>) -> Self {
        Self { key: key.into(), version: 0, value: None, as_of: Vec::new(), parked: None }
    }
}

/// A document to write.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentWrite {
    /// Its key.
    pub key: String,
    /// How often it has changed, this change included.
    pub version: i64,
    /// The new value (`None`: deleted).
    pub value: Option<RawJson>,
    /// For each partition that fed it, the last position that did.
    pub as_of: Vec<Position>,
    /// The only partition that may feed it (scope `Stream`); `None`: any (scope `Shared`).
    pub partition: Option<Partition>,
}

/// Changes to one view, with the checkpoints of the events that caused them.
#[derive(Clone, Debug, Default)]
pub struct ViewCommit {
    /// The view.
    pub view: String,
    /// The documents, each key once.
    pub documents: Vec<DocumentWrite>,
    /// The checkpoints of the view's group.
    pub checkpoints: Vec<CheckpointMove>,
    /// Parked streams whose events the checkpoints pass, sorted, each once; one that is parked no
    /// longer → [`Fence::Parked`](super::Fence).
    pub passed: Vec<StreamId>,
    /// Keys that are parked with this.
    pub parked: Vec<NewParkedKey>,
}

/// Documents of one view to be locked, folded and written in one transaction.
#[derive(Clone, Debug, Default)]
pub struct FoldRequest {
    /// The view.
    pub view: String,
    /// The keys, each once.
    pub keys: Vec<String>,
    /// The checkpoints of the view's group.
    pub checkpoints: Vec<CheckpointMove>,
    /// Parked streams whose events the checkpoints pass, sorted, each once; one that is parked no
    /// longer → [`Fence::Parked`](super::Fence).
    pub passed: Vec<StreamId>,
}

/// Folds locked documents; gets them in the order of the request's keys.
pub type FoldDocuments<'a> =
    Box<dyn FnOnce(Vec<DocumentRow>) -> Result<Folded, StoreError> + Send + 'a>;

/// The answer to a request for documents.
pub type ViewDocuments = Vec<DocumentRow>;

/// Maintaining views.
#[async_trait]
pub trait Views: Send + Sync {
    /// The documents of these keys, in their order; absent ones with version 0.
    async fn load_documents(
        &self,
        view: &str,
        keys: &[String],
    ) -> Result<ViewDocuments, StoreError>;

    /// Writes documents that only this partition's owner feeds (scope `Stream`): the checkpoint's
    /// compare-and-set is fence enough.
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), StoreError>;

    /// Folds documents that others may feed at the same time (scope `Shared`): inserts missing
    /// rows empty, locks all in key order, folds, writes and moves the checkpoints, all in one
    /// transaction.
    async fn fold_shared(
        &self,
        request: FoldRequest,
        fold: FoldDocuments<'_>,
    ) -> Result<(), StoreError>;
}
