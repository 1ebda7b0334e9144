//! The checks themselves, on logs and tables that are made up: each kind of damage is found, and
//! nothing else.

mod cancelling;
mod failures;
mod lanes;
mod promises;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Violations, attempts, cancellations,
    cancelled::{Cancellation, Cancelled},
    dead_letters::DeadLetters,
    deadlines, deaths, drills,
    failed::{Action, Attempt, Failed, Letter, PastDeath},
    money, order, people,
    stored::{Outcome, Record, Says, Stored},
    told,
};
use crate::chaos::{
    clients::{Command, Kind},
    log::{Acted, CancelTold, Door, Ended, Entry, Log, Told},
    random::Draw,
};

/// What clients sent and were told, and what is stored.
struct Story {
    log: Log,
    file: std::path::PathBuf,
    rows: HashMap<Uuid, Record>,
    letters: Vec<(Uuid, String)>,
    failed: Failed,
    cancelled: Cancelled,
    acted: Vec<Acted>,
    version: i64,
}

impl Drop for Story {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// When everything ended that is made up.
const NOON: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const RUN: Outcome = Outcome { status: 1, version: 0, events: 1, attempts: 1, completed_at: NOON };
const REJECTED: Outcome = Outcome { status: 2, events: 0, ..RUN };

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
            cancelled: Cancelled::default(),
            acted: Vec::new(),
            version: 0,
        }
    }

    /// Sends a command; answers its id.
    fn sends(&self, kind: Kind, door: Door, told: &[Told]) -> Uuid {
        self.sends_this(Command::new(kind, "acc-1", &mut Draw::of(1, "test", 0)), door, told)
    }

    /// Sends this command, always to the same process.
    fn sends_this(&self, command: Command, door: Door, told: &[Told]) -> Uuid {
        let id = command.id;
        let place = self.log.sends(0, door, command);
        for told in told {
            self.log.attempts(place, 0);
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
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|outcome| {
                self.version += i64::from(outcome.events);
                Outcome { version: self.version, ..*outcome }
            })
            .collect();
        let record = Record {
            kind: entry.command.kind.name().to_owned(),
            stream: entry.command.stream(),
            payload: entry.command.payload(),
            accepted_at: NOON,
            not_before: entry.command.times.not_before,
            not_after: entry.command.times.not_after,
            first_offset: i64::try_from(self.rows.len()).ok(),
            own_events: outcomes.iter().map(|outcome| i64::from(outcome.events)).sum(),
            outcomes,
            says: Says::default(),
        };
        self.rows.insert(id, record);
    }

    /// Accepts a drill, which ended so after attempts that failed with these codes.
    fn drills(&mut self, kind: Kind, amount: i64, codes: &[&str], outcome: Outcome) -> Uuid {
        let mut command = Command::new(kind, "d-1", &mut Draw::of(1, "test", 0));
        (command.amount, command.id) = (amount, Uuid::now_v7());
        let id = command.id;
        let place = self.log.sends(0, Door::Http, command);
        self.log.attempts(place, 0);
        self.log.told(place, &Told::Accepted);
        let attempts = (1..).zip(codes).map(|(attempt, code)| Attempt {
            command: id,
            number: attempt,
            code: Some((*code).to_owned()),
            failed_at: NOON,
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

    /// What is stored of a command.
    fn record(&mut self, id: Uuid) -> &mut Record {
        self.rows.get_mut(&id).unwrap()
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
        order::check_seen(&entries, &stored, &mut violations);
        order::check_strict(&entries, &stored, &mut violations);
        let (wishes, cancelled) = (self.log.wishes(), &self.cancelled);
        cancellations::check(&entries, &wishes, &stored, &self.failed, cancelled, &mut violations);
        deadlines::check(&entries, &stored, &self.failed, &mut violations);
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

/// As a client was shown it.
fn ended(status: &str, version: i64) -> Ended {
    Ended {
        status: status.into(),
        positions: Vec::new(),
        version,
        attempts: 1,
        reply: serde_json::Value::Null,
        code: None,
    }
}
