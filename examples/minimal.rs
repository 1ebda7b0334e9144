//! A complete service: a counter that people can add to, and a view of all counters.
//!
//! `cargo run --example minimal`; with `ADJUTANT_DATABASE_URL` and `ADJUTANT_AMQP_URL` on PostgreSQL
//! and RabbitMQ, without them on `./adjutant-data`.

use adjutant::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
struct Add {
    #[garde(range(min = 1, max = 1_000))]
    amount: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Added {
    amount: i64,
}

adjutant::commands! { enum CounterCommand { Add(Add) = "add" v1 } }
adjutant::events! { enum CounterEvent { Added(Added) = "added" v1 } }

#[derive(Clone, Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Error = NoError;
    type Reply = i64;

    fn decide(
        &self,
        CounterCommand::Add(add): &CounterCommand,
        _: &Context,
    ) -> Result<Decision<CounterEvent, i64>, NoError> {
        Ok(Decision::event(Added { amount: add.amount }).reply(self.total + add.amount))
    }

    fn evolve(&mut self, CounterEvent::Added(added): &CounterEvent) {
        self.total += added.amount;
    }
}

/// The view `totals`: one document per counter.
struct Totals;

impl Projection for Totals {
    const NAME: &'static str = "totals";
    const SCOPE: Scope = Scope::Stream;
    type View = i64;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Counter>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        vec![event.stream.id().to_owned()]
    }

    fn apply(
        &self,
        _: &str,
        total: &mut Option<i64>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        if let Some(CounterEvent::Added(added)) = event.get() {
            *total.get_or_insert_default() += added.amount;
        }
        Ok(())
    }
}

/// The domain, ready to run.
pub fn service() -> Result<Service, BuildError> {
    Service::builder().aggregate::<Counter>().projection(Totals).build()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    Ok(adjutant::service::serve(service()?).await?)
}
