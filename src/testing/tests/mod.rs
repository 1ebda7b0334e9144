//! That the kit's assertions fail when they should, and say why.

mod aggregates;
mod domain;
mod golden_files;
mod replays;
mod views;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The message of an assertion that must fail.
#[track_caller]
fn failure<T>(assertion: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(assertion)) {
        Ok(_) => panic!("the assertion holds, and must not"),
        Err(panic) => *panic.downcast::<String>().expect("a message"),
    }
}

/// Asserts that a message holds these parts, in this order.
#[track_caller]
fn says(message: &str, parts: &[&str]) {
    let mut rest = message;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in:\n{message}"));
        rest = &rest[at + part.len()..];
    }
}
