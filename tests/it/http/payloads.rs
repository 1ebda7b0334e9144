//! Whatever JSON can say.

use adjutant::prelude::*;

use super::*;

/// A domain that stores whatever it is sent.
mod anything {
    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize, Validate, JsonSchema)]
    pub struct Put {
        #[garde(skip)]
        pub value: Value,
    }

    #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
    pub struct WasPut {
        pub value: Value,
    }

    adjutant::commands! { pub enum Command { Put(Put) = "put" v1 } }
    adjutant::events! { pub enum Event { WasPut(WasPut) = "was_put" v1 } }

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub struct Thing;

    impl Aggregate for Thing {
        const TYPE: &'static str = "thing";
        type Command = Command;
        type Event = Event;
        type Error = NoError;
        type Reply = ();
        fn decide(&self, command: &Command, _: &Context) -> Result<Decision<Event, ()>, NoError> {
            let Command::Put(put) = command;
            Ok(Decision::event(WasPut { value: put.value.clone() }))
        }
        fn evolve(&mut self, _: &Event) {}
    }

    pub fn service() -> Service {
        Service::builder().aggregate::<Thing>().build().expect("a valid service")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_payload_holds_it_is_stored_or_refused_and_fails_no_neighbour() {
    let database = Database::migrated().await;
    let store = database.store().await;
    let settings = IngressSettings::default();
    let api = Api::start(anything::service(), store, &Signals::default(), settings);
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let digits = format!("0.{}1", "0".repeat(20_000));
    let values = [
        // Strange, but JSON that PostgreSQL stores.
        ("1e308", 202),
        ("-0.0", 202),
        ("5e-324", 202),
        ("18446744073709551615", 202),
        ("123456789012345678901234567890", 202),
        (r#""\uffff \ud83d\ude00 \u0001 \\u0000""#, 202),
        (r#"{"":{"":""}}"#, 202),
        (r#"{"a":1,"a":2}"#, 202),
        (&deep(100), 202),
        // Refused at the door.
        (r#""\u0000""#, 422),
        (r#"{"\u0000":1}"#, 422),
        (r#""\ud800""#, 400),
        ("1e309", 400),
        ("01", 400),
        ("NaN", 400),
        (&deep(200), 400),
        (&deep(60_000), 400),
        // JSON, but more digits than PostgreSQL keeps: only the store knows.
        ("1e-20000", 422),
        (&digits, 422),
    ];
    let line = |value: &str| {
        format!(r#"{{"type":"thing.put","stream":"thing/a","payload":{{"value":{value}}}}}"#)
    };
    for (value, expected) in values {
        let short: String = value.chars().take(40).collect();
        let json = [("Content-Type", "application/json")];
        let mut client = api.client().await;
        let answer = client.request("POST", "/v1/commands", &json, line(value).as_bytes()).await;
        assert_eq!(answer.status, expected, "{short}: {}", answer.body);

        let body = [line("1"), line(value), line("2")].join("\n");
        let ndjson = [("Content-Type", "application/x-ndjson")];
        let answer = client.request("POST", "/v1/commands/batch", &ndjson, body.as_bytes()).await;
        let codes: Vec<_> =
            answer.lines().iter().map(|l| l["code"].as_u64().expect("a code")).collect();
        assert_eq!(codes, [202, u64::from(expected), 202], "{short}: {}", answer.body);
    }
}
