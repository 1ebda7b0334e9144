//! The checks themselves, on logs and tables that are made up: each kind of damage is found, and
//! nothing else.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Violations,
    dead_letters::DeadLetters,
    money, order,
    stored::{Outcome, Record, Stored},
    told,
};
use crate::chaos::{
    clients::{Command, Kind},
    log::{Door, Entry, Log, Told},
    random::Draw,
};

/// What clients sent and were told, and what is stored.
struct Story {
    log: Log,
    file: std::path::PathBuf,
    rows: HashMap<Uuid, Record>,
    letters: Vec<(Uuid, String)>,
    version: i64,
}

impl Drop for Story {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

const RUN: Outcome = Outcome { status: 1, version: 0, events: 1 };
const REJECTED: Outcome = Outcome { status: 2, version: 0, events: 0 };

impl Story {
    fn new() -> Self {
        let name = format!("bank-chaos-log-{}", Uuid::new_v4().simple());
        let file = std::env::temp_dir().join(name);
        let log = Log::create(&file).unwrap();
        Self { log, file, rows: HashMap::new(), letters: Vec::new(), version: 0 }
    }

    /// Sends a command; answers its id.
    fn sends(&self, kind: Kind, door: Door, told: &[Told]) -> Uuid {
        let command = Command::new(kind, "acc-1", &mut Draw::of(1, "test", 0));
        let id = command.id;
        let place = self.log.sends(0, door, command);
        for told in told {
            self.log.attempts(place);
            self.log.told(place, told);
        }
        // Clocks may be coarse, and what comes next comes later.
        let now = Instant::now();
        while now.elapsed() < Duration::from_micros(5) {}
        id
    }

    /// Stores it as it was sent; succeeded ones count the version on.
    fn stores(&mut self, id: Uuid, outcomes: &[Outcome]) {
        let entry = self.entry(id);
        let outcomes = outcomes.iter().map(|outcome| {
            self.version += i64::from(outcome.events);
            Outcome { version: self.version, ..*outcome }
        });
        let record = Record {
            kind: entry.command.kind.name().to_owned(),
            stream: entry.command.stream(),
            payload: entry.command.payload(),
            outcomes: outcomes.collect(),
        };
        self.rows.insert(id, record);
    }

    fn entry(&self, id: Uuid) -> Entry {
        self.entries().into_iter().find(|entry| entry.command.id == id).unwrap()
    }

    fn entries(&self) -> Vec<Entry> {
        self.log.finish().unwrap().0
    }

    /// The kinds of violations.
    fn found(&self, balance: Option<i64>) -> Vec<&'static str> {
        let (entries, stored) = (self.entries(), Stored::of(self.rows.clone()));
        let letters = DeadLetters::of(self.letters.clone());
        let mut violations = Violations::default();
        told::check(&entries, &stored, &letters, &mut violations);
        order::check(&entries, &stored, &mut violations);
        if let Some(balance) = balance {
            let shown = HashMap::from([("acc-1".to_owned(), balance)]);
            money::compare(&money::moved(&entries, &stored), &shown, &mut violations);
        }
        violations.kinds().map(|(kind, ..)| kind).collect()
    }
}

fn refused() -> Told {
    Told::Refused("503".into())
}

fn unknown() -> Told {
    Told::Unknown("no answer".into())
}

#[test]
fn a_history_in_which_everything_went_well_has_no_violation() {
    let mut story = Story::new();
    let deposit = story.sends(Kind::Deposit, Door::Http, &[refused(), unknown(), Told::Accepted]);
    story.stores(deposit, &[RUN]);
    let amount = story.entry(deposit).command.amount;
    let overdraft = story.sends(Kind::Overdraft, Door::Http, &[Told::Accepted]);
    story.stores(overdraft, &[REJECTED]);
    let nobody_knows = story.sends(Kind::Deposit, Door::Http, &[unknown()]);
    story.stores(nobody_knows, &[RUN]);
    let twice = amount + story.entry(nobody_knows).command.amount;
    story.sends(Kind::Deposit, Door::Amqp, &[unknown()]);
    story.sends(Kind::Deposit, Door::Http, &[refused(), refused()]);
    story.sends(Kind::BreaksRules, Door::Http, &[refused()]);
    let poison = story.sends(Kind::UnknownType, Door::Amqp, &[Told::Accepted]);
    story.letters.push((poison, "unknown_command_type".into()));
    assert_eq!(story.found(Some(twice)), [""; 0]);
}

#[test]
fn what_was_accepted_must_be_there_with_exactly_one_outcome() {
    let story = Story::new();
    story.sends(Kind::Deposit, Door::Amqp, &[Told::Accepted]);
    assert_eq!(story.found(None), ["accepted command lost"]);

    let story_of = |outcomes: &[Outcome]| {
        let mut story = Story::new();
        let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
        story.stores(id, outcomes);
        story.found(None)
    };
    assert_eq!(story_of(&[]), ["not exactly one outcome"]);
    assert_eq!(story_of(&[RUN, RUN]), ["not exactly one outcome"]);
    assert_eq!(story_of(&[REJECTED]), ["wrong outcome"], "a deposit succeeds");
    assert_eq!(story_of(&[Outcome { status: 3, ..REJECTED }]), ["wrong outcome"], "dead");
}

#[test]
fn what_was_refused_each_time_must_not_be_there() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[refused(), refused()]);
    story.stores(id, &[RUN]);
    assert_eq!(story.found(None), ["refused command executed"]);
}

#[test]
fn what_nobody_knows_of_must_have_ended_if_it_is_there() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[refused(), unknown()]);
    story.stores(id, &[]);
    assert_eq!(story.found(None), ["not exactly one outcome"]);
}

#[test]
fn poison_ends_in_the_dead_letters_and_nothing_else_does() {
    let story = Story::new();
    story.sends(Kind::BreaksRules, Door::Amqp, &[Told::Accepted]);
    assert_eq!(story.found(None), ["poison vanished"]);

    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Amqp, &[Told::Accepted]);
    story.stores(id, &[RUN]);
    story.letters.push((id, "delivery_limit".into()));
    assert_eq!(story.found(None), ["dead letter without poison"]);

    let story = Story::new();
    story.sends(Kind::BreaksRules, Door::Http, &[Told::Accepted]);
    assert_eq!(story.found(None), ["poison accepted"]);
}

#[test]
fn what_was_sent_after_an_acceptance_must_run_later() {
    let mut story = Story::new();
    let first = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    let second = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    story.stores(first, &[RUN]);
    assert_eq!(story.found(None), ["order broken"]);

    let mut story = Story::new();
    let first = story.sends(Kind::Deposit, Door::Http, &[unknown()]);
    let second = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    story.stores(first, &[RUN]);
    assert_eq!(story.found(None), [""; 0], "the first was not known to be accepted");
}

#[test]
fn money_content_and_strangers_are_looked_at() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.stores(id, &[RUN]);
    let amount = story.entry(id).command.amount;
    assert_eq!(story.found(Some(amount)), [""; 0]);
    assert_eq!(story.found(Some(amount + 1)), ["money not conserved"]);

    if let Some(record) = story.rows.get_mut(&id) {
        record.payload = serde_json::json!({ "amount": amount + 1 });
    }
    assert_eq!(story.found(None), ["other content"]);

    let mut story = Story::new();
    let other = Story::new();
    let stranger = other.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    let record = Record {
        kind: String::new(),
        stream: String::new(),
        payload: serde_json::Value::Null,
        outcomes: vec![RUN],
    };
    story.rows.insert(stranger, record);
    assert_eq!(story.found(None), ["command of nobody"]);
}

#[test]
fn a_lookup_that_showed_another_ending_is_told() {
    let mut story = Story::new();
    let id = story.sends(Kind::Withdrawal, Door::Http, &[Told::Accepted]);
    story.stores(id, &[RUN]);
    story.log.shows(0, "rejected");
    assert_eq!(story.found(None), ["outcome replaced"]);
}
