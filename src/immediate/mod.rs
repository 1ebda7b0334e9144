//! The immediate lane: commands are executed in the process that received them, through the same
//! executor, transaction and tables as those of the queued lane, without a queue.
//!
//! A command whose caller waits is accepted by the transaction that executes it. One that is answered
//! at once is durable before, with the incarnation of this process as its holder; when the process is
//! gone, a relay puts it into the command log (`Outbox::take_over`).
//!
//! The room is bounded, commands of a stream run in the order of their arrival, and those that wait
//! share a transaction.

mod answer;
mod cancelled;
mod dispatcher;
mod due;
mod handle;
mod processor;
mod reconcile;
mod request;
mod room;
mod run;
mod settings;
mod stats;

pub use answer::{Dispatched, Executed};
pub use dispatcher::{AskError, DispatchError, Dispatcher, DispatcherParts};
pub use handle::{CommandHandle, NotSucceeded};
pub use processor::{AsyncCommandProcessor, ProcessorParts};
pub use request::Request;
pub use settings::ImmediateSettings;
pub use stats::{LaneStats, LatencyBucket};
