//! What the views of an account should hold, folded from the JSON of its events. Balances are
//! summed up here from the amounts; the balances that events carry are compared with the sums.

use serde_json::{Value, json};
use time::OffsetDateTime;

/// An event as it is stored.
pub(super) struct Event {
    pub(super) partition: i64,
    pub(super) offset: i64,
    pub(super) stream: String,
    pub(super) version: i64,
    pub(super) kind: String,
    pub(super) schema_version: i64,
    pub(super) data: Value,
    pub(super) recorded_at: OffsetDateTime,
}

impl Event {
    pub(super) fn account(&self) -> &str {
        self.stream.strip_prefix("account/").unwrap_or(&self.stream)
    }
}

/// An account, folded so far.
pub(super) struct Folded {
    owner: String,
    balance: i64,
    entries: i64,
    status: &'static str,
}

/// The entry of a statement, but for its time.
pub(super) struct Entry {
    kind: &'static str,
    amount: i64,
    balance: i64,
}

impl Folded {
    pub(super) fn new() -> Self {
        Self { owner: String::new(), balance: 0, entries: 0, status: "unopened" }
    }

    /// Folds the next event; answers its entry, or what is wrong with it.
    pub(super) fn fold(&mut self, event: &Event) -> Result<Entry, String> {
        if event.schema_version != 1 {
            return Err(format!("{} has schema version {}", event.kind, event.schema_version));
        }
        let number = |field: &str| {
            let value = event.data.get(field).and_then(Value::as_i64);
            value.ok_or_else(|| format!("{} has no number `{field}`", event.kind))
        };
        match event.kind.as_str() {
            "account.opened" => {
                self.follows("unopened", event)?;
                let owner = event.data.get("owner").and_then(Value::as_str);
                owner.ok_or("account.opened has no owner")?.clone_into(&mut self.owner);
                self.status = "open";
                Ok(Entry { kind: "opened", amount: 0, balance: 0 })
            }
            "account.deposited" => {
                let amount = number("amount")?;
                self.moves(amount, event)?;
                self.carries(number("balance")?)?;
                Ok(Entry { kind: "deposited", amount, balance: self.balance })
            }
            "account.withdrawn" => {
                let amount = number("amount")?;
                self.moves(-amount, event)?;
                self.carries(number("balance")?)?;
                Ok(Entry { kind: "withdrawn", amount, balance: self.balance })
            }
            "account.closed" => {
                self.follows("open", event)?;
                self.status = "closed";
                Ok(Entry { kind: "closed", amount: 0, balance: 0 })
            }
            other => Err(format!("{other} is no event of an account")),
        }
    }

    fn moves(&mut self, amount: i64, event: &Event) -> Result<(), String> {
        self.follows("open", event)?;
        self.entries += 1;
        self.balance = self.balance.checked_add(amount).ok_or("the balance overflows")?;
        if self.balance < 0 {
            Err(format!("the balance falls to {}", self.balance))
        } else {
            Ok(())
        }
    }

    fn carries(&self, balance: i64) -> Result<(), String> {
        if balance == self.balance {
            return Ok(());
        }
        Err(format!("the event says the balance is {balance}, the amounts say {}", self.balance))
    }

    fn follows(&self, status: &str, event: &Event) -> Result<(), String> {
        if self.status == status {
            return Ok(());
        }
        Err(format!("{} of an account that is {}", event.kind, self.status))
    }

    /// The document of the view `balances`, where all events were applied.
    #[cfg(test)]
    pub(super) fn balance_document(&self) -> Value {
        json!({
            "owner": self.owner, "balance": self.balance,
            "entries": self.entries, "status": self.status,
        })
    }
}

/// The document of the view `balances`, of the events that were applied to it: all of them, unless
/// the account is parked there or an event was discarded.
pub(super) struct BalanceDocument {
    owner: String,
    balance: i64,
    entries: i64,
    status: &'static str,
    /// How many events were applied.
    pub(super) changes: i64,
}

impl BalanceDocument {
    pub(super) fn new() -> Self {
        Self { owner: String::new(), balance: 0, entries: 0, status: "unopened", changes: 0 }
    }

    /// Applies an event that was folded just now.
    pub(super) fn apply(&mut self, event: &Event, folded: &Folded) {
        self.changes += 1;
        match event.kind.as_str() {
            "account.opened" => {
                self.owner.clone_from(&folded.owner);
                self.status = "open";
            }
            "account.deposited" | "account.withdrawn" => {
                self.balance = folded.balance;
                self.entries += 1;
            }
            _ => self.status = folded.status,
        }
    }

    pub(super) fn value(&self) -> Value {
        json!({
            "owner": self.owner, "balance": self.balance,
            "entries": self.entries, "status": self.status,
        })
    }
}

impl Entry {
    /// The document of the view `statements`, without `at`.
    pub(super) fn document(&self) -> Value {
        json!({ "kind": self.kind, "amount": self.amount, "balance": self.balance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, data: Value) -> Event {
        Event {
            partition: 0,
            offset: 1,
            stream: "account/a".into(),
            version: 1,
            kind: kind.into(),
            schema_version: 1,
            data,
            recorded_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_sum_of_the_amounts_is_the_balance() {
        let mut folded = Folded::new();
        folded.fold(&event("account.opened", json!({ "owner": "Ada" }))).unwrap();
        folded.fold(&event("account.deposited", json!({ "amount": 5, "balance": 5 }))).unwrap();
        let entry =
            folded.fold(&event("account.withdrawn", json!({ "amount": 2, "balance": 3 }))).unwrap();
        assert_eq!(entry.document(), json!({ "kind": "withdrawn", "amount": 2, "balance": 3 }));
        let expected = json!({ "owner": "Ada", "balance": 3, "entries": 2, "status": "open" });
        assert_eq!(folded.balance_document(), expected);
    }

    #[test]
    fn a_balance_without_a_discarded_event_follows_the_ones_that_were_applied() {
        let mut folded = Folded::new();
        let mut document = BalanceDocument::new();
        for (kind, data, is_applied) in [
            ("account.opened", json!({ "owner": "Ada" }), true),
            ("account.deposited", json!({ "amount": 5, "balance": 5 }), false),
            ("account.withdrawn", json!({ "amount": 2, "balance": 3 }), true),
            ("account.closed", json!({}), false),
        ] {
            let event = event(kind, data);
            folded.fold(&event).unwrap();
            if is_applied {
                document.apply(&event, &folded);
            }
        }
        let expected = json!({ "owner": "Ada", "balance": 3, "entries": 1, "status": "open" });
        assert_eq!((document.value(), document.changes), (expected, 2));
    }

    #[test]
    fn an_event_that_contradicts_the_ones_before_is_told() {
        let mut folded = Folded::new();
        let early = folded.fold(&event("account.deposited", json!({ "amount": 5, "balance": 5 })));
        assert!(early.err().unwrap().contains("unopened"));
        folded.fold(&event("account.opened", json!({ "owner": "Ada" }))).unwrap();
        let wrong = folded.fold(&event("account.deposited", json!({ "amount": 5, "balance": 6 })));
        assert!(wrong.err().unwrap().contains("the amounts say 5"));
        let below = folded.fold(&event("account.withdrawn", json!({ "amount": 9, "balance": 0 })));
        assert!(below.err().unwrap().contains("falls to -4"));
    }
}
