//! What happened, as one number: every write to the store and every delivery goes into a hash, in
//! the order in which they took place. Two runs that agree in it did the same.

use std::fmt::{self, Write as _};

use xxhash_rust::xxh64::Xxh64;

/// Hashes steps; prints them, too, if asked to.
pub(super) struct Trace {
    hash: Xxh64,
    steps: u64,
    prints: bool,
}

/// Whatever is written to it is hashed, so that nothing has to be kept.
struct Hashing<'a>(&'a mut Xxh64);

impl fmt::Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// What a step was asked to do, before it is known when it takes place.
pub(super) struct Noted(String);

impl Noted {
    /// Notes a value by its `Debug` form.
    pub(super) fn of(value: &dyn fmt::Debug) -> Self {
        Self(format!("{value:?}"))
    }
}

impl Trace {
    pub(super) fn new(prints: bool) -> Self {
        Self { hash: Xxh64::new(0), steps: 0, prints }
    }

    /// A step that took place.
    pub(super) fn step(
        &mut self,
        at: u128,
        node: &str,
        what: &str,
        asked: &Noted,
        came: &dyn fmt::Debug,
    ) {
        self.steps += 1;
        // A hash takes everything that is written to it.
        let _ = write!(Hashing(&mut self.hash), "{at} {node} {what} {} {came:?}", asked.0);
        if self.prints {
            eprintln!("{at:>10} {node} {what} {} -> {came:?}", asked.0);
        }
    }

    /// Something that is no step of the services: a fault, an answer to a client.
    pub(super) fn remark(&mut self, at: u128, text: fmt::Arguments<'_>) {
        let _ = write!(Hashing(&mut self.hash), "{at} {text}");
        if self.prints {
            eprintln!("{at:>10} {text}");
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }
}
