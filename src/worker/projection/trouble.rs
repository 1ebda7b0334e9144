//! What can be in the way of a batch: an event, a value, or the store.

use crate::{
    dead_letter::DeadLetterId,
    domain::ProjectionError,
    message::{Failure, Position},
    store::{EventEntry, EventFailure, StoreError},
};

/// How much of a message is kept.
const MOST_BYTES: usize = 4096;

/// Why a batch was not applied.
#[derive(Debug)]
pub(super) enum Trouble {
    /// One of its events cannot be applied, and this is the one.
    Event(BadEvent),
    /// What its events come to cannot be stored; which of them is to blame is not known.
    Value(Fault),
    /// The store: no event is to blame.
    Store(StoreError),
}

/// An event that cannot be applied.
#[derive(Debug)]
pub(super) struct BadEvent {
    pub(super) position: Position,
    pub(super) fault: Fault,
}

/// What is wrong, and with what.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) blame: Blame,
    pub(super) error: Failure,
    pub(super) is_retryable: bool,
}

/// What cannot go on, where documents are shared. Where they are not, it is always the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Which documents the event touches is not known: its stream.
    Stream,
    /// A document.
    Document(String),
    /// One of the event's documents; which one is not known.
    AnyDocument,
}

impl Fault {
    /// One that stays whatever is tried.
    pub(super) fn lasting(blame: Blame, code: &str, message: impl Into<String>) -> Self {
        Self { blame, error: failure(code, message.into(), Vec::new()), is_retryable: false }
    }

    /// User code panicked.
    pub(super) fn panicked(blame: Blame, what: &str, panic: &(dyn std::any::Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = format!("{what} panicked: {}", said.unwrap_or("(no message)"));
        let error = failure("projection_panicked", message, Vec::new());
        Self { blame, error, is_retryable: true }
    }

    /// The projection said so.
    pub(super) fn told(blame: Blame, error: &ProjectionError) -> Self {
        let mut sources = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(source) = cause {
            sources.push(bounded(source.to_string()));
            cause = source.source();
        }
        Self {
            blame,
            error: failure("projection_failed", error.to_string(), sources),
            is_retryable: error.is_retryable(),
        }
    }

    pub(super) fn at(self, position: Position) -> BadEvent {
        BadEvent { position, fault: self }
    }
}

impl Trouble {
    /// Whether trying the same event again may help.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Event(bad) => bad.fault.is_retryable,
            Self::Value(fault) => fault.is_retryable,
            Self::Store(_) => false,
        }
    }

    /// What is wrong with the events, if it is not the store.
    pub(super) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Event(bad) => Some(&bad.fault),
            Self::Value(fault) => Some(fault),
            Self::Store(_) => None,
        }
    }

    /// What an event is to be parked for, once it stands alone; or the store's error.
    pub(super) fn into_fault(self) -> Result<Fault, StoreError> {
        match self {
            Self::Event(bad) => Ok(bad.fault),
            Self::Value(fault) => Ok(fault),
            Self::Store(error) => Err(error),
        }
    }
}

impl From<BadEvent> for Trouble {
    fn from(bad: BadEvent) -> Self {
        Self::Event(bad)
    }
}

/// A value that can never be stored, and a document that is fed from two sides, are the events'
/// doing; everything else is no reason to park anything.
impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Unstorable(_) => "document_unstorable",
            StoreError::ScopeViolated(_) => "scope_violated",
            _ => return Self::Store(error),
        };
        Self::Value(Fault::lasting(Blame::AnyDocument, code, error.to_string()))
    }
}

/// What was found out about an event that stands alone: what is parked for it, and why.
pub(super) struct Verdict {
    faults: Vec<Fault>,
    /// How often the event was tried.
    attempts: i32,
}

impl Verdict {
    pub(super) fn after(attempts: i32) -> Self {
        Self { faults: Vec::new(), attempts }
    }

    /// Whether this is news.
    pub(super) fn add(&mut self, fault: Fault) -> bool {
        let news = self.faults.iter().all(|known| known.blame != fault.blame);
        if news {
            self.faults.push(fault);
        }
        news
    }

    /// Why the whole stream is parked, if it is.
    pub(super) fn on_stream(&self, always: bool) -> Option<&Fault> {
        self.faults.iter().find(|fault| always || fault.blame == Blame::Stream)
    }

    /// Why a document is parked, if it is.
    pub(super) fn on_document(&self, key: &str) -> Option<&Fault> {
        self.faults.iter().find(|fault| match &fault.blame {
            Blame::Document(blamed) => blamed == key,
            Blame::AnyDocument => true,
            Blame::Stream => false,
        })
    }

    pub(super) fn failure(&self, fault: &Fault, entry: &EventEntry, at: Position) -> EventFailure {
        failure_of(&fault.error, self.attempts, entry, at)
    }
}

/// A dead letter's content.
pub(super) fn failure_of(
    error: &Failure,
    attempts: i32,
    entry: &EventEntry,
    position: Position,
) -> EventFailure {
    EventFailure {
        dead_letter: DeadLetterId::generate(),
        position,
        version: entry.event.version,
        event_type: entry.event.event_type.clone(),
        command_id: entry.event.command_id,
        error: error.clone(),
        attempts,
    }
}

fn failure(code: &str, message: String, sources: Vec<String>) -> Failure {
    Failure { code: code.to_owned(), message: bounded(message), sources }
}

/// A failure must be storable whatever the text that describes it.
fn bounded(text: String) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    if text.len() > MOST_BYTES {
        text.truncate(text.floor_char_boundary(MOST_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_can_be_stored_whatever_it_says() {
        let long = format!("a\0{}", "ä".repeat(MOST_BYTES));
        let error = ProjectionError::fatal(long).because("b\0");
        let fault = Fault::told(Blame::Stream, &error);
        let message = &fault.error.message;
        assert!(message.len() <= MOST_BYTES + 3 && message.starts_with("a\u{fffd}ä"));
        assert_eq!(fault.error.sources, ["b\u{fffd}"]);
        assert!(!fault.is_retryable);
    }
}
