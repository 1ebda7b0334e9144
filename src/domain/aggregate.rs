//! Aggregates: who decides.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::{Context, MessageSet};

/// The consistency boundary that decides commands: a fold over the events of its stream.
///
/// `decide` and `evolve` are pure: they read no clock, draw no random numbers and do no I/O, so
/// that a decision can be made again. The state must survive serialisation, because snapshots are
/// written from it.
pub trait Aggregate:
    Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The aggregate type, `[a-z][a-z0-9_]*`: the first part of stream names and of wire names.
    const TYPE: &'static str;

    /// The version of the state's serialised form. Raise it when the state's fields change;
    /// snapshots of another version are ignored and the stream is replayed.
    const STATE_VERSION: i16 = 1;

    /// What can be asked; declared by [`commands!`](crate::commands).
    type Command: MessageSet;
    /// What can happen; declared by [`events!`](crate::events).
    type Event: MessageSet;
    /// Why a command is rejected.
    type Error: DomainError;
    /// What a successful command answers; `()` if nothing.
    type Reply: Serialize + Send;

    /// Decides a command on the present state: the events that happen now, or a rejection.
    fn decide(
        &self,
        command: &Self::Command,
        context: &Context,
    ) -> Result<Decision<Self::Event, Self::Reply>, Self::Error>;

    /// Folds an event into the state. An event is a fact: it cannot be refused.
    fn evolve(&mut self, event: &Self::Event);
}

/// What a failed decision means, and so what is done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// A domain answer: it is the command's outcome, and never retried.
    #[default]
    Rejected,
    /// It may succeed later: the command is tried again as its type's
    /// [`RetrySchedule`](crate::execute::RetrySchedule) says, then it is dead.
    Retryable,
    /// It can never succeed, and is no answer either: the command is dead at once.
    Fatal,
}

/// Why a decision failed. Unless it says otherwise it is a rejection: a domain answer, recorded as
/// the command's outcome and never retried.
///
/// ```
/// use adjutant::{domain::{FailureKind, source_chain}, prelude::*};
///
/// #[derive(Debug)]
/// enum TransferError { InsufficientFunds, RatesAreStale(std::fmt::Error) }
///
/// impl std::fmt::Display for TransferError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str(match self {
///             Self::InsufficientFunds => "the account does not hold that much",
///             Self::RatesAreStale(_) => "the exchange rates are too old",
///         })
///     }
/// }
///
/// impl DomainError for TransferError {
///     fn code(&self) -> &str {
///         match self {
///             Self::InsufficientFunds => "insufficient_funds",
///             Self::RatesAreStale(_) => "rates_are_stale",
///         }
///     }
///     fn kind(&self) -> FailureKind {
///         match self {
///             Self::InsufficientFunds => FailureKind::Rejected,
///             Self::RatesAreStale(_) => FailureKind::Retryable,
///         }
///     }
///     fn sources(&self) -> Vec<String> {
///         match self {
///             Self::InsufficientFunds => Vec::new(),
///             Self::RatesAreStale(cause) => source_chain(cause),
///         }
///     }
/// }
/// assert_eq!(TransferError::InsufficientFunds.kind(), FailureKind::Rejected);
/// assert_eq!(TransferError::RatesAreStale(std::fmt::Error).sources().len(), 1);
/// ```
pub trait DomainError: fmt::Display + Send + 'static {
    /// A stable code for programs, for example `insufficient_funds`. `Display` is for people.
    fn code(&self) -> &str;

    /// What it means.
    fn kind(&self) -> FailureKind {
        FailureKind::Rejected
    }

    /// The error that a stored failure was made of, for whoever waits for an outcome in Rust
    /// ([`CommandHandle::outcome`](crate::immediate::CommandHandle::outcome)). `None`, unless you say
    /// otherwise: only code and message are known then.
    fn from_failure(_: &crate::message::Failure) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// What caused it, outermost first; at most ten are kept.
    fn sources(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An error and what caused it, outermost first, as [`DomainError::sources`] wants it. At most ten.
pub fn source_chain(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source())
        .take(10)
        .map(ToString::to_string)
        .collect()
}

/// For aggregates that never reject.
#[derive(Clone, Copy, Debug)]
pub enum NoError {}

impl fmt::Display for NoError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl DomainError for NoError {
    fn code(&self) -> &str {
        match *self {}
    }
}

/// What an aggregate decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<E, R> {
    /// What happened, in order; empty if nothing changed.
    pub events: Vec<E>,
    /// What the caller is told.
    pub reply: R,
}

impl<E> Decision<E, ()> {
    /// These events happen; nothing is answered.
    pub fn events(events: impl IntoIterator<Item = impl Into<E>>) -> Self {
        Self { events: events.into_iter().map(Into::into).collect(), reply: () }
    }

    /// This event happens; nothing is answered.
    pub fn event(event: impl Into<E>) -> Self {
        Self { events: vec![event.into()], reply: () }
    }

    /// Nothing happens.
    pub fn none() -> Self {
        Self { events: Vec::new(), reply: () }
    }
}

impl<E, R> Decision<E, R> {
    /// The same events, with an answer.
    pub fn reply<S>(self, reply: S) -> Decision<E, S> {
        Decision { events: self.events, reply }
    }
}
