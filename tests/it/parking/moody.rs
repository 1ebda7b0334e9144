//! Projections that fail at certain events when they are told to: what a bug is, and its fix.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use adjutant::prelude::*;

use crate::support::domain::{Counter, CounterEvent};

/// Events of this amount are the ones that fail (it is even).
pub const POISON: i64 = 666;

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    None,
    Fails,
    Fatal,
    /// The first two tries of each event.
    FailsTwice,
    Panics,
    KeysPanic,
    Unstorable,
}

/// How the projections feel, by view.
#[derive(Clone, Default)]
pub struct Moods {
    harms: Arc<Mutex<BTreeMap<&'static str, Harm>>>,
    /// If set: the only streams whose events fail.
    only: Arc<Mutex<Option<BTreeSet<String>>>>,
    tries: Arc<Mutex<HashMap<String, u32>>>,
    /// How often something failed.
    failures: Arc<AtomicU32>,
}

impl Moods {
    pub fn set(&self, view: &'static str, harm: Harm) {
        self.harms.lock().unwrap_or_else(PoisonError::into_inner).insert(view, harm);
    }

    pub fn heal(&self) {
        self.harms.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// From now on only events of these streams fail.
    pub fn only(&self, streams: impl IntoIterator<Item = String>) {
        *self.only.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(streams.into_iter().collect());
    }

    /// How often something failed.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    fn of(&self, view: &str, event: &EventRecord) -> Harm {
        let only = self.only.lock().unwrap_or_else(PoisonError::into_inner);
        let spared = only.as_ref().is_some_and(|only| !only.contains(event.stream.as_str()));
        if amount(event) != POISON || spared {
            return Harm::None;
        }
        let harms = self.harms.lock().unwrap_or_else(PoisonError::into_inner);
        harms.get(view).copied().unwrap_or(Harm::None)
    }

    fn harm(&self, view: &str, key: &str, event: &EventRecord) -> Result<Harm, ProjectionError> {
        let harm = self.of(view, event);
        if harm != Harm::None {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        match harm {
            Harm::Fails => Err(ProjectionError::new("told to")),
            Harm::Fatal => Err(ProjectionError::fatal("told to")),
            Harm::Panics => panic!("told to"),
            Harm::FailsTwice => {
                let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
                let tries = tries.entry(format!("{view}/{key}/{}", event.position)).or_default();
                *tries += 1;
                if *tries > 2 { Ok(harm) } else { Err(ProjectionError::retryable("not yet")) }
            }
            Harm::None | Harm::KeysPanic | Harm::Unstorable => Ok(harm),
        }
    }
}

fn amount(event: &EventRecord) -> i64 {
    match event.get() {
        Some(CounterEvent::Added(added)) => added.amount,
        _ => 0,
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    amount: i64,
    count: i64,
    note: String,
}

fn fold(view: &mut Option<Sum>, event: &EventRecord, harm: Harm) {
    let sum = view.get_or_insert_default();
    sum.amount += amount(event);
    sum.count += 1;
    if harm == Harm::Unstorable {
        sum.note.push('\0');
    }
}

/// One document per counter.
struct Counters(Moods);

impl Projection for Counters {
    const NAME: &'static str = "counters";
    const SCOPE: Scope = Scope::Stream;
    type View = Sum;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Counter>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![event.stream.id().to_owned()]
    }

    fn apply(
        &self,
        key: &str,
        view: &mut Option<Sum>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let harm = self.0.harm(Self::NAME, key, event)?;
        fold(view, event, harm);
        Ok(())
    }
}

/// Two documents per counter: of its even and of its odd amounts. Only even ones fail.
struct Parities(Moods);

impl Projection for Parities {
    const NAME: &'static str = "parities";
    const SCOPE: Scope = Scope::Stream;
    type View = Sum;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Counter>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![format!("{}/{}", event.stream.id(), parity(event))]
    }

    fn apply(
        &self,
        key: &str,
        view: &mut Option<Sum>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let harm = self.0.harm(Self::NAME, key, event)?;
        fold(view, event, harm);
        Ok(())
    }
}

fn parity(event: &EventRecord) -> &'static str {
    if amount(event) % 2 == 0 { "even" } else { "odd" }
}

/// One document that every counter feeds, and one for even and one for odd amounts; only the first
/// fails.
struct Totals(Moods);

impl Projection for Totals {
    const NAME: &'static str = "totals";
    type View = Sum;

    fn events(&self) -> EventSelection {
        EventSelection::named(["counter.added"])
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        assert!(self.0.of(Self::NAME, event) != Harm::KeysPanic, "told to");
        vec!["all".to_owned(), parity(event).to_owned()]
    }

    fn apply(
        &self,
        key: &str,
        view: &mut Option<Sum>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let harm = if key == "all" { self.0.harm(Self::NAME, key, event)? } else { Harm::None };
        fold(view, event, harm);
        Ok(())
    }
}

pub fn service(moods: &Moods) -> Service {
    Service::builder()
        .aggregate::<Counter>()
        .projection(Counters(moods.clone()))
        .projection(Parities(moods.clone()))
        .projection(Totals(moods.clone()))
        .build()
        .expect("a valid service")
}
