//! Pins what leaves Rust: wire names, schema versions and the JSON of every message. A change here
//! is a change for every client and every stored event: raise the schema version instead.

use adjutant::domain::MessageSet;
use adjutant::message::RawJson;

use super::{
    AccountCommand, AccountEvent, Close, Closed, Deposit, Deposited, Open, Opened, Withdraw,
    Withdrawn, service,
};

#[test]
fn wire_names_and_schema_versions_never_change_unnoticed() {
    let service = service().unwrap();
    let found: Vec<_> = service
        .registry()
        .types()
        .map(|kind| (kind.name.as_str(), kind.schema_version, kind.is_command))
        .collect();
    let golden = [
        ("account.close", 1, true),
        ("account.closed", 1, false),
        ("account.deposit", 1, true),
        ("account.deposited", 1, false),
        ("account.open", 1, true),
        ("account.opened", 1, false),
        ("account.withdraw", 1, true),
        ("account.withdrawn", 1, false),
    ];
    assert_eq!(found, golden);
    let views: Vec<_> = service.registry().projections().map(|view| view.name()).collect();
    assert_eq!(views, ["balances", "statements"]);
}

fn both_ways<M: MessageSet + PartialEq + std::fmt::Debug>(message: M, name: &str, json: &str) {
    assert_eq!(message.kind().name, name);
    assert_eq!(message.encode().unwrap().as_str(), json);
    let raw = RawJson::from_trusted(json.to_owned());
    assert_eq!(M::decode(name, message.kind().schema_version, &raw).unwrap(), message);
}

#[test]
fn commands_keep_their_json() {
    let command = both_ways::<AccountCommand>;
    command(Open { owner: "Ada".into() }.into(), "open", r#"{"owner":"Ada"}"#);
    command(Deposit { amount: 500 }.into(), "deposit", r#"{"amount":500}"#);
    command(Withdraw { amount: 200 }.into(), "withdraw", r#"{"amount":200}"#);
    command(Close {}.into(), "close", "{}");
}

#[test]
fn events_keep_their_json() {
    let event = both_ways::<AccountEvent>;
    event(Opened { owner: "Ada".into() }.into(), "opened", r#"{"owner":"Ada"}"#);
    let deposited = Deposited { amount: 500, balance: 700 };
    event(deposited.into(), "deposited", r#"{"amount":500,"balance":700}"#);
    let withdrawn = Withdrawn { amount: 200, balance: 500 };
    event(withdrawn.into(), "withdrawn", r#"{"amount":200,"balance":500}"#);
    event(Closed {}.into(), "closed", "{}");
}
