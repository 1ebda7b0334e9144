//! Whether an aggregate can be replayed: what production does to it, done to generated histories.

use std::{
    cell::RefCell,
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::PathBuf,
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{TestCaseError, TestError},
};

use super::{
    diff::fail,
    generate::{commands, runner},
    golden::{self, Samples},
    history,
    wire::wire_name,
};
use crate::domain::{Aggregate, MessageSet};

/// The environment variable that sets the seed.
const SEED: &str = "ADJUTANT_SEED";

/// Asserts that `A` can be replayed, with commands generated from their JSON Schema
/// ([`commands`]), and golden files in `tests/golden`. See [`Replayable`] for what is checked, and
/// to set anything.
#[track_caller]
pub fn assert_replayable<A: Aggregate>() {
    Replayable::<A>::new().assert();
}

/// [`assert_replayable`] with commands of your own.
#[track_caller]
pub fn assert_replayable_with<A: Aggregate>(commands: impl Strategy<Value = A::Command> + 'static) {
    Replayable::<A>::new().commands(commands).assert();
}

/// Checks histories of generated commands:
///
/// - no command makes `decide` or `evolve` panic;
/// - the same command on the same state with the same context is decided the same again, also
///   after the state went through a snapshot;
/// - commands and events are the same after encoding and decoding;
/// - the state kept in memory, the state from all stored events, and the state from a snapshot at
///   any version and the events after it are one state (compared as the snapshot's content; the
///   order within lists is not, as a hash set has none);
/// - an event of each type and schema version in the golden files can still be read, and the
///   newest is still written the same.
///
/// A failure shows the smallest history found, and the seed to repeat it with (`ADJUTANT_SEED`).
///
/// Golden files stand in `{directory}/{wire name}/v{schema version}.json`. A test that misses some
/// says so; run once with `ADJUTANT_WRITE_GOLDEN=1` it writes them, with events of the generated
/// histories. Commit them, and never change one: it stands for what stores hold.
#[must_use = "nothing is checked before `assert`"]
pub struct Replayable<A: Aggregate> {
    commands: Option<BoxedStrategy<A::Command>>,
    histories: u32,
    most_commands: usize,
    seed: Option<u64>,
    golden: Option<PathBuf>,
}

impl<A: Aggregate> Default for Replayable<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Aggregate> Replayable<A> {
    /// 64 histories of at most 30 commands from their JSON Schema, a seed drawn at random,
    /// golden files in `tests/golden` of the package under test.
    pub fn new() -> Self {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
        Self {
            commands: None,
            histories: 64,
            most_commands: 30,
            seed: None,
            golden: Some(package.join("tests/golden")),
        }
    }

    /// Draws commands from this strategy. [`commands`] may be a part of it.
    pub fn commands(mut self, commands: impl Strategy<Value = A::Command> + 'static) -> Self {
        self.commands = Some(commands.boxed());
        self
    }

    /// How many histories are checked.
    pub fn histories(mut self, histories: u32) -> Self {
        self.histories = histories;
        self
    }

    /// How many commands a history has at most.
    pub fn most_commands(mut self, most: usize) -> Self {
        self.most_commands = most;
        self
    }

    /// The seed of all histories. Without it, `ADJUTANT_SEED`; without that, a random one.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Where golden files are.
    pub fn golden_files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.golden = Some(directory.into());
        self
    }

    /// Checks no golden files: for events that no store holds yet.
    pub fn no_golden_files(mut self) -> Self {
        self.golden = None;
        self
    }

    /// Checks all of it; panics (as an assertion) at what does not hold.
    #[track_caller]
    pub fn assert(self) {
        let seed = match self.seed.map_or_else(seed_from_environment, Ok) {
            Ok(seed) => seed,
            Err(reason) => fail(&reason),
        };
        let commands = match self.commands {
            Some(commands) => commands,
            None => commands::<A>(),
        };
        let samples = RefCell::new(Samples::default());
        let histories = vec(commands, 0..=self.most_commands);
        let run = runner(seed, self.histories).run(&histories, |history| {
            let events = super::wire::call("a rule or a codec", || history::check::<A>(&history));
            let events = events.and_then(|checked| checked).map_err(TestCaseError::fail)?;
            samples.borrow_mut().add(events);
            Ok(())
        });
        let name = A::TYPE;
        let repeat = format!("seed {seed}; repeat with {SEED}={seed}");
        match run {
            Ok(()) => {}
            Err(TestError::Fail(reason, history)) => {
                let listed = listed::<A>(&history);
                fail(&format!(
                    "`{name}` cannot be replayed ({repeat})\nthe smallest history found:\n{listed}\
                     {reason}"
                ))
            }
            Err(TestError::Abort(reason)) => {
                fail(&format!("no histories of `{name}` can be generated ({repeat}): {reason}"))
            }
        }
        if let Some(directory) = self.golden
            && let Err(reason) =
                golden::check::<A>(&directory, &samples.borrow(), golden::to_be_written())
        {
            fail(&format!("golden files of `{name}`:\n{reason}"));
        }
    }
}

fn seed_from_environment() -> Result<u64, String> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().map_err(|error| format!("{SEED}={text} is no seed: {error}")),
        Err(_) => Ok(RandomState::new().build_hasher().finish()),
    }
}

fn listed<A: Aggregate>(history: &[A::Command]) -> String {
    let mut text = String::new();
    for (nth, command) in (1..).zip(history) {
        let payload = command.encode();
        let payload = payload.map_or_else(|error| error.to_string(), |json| json.as_str().into());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {nth}. {} {payload}", wire_name(A::TYPE, command));
    }
    if history.is_empty() { "  (no commands)\n".to_owned() } else { text }
}
