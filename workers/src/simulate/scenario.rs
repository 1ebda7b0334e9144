//! What is simulated: a few accounts that many clients use at once, and one view more than the
//! service has, whose documents are fed by all partitions.

use std::collections::BTreeSet;

use adjutant::{
    prelude::*,
    simulation::{Dice, Evidence, Scenario},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    accounts::{Account, AccountEvent, Balances, Statements},
    drill::{Drill, Drills},
};

/// Few, so that commands meet.
const ACCOUNTS: u64 = 12;
/// Few, so that tasks meet.
const DRILLS: u64 = 4;

/// Clients of a bank.
#[derive(Default)]
pub struct Bank {
    commands: u64,
}

impl Scenario for Bank {
    fn service(&self) -> Service {
        let service = Service::builder()
            .aggregate::<Account>()
            .aggregate::<Drill>()
            .projection(Balances)
            .projection(Statements)
            .projection(Turnover)
            .projection(Drills { cured: false })
            .build();
        match service {
            Ok(service) => service,
            // The names are constants: whatever is wrong with them is so in every run.
            Err(error) => unreachable!("{error}"),
        }
    }

    fn command(&mut self, dice: &mut Dice) -> Value {
        self.commands += 1;
        if self.commands > ACCOUNTS && dice.happens(2_000) {
            return drill(dice);
        }
        let account =
            if self.commands <= ACCOUNTS { self.commands } else { 1 + dice.below(ACCOUNTS) };
        let (kind, payload) = if self.commands <= ACCOUNTS {
            ("open", json!({ "owner": format!("owner {account}") }))
        } else {
            let amount = 1 + dice.below(200);
            match dice.below(100) {
                0..48 => ("deposit", json!({ "amount": amount })),
                // More than there is, often enough.
                48..92 => ("withdraw", json!({ "amount": 2 * amount })),
                92..96 => ("open", json!({ "owner": "somebody" })),
                96..98 => ("close", json!({})),
                // Refused at the door.
                _ => ("deposit", json!({ "amount": 0 })),
            }
        };
        let mut draft = json!({
            "type": format!("account.{kind}"),
            "stream": format!("account/{account}"),
            "payload": payload,
        });
        if dice.happens(300) {
            draft["expected_version"] = json!(dice.below(20));
        }
        draft
    }

    fn correct(&self, command_type: &str) -> Option<Value> {
        command_type.starts_with("drill.").then(|| json!({}))
    }

    fn check(&self, evidence: &Evidence) -> Vec<String> {
        let mut violations = Vec::new();
        let expected = moved(evidence);
        let balances = evidence.documents.iter().filter(|document| document.view == "balances");
        let mut total = 0;
        for document in balances {
            let value = document.value.as_deref().and_then(|it| serde_json::from_str(it).ok());
            let balance = value.and_then(|it: Value| it["balance"].as_i64());
            let Some(balance) = balance else {
                violations.push(format!("balances/{} has no balance", document.key));
                continue;
            };
            total += balance;
            if balance < 0 {
                violations.push(format!("balances/{} is overdrawn: {balance}", document.key));
            }
        }
        if total != expected {
            violations.push(format!(
                "money is not conserved: the accounts hold {total}, {expected} were paid in and \
                 not out"
            ));
        }
        violations
    }
}

/// A task that may fail.
fn drill(dice: &mut Dice) -> Value {
    let (fails, fatal) = match dice.below(100) {
        0..60 => (0, false),
        60..82 => (1 + dice.below(3), false),
        // More often than it is tried.
        82..92 => (4 + dice.below(6), false),
        _ => (0, true),
    };
    json!({
        "type": if dice.happens(6_000) { "drill.run_in_order" } else { "drill.run" },
        "stream": format!("drill/{}", 1 + dice.below(DRILLS)),
        "payload": { "fails": fails, "fatal": fatal, "poisons": dice.happens(400) },
    })
}

/// What all commands that succeeded paid in and out.
fn moved(evidence: &Evidence) -> i64 {
    let succeeded = evidence.outcomes.iter().filter(|outcome| outcome.status == 1);
    let succeeded: BTreeSet<Uuid> = succeeded.map(|outcome| outcome.command).collect();
    let commands = evidence.commands.iter().filter(|it| succeeded.contains(&it.id));
    commands
        .filter_map(|command| {
            let payload: Value = serde_json::from_str(&command.payload).ok()?;
            let amount = payload["amount"].as_i64()?;
            Some(if command.command_type == "account.withdraw" { -amount } else { amount })
        })
        .sum()
}

/// The view `turnover`: how much went in and out of all accounts whose ids begin alike.
#[derive(Default)]
struct Turnover;

/// A document of the view.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Moved {
    deposited: i64,
    withdrawn: i64,
    movements: u64,
}

impl Projection for Turnover {
    const NAME: &'static str = "turnover";
    const SCOPE: Scope = Scope::Shared;
    type View = Moved;

    fn events(&self) -> EventSelection {
        EventSelection::of::<Account>()
    }

    fn keys(&self, event: &EventRecord) -> Vec<String> {
        let all = "all".to_owned();
        vec![all, event.stream.id().chars().take(1).collect()]
    }

    fn apply(
        &self,
        _: &str,
        view: &mut Option<Moved>,
        event: &EventRecord,
    ) -> Result<(), ProjectionError> {
        let moved = view.get_or_insert_default();
        match event.get::<AccountEvent>() {
            Some(AccountEvent::Deposited(event)) => moved.deposited += event.amount,
            Some(AccountEvent::Withdrawn(event)) => moved.withdrawn += event.amount,
            _ => return Ok(()),
        }
        moved.movements += 1;
        Ok(())
    }
}
