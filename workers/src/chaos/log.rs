//! What clients sent and what they were told: in memory for the check, and line by line in a file
//! for people.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use uuid::Uuid;

use super::{clients::Command, error::ChaosError};

/// By which door a command went in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// `POST /v1/commands`.
    Http,
    /// The queue of the AMQP intake; accepted means confirmed by the broker.
    Amqp,
}

/// What a client was told about one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is accepted and will end.
    Accepted,
    /// Nothing was accepted; why, in the service's words.
    Refused(String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

/// What all answers together mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Some attempt was accepted.
    Accepted,
    /// Every attempt was refused.
    Refused,
    /// Neither.
    Unknown,
}

/// A command in the log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What was sent.
    pub command: Command,
    /// Who sent it.
    pub client: usize,
    /// By which door.
    pub door: Door,
    /// When it was first sent.
    pub sent: Instant,
    /// When it was first told accepted.
    pub accepted: Option<Instant>,
    attempts: u32,
    refused: u32,
    /// A final status that a lookup showed.
    pub shown: Option<String>,
}

impl Entry {
    /// What all answers together mean. An attempt without an answer leaves it open.
    pub(super) fn verdict(&self) -> Verdict {
        if self.accepted.is_some() {
            Verdict::Accepted
        } else if self.refused == self.attempts {
            Verdict::Refused
        } else {
            Verdict::Unknown
        }
    }
}

/// What a person did about a dead letter, and was told about it.
#[derive(Clone, Debug)]
pub(super) struct Acted {
    /// The letter.
    pub letter: Uuid,
    /// `retry` or `discard`.
    pub action: &'static str,
    /// The reason that was given, which is nobody else's.
    pub reason: String,
    /// It was told done.
    pub done: bool,
    /// It was told that somebody was first.
    pub taken: bool,
}

/// The log of all clients. Grows by an entry a command, which the rate and the length of the run
/// bound.
pub(super) struct Log {
    began: Instant,
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
    file: Mutex<BufWriter<File>>,
    accepted: AtomicU64,
    /// What clients saw that must not be.
    violations: Mutex<Vec<String>>,
    lookups: AtomicU64,
    /// What people were told about dead letters.
    acted: Mutex<Vec<Acted>>,
}

impl Log {
    /// An empty log in this file.
    pub(super) fn create(path: &Path) -> Result<Self, ChaosError> {
        let file = File::create(path).map_err(ChaosError::io(path.display().to_string()))?;
        Ok(Self {
            began: Instant::now(),
            path: path.to_owned(),
            entries: Mutex::default(),
            file: Mutex::new(BufWriter::new(file)),
            accepted: AtomicU64::new(0),
            violations: Mutex::default(),
            lookups: AtomicU64::new(0),
            acted: Mutex::default(),
        })
    }

    /// A command is about to be sent for the first time; answers its place in the log.
    pub(super) fn sends(&self, client: usize, door: Door, command: Command) -> usize {
        let mut entries = self.entries();
        let sent = Instant::now();
        let (accepted, shown) = (None, None);
        entries.push(Entry {
            command,
            client,
            door,
            sent,
            accepted,
            attempts: 0,
            refused: 0,
            shown,
        });
        entries.len() - 1
    }

    /// An attempt begins.
    pub(super) fn attempts(&self, place: usize) {
        if let Some(entry) = self.entries().get_mut(place) {
            entry.attempts += 1;
        }
    }

    /// An attempt was answered.
    pub(super) fn told(&self, place: usize, told: &Told) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(place) else { return };
        match told {
            Told::Accepted => {
                if entry.accepted.is_none() {
                    entry.accepted = Some(Instant::now());
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Told::Refused(_) => entry.refused += 1,
            Told::Unknown(_) => {}
        }
        let line = self.line(entry, told);
        drop(entries);
        self.write(&line);
    }

    fn write(&self, line: &serde_json::Value) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            // The check reads memory; a file that cannot be written is told and changes nothing.
            eprintln!("{}: {error}", self.path.display());
        }
    }

    fn line(&self, entry: &Entry, told: &Told) -> serde_json::Value {
        let (word, why) = match told {
            Told::Accepted => ("accepted", None),
            Told::Refused(why) => ("refused", Some(why)),
            Told::Unknown(why) => ("unknown", Some(why)),
        };
        json!({
            "at": self.began.elapsed().as_secs_f64(),
            "client": entry.client,
            "door": format!("{:?}", entry.door).to_lowercase(),
            "id": entry.command.id,
            "type": entry.command.kind.name(),
            "stream": entry.command.stream(),
            "amount": entry.command.amount,
            "told": word,
            "why": why,
        })
    }

    /// A person acted on a dead letter and was answered; also each time when the answer is none.
    pub(super) fn acts(&self, acted: &Acted, words: &str) {
        self.write(&json!({
            "at": self.began.elapsed().as_secs_f64(),
            "letter": acted.letter,
            "action": acted.action,
            "reason": acted.reason,
            "done": acted.done,
            "taken": acted.taken,
            "told": words.chars().take(200).collect::<String>(),
        }));
        if acted.done || acted.taken {
            let mut all = self.acted.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(acted.clone());
        }
    }

    /// What people were told.
    pub(super) fn acted(&self) -> Vec<Acted> {
        self.acted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A lookup showed that a command has ended so.
    pub(super) fn shows(&self, place: usize, status: &str) {
        if let Some(entry) = self.entries().get_mut(place) {
            entry.shown = Some(status.to_owned());
        }
    }

    /// A lookup was answered.
    pub(super) fn looked_up(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lookups were answered.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// A client saw something that must not be.
    pub(super) fn violated(&self, words: String) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }

    /// How many commands were told accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Everything, and what clients saw that must not be. Writes out the file.
    pub(super) fn finish(&self) -> Result<(Vec<Entry>, Vec<String>), ChaosError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().map_err(ChaosError::io(self.path.display().to_string()))?;
        let violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok((self.entries().clone(), violations))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the run lasts so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
