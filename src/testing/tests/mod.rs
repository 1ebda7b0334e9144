//! That the kit's assertions fail when they should, and say why.

mod aggregates;
mod domain;
mod golden_files;
mod replays;
mod schemas;
mod views;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

/// The message of an assertion that must fail.
#[track_caller]
fn failure<T>(assertion: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(assertion)) {
        Ok(_) => panic!("the assertion holds, and must not"),
        Err(panic) => *panic.downcast::<String>().expect("a message"),
    }
}

/// Files and lines of the panics in `code`.
fn lines_of_failures(code: impl FnOnce()) -> Vec<(String, u32)> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let (seen, thread) = (found.clone(), std::thread::current().id());
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Assertions carry a text of their own, bugs of the domain under test a literal.
        if std::thread::current().id() == thread && panic.payload().is::<String>() {
            let place = panic.location().unwrap();
            seen.lock().unwrap().push((place.file().to_owned(), place.line()));
        }
    }));
    code();
    std::panic::set_hook(before);
    std::mem::take(&mut *found.lock().unwrap())
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
