//! A test kit for domains: given, when, then, and replayability. Feature `testing`; for
//! `[dev-dependencies]`.
//!
//! A test goes the way that production goes: commands are checked by their rules, decided by the
//! code that a worker runs, and written and read back like the events, states and documents that
//! follow. What would not survive production fails here. Nothing is started, and a test takes well
//! under a millisecond.
//!
//! # Aggregates
//!
//! [`Given`] takes the events there are (or earlier commands), [`Given::when`] a command, and
//! [`Then`] says what must have come of it. Time stands still at [`START`], and ids are the same in
//! every run, unless the test says otherwise.
//!
//! ```
//! use adjutant::{prelude::*, testing::Given};
//!
//! #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
//! struct Add {
//!     #[garde(range(min = 1, max = 1_000))]
//!     amount: i64,
//! }
//!
//! #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
//! struct Added {
//!     amount: i64,
//! }
//!
//! adjutant::commands! { enum CounterCommand { Add(Add) = "add" v1 } }
//! adjutant::events! { enum CounterEvent { Added(Added) = "added" v1 } }
//!
//! #[derive(Clone, Default, Serialize, Deserialize)]
//! struct Counter {
//!     total: i64,
//! }
//!
//! #[derive(Debug, PartialEq)]
//! struct Full;
//!
//! impl std::fmt::Display for Full {
//!     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
//!         f.write_str("the counter is full")
//!     }
//! }
//!
//! impl DomainError for Full {
//!     fn code(&self) -> &str {
//!         "full"
//!     }
//! }
//!
//! impl Aggregate for Counter {
//!     const TYPE: &'static str = "counter";
//!     type Command = CounterCommand;
//!     type Event = CounterEvent;
//!     type Error = Full;
//!     type Reply = i64;
//!
//!     fn decide(
//!         &self,
//!         CounterCommand::Add(add): &CounterCommand,
//!         _: &Context,
//!     ) -> Result<Decision<CounterEvent, i64>, Full> {
//!         let total = self.total + add.amount;
//!         if total > 1_000 {
//!             return Err(Full);
//!         }
//!         Ok(Decision::event(Added { amount: add.amount }).reply(total))
//!     }
//!
//!     fn evolve(&mut self, CounterEvent::Added(added): &CounterEvent) {
//!         self.total += added.amount;
//!     }
//! }
//!
//! Given::<Counter>::events([Added { amount: 990 }.into()])
//!     .when(Add { amount: 5 })
//!     .then_events([Added { amount: 5 }.into()])
//!     .then_reply(995)
//!     .when(Add { amount: 6 })
//!     .then_rejected("full")
//!     .then_error(Full)
//!     .when(Add { amount: 0 })
//!     .then_invalid(["/amount"]);
//!
//! // Generated histories, replayed from every snapshot. In a test of a service, leave golden
//! // files on: `assert_replayable::<Counter>()`.
//! adjutant::testing::Replayable::<Counter>::new().no_golden_files().assert();
//! ```
//!
//! Several events of different types are a list of `into()`s or a tuple; see [`EventList`].
//! [`assert_replayable`] does to generated histories all that production may do, and pins stored
//! events by golden files; see [`Replayable`].
//!
//! # Projections
//!
//! [`GivenView`] takes the documents there are, [`GivenView::when`] events on a stream, and
//! [`ThenView`] says what must have become of the view. Versions, positions and times are set.
//!
//! ```
//! # use adjutant::{prelude::*, testing::GivenView};
//! # #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
//! # struct Add { #[garde(range(min = 1))] amount: i64 }
//! # #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
//! # struct Added { amount: i64 }
//! # adjutant::commands! { enum CounterCommand { Add(Add) = "add" v1 } }
//! # adjutant::events! { enum CounterEvent { Added(Added) = "added" v1 } }
//! # #[derive(Clone, Default, Serialize, Deserialize)]
//! # struct Counter;
//! # impl Aggregate for Counter {
//! #     const TYPE: &'static str = "counter";
//! #     type Command = CounterCommand;
//! #     type Event = CounterEvent;
//! #     type Error = NoError;
//! #     type Reply = ();
//! #     fn decide(&self, CounterCommand::Add(add): &CounterCommand, _: &Context)
//! #         -> Result<Decision<CounterEvent, ()>, NoError> {
//! #         Ok(Decision::event(Added { amount: add.amount }))
//! #     }
//! #     fn evolve(&mut self, _: &CounterEvent) {}
//! # }
//! /// The view `totals`: one document per counter.
//! #[derive(Default)]
//! struct Totals;
//!
//! impl Projection for Totals {
//!     const NAME: &'static str = "totals";
//!     const SCOPE: Scope = Scope::Stream;
//!     type View = i64;
//!
//!     fn events(&self) -> EventSelection {
//!         EventSelection::of::<Counter>()
//!     }
//!
//!     fn keys(&self, event: &EventRecord) -> Vec<String> {
//!         vec![event.stream.id().to_owned()]
//!     }
//!
//!     fn apply(
//!         &self,
//!         _: &str,
//!         total: &mut Option<i64>,
//!         event: &EventRecord,
//!     ) -> Result<(), ProjectionError> {
//!         if let Some(CounterEvent::Added(added)) = event.get() {
//!             *total.get_or_insert_default() += added.amount;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! GivenView::<Totals>::document("visits", &40)
//!     .when::<Counter>("visits", [Added { amount: 2 }.into()])
//!     .then_document("visits", &42)
//!     .then_version("visits", 2)
//!     .then_no_document("clicks")
//!     .when::<Counter>("clicks", [Added { amount: 1 }.into()])
//!     .then_document("clicks", &1)
//!     .then_keys(["clicks", "visits"]);
//! ```

mod diff;
mod generate;
mod given;
mod given_view;
mod golden;
mod history;
mod replay;
#[cfg(feature = "embedded")]
mod running;
mod schema;
mod subject;
#[cfg(test)]
mod tests;
mod then;
mod then_view;
mod tree;
mod view;
mod wire;

pub use generate::commands;
pub use given::{Given, drawn_id};
pub use given_view::GivenView;
pub use replay::{Replayable, assert_replayable, assert_replayable_with};
#[cfg(feature = "embedded")]
pub use running::RunningService;
pub use then::Then;
pub use then_view::ThenView;
pub use wire::EventList;

/// For strategies of your own, in the version that [`assert_replayable_with`] takes.
pub use proptest;

use crate::message::Timestamp;

/// The time at which every test begins: 2026-01-01, 00:00 UTC.
pub const START: Timestamp = time::macros::datetime!(2026-01-01 00:00 UTC);
