//! What clients sent and what they were told: in memory for the check, and line by line in a file
//! for people.

mod entry;
mod wishes;

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

pub(super) use entry::{Asked, Door, Ended, Entry, Told, Verdict};
pub(super) use wishes::{Acted, CalledOff, CalledOffAll, CancelTold};

use super::{clients::Command, error::ChaosError};

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
    /// What people and clients asked for besides, and were told about it.
    wishes: Mutex<Wishes>,
}

/// Everything that was asked for besides commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// About dead letters; those that were answered.
    pub acted: Vec<Acted>,
    /// About commands that were called off, answered or not.
    pub called_off: Vec<CalledOff>,
    /// The same, all of a stream at once.
    pub called_off_all: Vec<CalledOffAll>,
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
            wishes: Mutex::default(),
        })
    }

    /// A command is about to be sent for the first time; answers its place in the log.
    pub(super) fn sends(&self, client: usize, door: Door, command: Command) -> usize {
        let mut entries = self.entries();
        entries.push(Entry::new(command, client, door));
        entries.len() - 1
    }

    /// An attempt begins, with this one of the APIs (or of the doors).
    pub(super) fn attempts(&self, place: usize, api: usize) {
        if let Some(entry) = self.entries().get_mut(place) {
            entry.attempts += 1;
            entry.asked = entry.asked.and(api);
        }
    }

    /// An attempt was answered.
    pub(super) fn told(&self, place: usize, told: &Told) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(place) else { return };
        if told.is_acceptance() && entry.accepted.is_none() {
            entry.accepted = Some(Instant::now());
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
        match told {
            Told::Ended(ended) => {
                entry.answered_with_end = true;
                entry.shows(*ended.clone());
            }
            Told::Refused(_) => entry.refused += 1,
            Told::Accepted | Told::Unknown(_) => {}
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
            Told::Ended(ended) => ("ended", Some(&ended.status)),
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
            "way": format!("{:?}", entry.command.way),
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
            self.wishes_mut().acted.push(acted.clone());
        }
    }

    /// Somebody calls a command off; answers the place of the wish.
    pub(super) fn calls_off(&self, command: Uuid, reason: &str) -> usize {
        let reason = reason.to_owned();
        let mut wishes = self.wishes_mut();
        wishes.called_off.push(CalledOff { command, reason, told: CancelTold::Unknown });
        wishes.called_off.len() - 1
    }

    /// Who called a command off was answered.
    pub(super) fn told_of_wish(&self, place: usize, told: CancelTold, words: &str) {
        let mut wishes = self.wishes_mut();
        let Some(wish) = wishes.called_off.get_mut(place) else { return };
        wish.told = told;
        let line = json!({
            "at": self.began.elapsed().as_secs_f64(),
            "called_off": wish.command,
            "reason": wish.reason,
            "told": format!("{told:?}"),
            "why": words.chars().take(200).collect::<String>(),
        });
        drop(wishes);
        self.write(&line);
    }

    /// Somebody called off all of a stream, and was answered or not.
    pub(super) fn called_off_all(&self, wish: CalledOffAll, words: &str) {
        self.write(&json!({
            "at": self.began.elapsed().as_secs_f64(),
            "called_off_all": wish.stream,
            "reason": wish.reason,
            "job": wish.job,
            "told": words.chars().take(200).collect::<String>(),
        }));
        self.wishes_mut().called_off_all.push(wish);
    }

    /// What was asked for besides commands.
    pub(super) fn wishes(&self) -> Wishes {
        self.wishes_mut().clone()
    }

    fn wishes_mut(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lookup showed that a command has ended so.
    pub(super) fn shows(&self, place: usize, ended: &Ended) {
        if let Some(entry) = self.entries().get_mut(place) {
            entry.shows(ended.clone());
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
