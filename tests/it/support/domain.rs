//! A small domain to test with: counters.

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
pub struct OverLimit;

impl std::fmt::Display for OverLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a counter never passes {LIMIT}")
    }
}

impl DomainError for OverLimit {
    fn code(&self) -> &str {
        "over_limit"
    }
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Error = OverLimit;
    type Reply = i64;

    fn decide(
        &self,
        command: &CounterCommand,
        _: &Context,
    ) -> Result<Decision<CounterEvent, i64>, OverLimit> {
        match command {
            CounterCommand::Add(Add { amount }) => {
                let total = self.total + amount;
                if total > LIMIT {
                    return Err(OverLimit);
                }
                Ok(Decision::event(Added { amount: *amount, total }).reply(total))
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
