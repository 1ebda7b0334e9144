//! The checks themselves, on logs and tables that are made up: each kind of damage is found, and
//! nothing else.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Violations, attempts,
    dead_letters::DeadLetters,
    deaths, drills,
    failed::{Action, Attempt, Failed, Letter, PastDeath},
    money, order, people,
    stored::{Outcome, Record, Stored},
    told,
};
use crate::chaos::{
    clients::{Command, Kind},
    log::{Acted, Door, Entry, Log, Told},
    random::Draw,
};

/// What clients sent and were told, and what is stored.
struct Story {
    log: Log,
    file: std::path::PathBuf,
    rows: HashMap<Uuid, Record>,
    letters: Vec<(Uuid, String)>,
    failed: Failed,
    acted: Vec<Acted>,
    version: i64,
}

impl Drop for Story {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

const RUN: Outcome = Outcome { status: 1, version: 0, events: 1, attempts: 1 };
const REJECTED: Outcome = Outcome { status: 2, version: 0, events: 0, attempts: 1 };

impl Story {
    fn new() -> Self {
        let name = format!("bank-chaos-log-{}", Uuid::new_v4().simple());
        let file = std::env::temp_dir().join(name);
        let log = Log::create(&file).unwrap();
        Self {
            log,
            file,
            rows: HashMap::new(),
            letters: Vec::new(),
            failed: Failed::default(),
            acted: Vec::new(),
            version: 0,
        }
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
            first_offset: i64::try_from(self.rows.len()).ok(),
            outcomes: outcomes.collect(),
        };
        self.rows.insert(id, record);
    }

    /// Accepts a drill, which ended so after attempts that failed with these codes.
    fn drills(&mut self, kind: Kind, amount: i64, codes: &[&str], outcome: Outcome) -> Uuid {
        let mut command = Command::new(kind, "d-1", &mut Draw::of(1, "test", 0));
        (command.amount, command.id) = (amount, Uuid::now_v7());
        let id = command.id;
        let place = self.log.sends(0, Door::Http, command);
        self.log.attempts(place);
        self.log.told(place, &Told::Accepted);
        let attempts = (1..).zip(codes).map(|(attempt, code)| Attempt {
            command: id,
            number: attempt,
            code: Some((*code).to_owned()),
        });
        self.failed.attempts.insert(id, attempts.collect());
        self.stores(id, &[outcome]);
        if outcome.status == 1 && kind != Kind::Poisons {
            *self.failed.drills.entry("d-1".into()).or_default() += 1;
        }
        id
    }

    /// A letter of a command (kind 1) or of a parked key (2), and what was done with it.
    fn letter(&mut self, kind: i16, command: Uuid, attempts: i32, state: i16, done: &[&str]) {
        let id = Uuid::now_v7();
        let codes = self.failed.attempts.get(&command);
        let last = codes.and_then(|all| all.iter().find(|it| it.number == attempts));
        let code = last.and_then(|attempt| attempt.code.clone());
        self.failed.letters.push(Letter {
            id,
            kind,
            key: "drill/d-1".into(),
            command,
            attempts,
            state,
            code,
        });
        for action in done {
            let (word, reason) = ((*action).to_owned(), Some(format!("of {id}")));
            self.failed.actions.push(Action { letter: id, word, reason });
        }
        let reason = format!("of {id}");
        self.acted.push(Acted { letter: id, action: "", reason, done: true, taken: false });
    }

    /// A death that was taken back.
    fn came_back(&mut self, command: Uuid, attempts: i32) {
        let deaths = self.failed.past_deaths.entry(command).or_default();
        deaths.push(PastDeath { command, attempts });
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
        told::check(&entries, &stored, &self.failed, &letters, &mut violations);
        order::check(&entries, &stored, &self.failed, &mut violations);
        order::check_strict(&entries, &stored, &mut violations);
        attempts::check(&entries, &stored, &self.failed, &mut violations);
        deaths::check(&entries, &stored, &self.failed, &mut violations);
        people::check(&self.acted, &stored, &self.failed, &mut violations);
        drills::check(&entries, &stored, &self.failed, &mut violations);
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
    assert_eq!(
        story_of(&[Outcome { status: 3, attempts: 0, ..REJECTED }]),
        ["death without a dead letter", "wrong outcome"]
    );
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
    // Its attempt took too long, and the second overtook it.
    let code = Some("timed_out".to_owned());
    let attempt = Attempt { command: first, number: 1, code };
    story.failed.attempts.insert(first, vec![attempt]);
    if let Some(outcome) = story.rows.get_mut(&first).and_then(|it| it.outcomes.first_mut()) {
        outcome.attempts = 2;
    }
    assert_eq!(story.found(None), [""; 0]);

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
        first_offset: None,
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

const FAILS: &str = "drill_fails";
const FATAL: &str = "drill_fatal";

fn after(attempts: i32) -> Outcome {
    Outcome { attempts, ..RUN }
}

fn dead_after(attempts: i32) -> Outcome {
    Outcome { status: 3, attempts, ..REJECTED }
}

#[test]
fn failures_that_went_as_they_must_have_no_violation() {
    let mut story = Story::new();
    story.drills(Kind::Flaky, 2, &[FAILS, FAILS], after(3));
    story.drills(Kind::Flaky, 1, &[FAILS, "timed_out"], after(3));
    let exhausted = story.drills(Kind::Exhausted, 1_000, &[FAILS; 4], dead_after(4));
    story.letter(1, exhausted, 4, 4, &["discard"]);
    let fatal = story.drills(Kind::Fatal, 0, &[FATAL], after(2));
    story.came_back(fatal, 1);
    story.letter(1, fatal, 1, 3, &["retry_edited"]);
    let aborts = story.drills(Kind::Aborts, 0, &["crashed"], dead_after(1));
    story.letter(1, aborts, 1, 4, &["discard"]);
    let poisons = story.drills(Kind::Poisons, 0, &[], after(1));
    story.letter(2, poisons, 3, 3, &["retry"]);
    story.letter(2, poisons, 4, 4, &["discard"]);
    assert_eq!(story.found(None), [""; 0]);
}

#[test]
fn attempts_are_as_many_as_a_command_wanted() {
    let found = |kind, fails, codes: &[&str], outcome| {
        let mut story = Story::new();
        story.drills(kind, fails, codes, outcome);
        story.found(None)
    };
    assert_eq!(found(Kind::Flaky, 2, &[FAILS], after(2)), ["succeeded too early"]);
    assert_eq!(found(Kind::Flaky, 1, &[FAILS, FAILS], after(3)), ["failed for a wrong reason"]);
    assert_eq!(found(Kind::Flaky, 1, &[FAILS], after(3)), ["attempts with a gap"]);
    assert_eq!(found(Kind::Slow, 20, &["crashed"], after(2)), ["failed for a wrong reason"]);
}

#[test]
fn a_death_has_one_letter_and_only_what_must_die_does() {
    let mut story = Story::new();
    story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
    assert_eq!(story.found(None), ["death without a dead letter", "did not die as it must"]);

    let mut story = Story::new();
    let id = story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    story.letter(1, id, 1, 4, &["discard"]);
    assert_eq!(story.found(None), ["dead letter of no death"]);

    let mut story = Story::new();
    let id = story.drills(Kind::Exhausted, 1_000, &[FAILS], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    assert_eq!(story.found(None), ["did not die as it must"], "before its time");

    let mut story = Story::new();
    let id = story.drills(Kind::Slow, 20, &["crashed"], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    assert_eq!(
        story.found(None),
        ["died without being meant to", "failed for a wrong reason", "wrong outcome"]
    );
}

#[test]
fn what_a_person_was_told_is_in_the_audit_once() {
    let found = |state, done: &[&str]| {
        let mut story = Story::new();
        let id = story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
        story.letter(1, id, 1, state, done);
        story.found(None)
    };
    assert_eq!(found(4, &["discard"]), [""; 0]);
    assert_eq!(found(4, &["discard", "discard"]), ["dead letter not done with once"]);
    assert_eq!(found(1, &["discard"]), ["dead letter not done with once"], "still open");
    let neither = ["a person was told something else", "dead letter not done with once"];
    assert_eq!(found(4, &[]), neither);
    let mut story = Story::new();
    let id = story.drills(Kind::Fatal, 0, &[FATAL], dead_after(1));
    story.letter(1, id, 1, 4, &["discard"]);
    let Some(acted) = story.acted.first_mut() else { panic!("nobody acted") };
    acted.reason = "of somebody else".into();
    assert_eq!(story.found(None), ["a person was told something else"]);
}

#[test]
fn poison_is_parked_and_the_view_shows_the_rest() {
    let mut story = Story::new();
    story.drills(Kind::Poisons, 0, &[], after(1));
    assert_eq!(story.found(None), ["poison was not parked"]);

    let mut story = Story::new();
    let id = story.drills(Kind::InOrder, 0, &[], after(1));
    story.letter(2, id, 3, 4, &["discard"]);
    assert_eq!(story.found(None), ["parked without poison"]);

    let mut story = Story::new();
    story.drills(Kind::InOrder, 0, &[], after(1));
    story.failed.drills.insert("d-1".into(), 2);
    assert_eq!(story.found(None), ["the view of drills is wrong"]);
}

#[test]
fn strict_drills_run_as_they_stand_in_the_log() {
    let mut story = Story::new();
    let first = story.drills(Kind::InOrder, 0, &[], after(1));
    story.drills(Kind::InOrderFlaky, 1, &[FAILS], after(2));
    assert_eq!(story.found(None), [""; 0]);
    if let Some(record) = story.rows.get_mut(&first) {
        record.first_offset = Some(7);
    }
    assert_eq!(story.found(None), ["strict order broken"]);

    let mut story = Story::new();
    let first = story.sends(Kind::InOrder, Door::Http, &[Told::Accepted]);
    let second = story.sends(Kind::InOrder, Door::Http, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    story.stores(first, &[RUN]);
    story.failed.drills.insert("acc-1".into(), 2);
    assert_eq!(story.found(None), ["order broken"]);
}
