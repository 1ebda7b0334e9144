//! What callers are told.

use tokio::sync::oneshot;

use crate::{
    ingress::{Acceptance, Refusal},
    message::{Lane, Outcome},
};

/// What became of a command whose caller waited.
#[derive(Clone, Debug)]
pub enum Executed {
    /// It has ended.
    Ended(Acceptance, Box<Outcome>),
    /// It is durable and goes on, in this lane: its time to wait was over, or it takes the queue.
    Accepted(Acceptance, Lane),
}

/// A command that was accepted, and how to hear of its end.
pub struct Dispatched {
    /// When it was accepted.
    pub acceptance: Acceptance,
    /// Its end, if it comes here: dropped without one, it is to be asked for.
    pub(crate) end: Option<oneshot::Receiver<End>>,
}

/// How a command left the room.
#[derive(Debug)]
pub(crate) enum End {
    Ended(Acceptance, Box<Outcome>),
    /// It is durable and somebody else finishes it, or it was accepted before.
    Elsewhere(Acceptance),
    Refused(Refusal),
}
