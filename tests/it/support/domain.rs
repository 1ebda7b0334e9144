//! A small domain to test with: counters.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, PoisonError},
};

use adjutant::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Add {
    #[garde(range(min = 1))]
    pub amount: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Misbehave {
    /// `panic`, `unstorable`, `evolve_panic`
    #[garde(length(min = 1))]
    pub how: String,
}

/// Adds an amount, once it has been tried often enough or was repaired.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flaky {
    /// Names what fails; [`repair`] ends it.
    #[garde(skip)]
    pub key: String,
    /// How often it fails before it succeeds by itself.
    #[garde(skip)]
    pub fails: u32,
    /// `retryable`, `fatal`, `panic`, `hang`
    #[garde(skip)]
    pub how: String,
    #[garde(range(min = 1))]
    pub amount: i64,
}

/// The same, in strict order.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(transparent)]
pub struct InOrder(#[garde(dive)] pub Flaky);

/// How often each key was tried, in this process; everything that fails looks here.
static TRIES: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
static REPAIRED: Condvar = Condvar::new();

/// From now on what has this key succeeds.
pub fn repair(key: &str) {
    TRIES.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), u32::MAX / 2);
    REPAIRED.notify_all();
}

/// How often what has this key was decided.
pub fn tries(key: &str) -> u32 {
    let tries = TRIES.lock().unwrap_or_else(PoisonError::into_inner);
    tries.get(key).copied().unwrap_or_default()
}

impl Flaky {
    fn attempt(&self) -> Result<(), CounterError> {
        let mut tries = TRIES.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = tries.entry(self.key.clone()).or_default();
        *tried += 1;
        if *tried > self.fails {
            return Ok(());
        }
        match self.how.as_str() {
            "retryable" => Err(CounterError::OutOfReach(std::io::Error::other("told to"))),
            "fatal" => Err(CounterError::Impossible),
            "hang" => {
                let still = |tries: &mut BTreeMap<String, u32>| {
                    tries.get(&self.key).copied().unwrap_or_default() <= self.fails
                };
                drop(REPAIRED.wait_while(tries, still).unwrap_or_else(PoisonError::into_inner));
                Ok(())
            }
            _ => {
                drop(tries);
                panic!("told to")
            }
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    pub amount: i64,
    pub total: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Noted {
    pub text: String,
}

adjutant::commands! {
    pub enum CounterCommand {
        Add(Add) = "add" v1,
        Misbehave(Misbehave) = "misbehave" v1,
        Flaky(Flaky) = "flaky" v1,
        InOrder(InOrder) = "in_order" v1 strict,
    }
}

adjutant::events! {
    pub enum CounterEvent {
        Added(Added) = "added" v1,
        Noted(Noted) = "noted" v1,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    pub total: i64,
}

/// A counter never passes this.
pub const LIMIT: i64 = 1_000_000;

#[derive(Debug)]
pub enum CounterError {
    OverLimit,
    OutOfReach(std::io::Error),
    Impossible,
}

impl std::fmt::Display for CounterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OverLimit => write!(f, "a counter never passes {LIMIT}"),
            Self::OutOfReach(_) => f.write_str("what it needs is out of reach"),
            Self::Impossible => f.write_str("it cannot be"),
        }
    }
}

impl DomainError for CounterError {
    fn code(&self) -> &str {
        match self {
            Self::OverLimit => "over_limit",
            Self::OutOfReach(_) => "out_of_reach",
            Self::Impossible => "impossible",
        }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::OverLimit => FailureKind::Rejected,
            Self::OutOfReach(_) => FailureKind::Retryable,
            Self::Impossible => FailureKind::Fatal,
        }
    }

    fn from_failure(failure: &adjutant::message::Failure) -> Option<Self> {
        (failure.code == "over_limit").then_some(Self::OverLimit)
    }

    fn sources(&self) -> Vec<String> {
        match self {
            Self::OutOfReach(cause) => adjutant::domain::source_chain(cause),
            Self::OverLimit | Self::Impossible => Vec::new(),
        }
    }
}

impl Counter {
    fn add(&self, amount: i64) -> Result<Decision<CounterEvent, i64>, CounterError> {
        let total = self.total + amount;
        if total > LIMIT {
            return Err(CounterError::OverLimit);
        }
        Ok(Decision::event(Added { amount, total }).reply(total))
    }
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Error = CounterError;
    type Reply = i64;

    fn decide(
        &self,
        command: &CounterCommand,
        _: &Context,
    ) -> Result<Decision<CounterEvent, i64>, CounterError> {
        match command {
            CounterCommand::Add(Add { amount }) => self.add(*amount),
            CounterCommand::Flaky(flaky) | CounterCommand::InOrder(InOrder(flaky)) => {
                flaky.attempt()?;
                self.add(flaky.amount)
            }
            CounterCommand::Misbehave(Misbehave { how }) => match how.as_str() {
                "unstorable" => {
                    Ok(Decision::event(Noted { text: "\0".to_owned() }).reply(self.total))
                }
                "evolve_panic" => {
                    Ok(Decision::event(Noted { text: "panic".to_owned() }).reply(self.total))
                }
                _ => panic!("told to"),
            },
        }
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added(added) => self.total += added.amount,
            CounterEvent::Noted(noted) => assert!(noted.text != "panic", "told to"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    pub amount: i64,
    pub count: i64,
}

/// One document per counter.
pub struct Counters;

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
        _: &str,
        view: &mut Option<Sum>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        add(view, event);
        Ok(())
    }
}

/// One document that every counter feeds, from every partition.
pub struct Totals;

impl Projection for Totals {
    const NAME: &'static str = "totals";
    type View = Sum;

    fn events(&self) -> EventSelection {
        EventSelection::named(["counter.added"])
    }

    fn keys(&self, _: &EventRecord) -> Vec<String> {
        vec!["all".to_owned()]
    }

    fn apply(
        &self,
        _: &str,
        view: &mut Option<Sum>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        add(view, event);
        Ok(())
    }
}

fn add(view: &mut Option<Sum>, event: &EventRecord) {
    if let Some(CounterEvent::Added(added)) = event.get() {
        let sum = view.get_or_insert_default();
        sum.amount += added.amount;
        sum.count += 1;
    }
}

pub fn service() -> Service {
    Service::builder()
        .aggregate::<Counter>()
        .projection(Counters)
        .projection(Totals)
        .build()
        .expect("a valid service")
}
