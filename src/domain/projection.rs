//! Projections: read models folded from events.

use serde::{Serialize, de::DeserializeOwned};

use super::{Aggregate, EventRecord, MessageSet};

/// Folds events into the documents of a view.
///
/// Events of one partition arrive in offset order, each exactly once per document. Across
/// partitions there is no order: where a key is fed by several partitions ([`Scope::Shared`]) the
/// fold must commute, that is, give the same document in whichever order the partitions' events
/// arrive (sums, counts, maxima, sets; not "the last one").
pub trait Projection: Send + Sync + 'static {
    /// The view's name, `[a-z][a-z0-9_]*`.
    const NAME: &'static str;

    /// Who feeds a document. `Stream` is faster; claim it only where it is true: a document that
    /// is then fed from two partitions is refused with an error.
    const SCOPE: Scope = Scope::Shared;

    /// A document.
    type View: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The events it wants.
    fn events(&self) -> EventSelection;

    /// The keys of the documents that an event touches (1–512 bytes each); none to ignore it.
    fn keys(&self, event: &EventRecord) -> Vec<String>;

    /// Folds the event into the document of one of those keys; `view` is `None` if there is none
    /// yet, and setting it to `None` deletes it.
    fn apply(
        &self,
        key: &str,
        view: &mut Option<Self::View>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError>;
}

/// Who feeds the documents of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each document is fed by the events of one stream.
    Stream,
    /// A document may be fed by any number of streams and partitions.
    Shared,
}

/// Whether the fold changed a document; kept for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Nothing to write.
    Unchanged,
    /// A new value, or a deletion.
    Changed,
}

/// An event that a projection cannot apply. It is tried again a few times, unless it is fatal; then
/// its *key* is parked: the stream in a projection of scope [`Scope::Stream`], the document in one of
/// scope [`Scope::Shared`]. Later events of that key wait behind it, in order, and all others go on,
/// until a person has the key replayed. Nothing is skipped silently.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProjectionError {
    message: String,
    is_retryable: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ProjectionError {
    /// A failure of which nobody knows whether trying again helps: it is tried again a few times.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_retryable: true, source: None }
    }

    /// A failure that may pass by itself: it is tried again a few times.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(message)
    }

    /// A failure that does not pass by itself: the key is parked at once.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { is_retryable: false, ..Self::new(message) }
    }

    /// Names the cause, which the dead letter shows.
    #[must_use]
    pub fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Whether it is worth trying again.
    pub fn is_retryable(&self) -> bool {
        self.is_retryable
    }
}

/// The wire names of the events a projection wants.
#[derive(Clone, Debug, Default)]
pub struct EventSelection {
    names: Vec<String>,
}

impl EventSelection {
    /// All events of an aggregate.
    pub fn of<A: Aggregate>() -> Self {
        Self::default().and::<A>()
    }

    /// And all events of another aggregate.
    #[must_use]
    pub fn and<A: Aggregate>(mut self) -> Self {
        let names = A::Event::KINDS.iter().map(|kind| format!("{}.{}", A::TYPE, kind.name));
        self.names.extend(names);
        self
    }

    /// These events, by wire name (`account.deposited`); unknown names are an error at `build()`.
    pub fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self { names: names.into_iter().map(Into::into).collect() }
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}
