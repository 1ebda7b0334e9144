//! What came of a command.

use std::{collections::BTreeSet, fmt::Debug};

use serde_json::Value;

use super::{
    EventList, Given, diff,
    diff::fail,
    subject::{Ended, violation_line},
    wire::{shown, survives},
};
use crate::{domain::Aggregate, message::RawJson};

/// What came of a command: each assertion panics at the caller's line if it does not hold, and
/// may be followed by others, and by the next command.
pub struct Then<A: Aggregate> {
    given: Given<A>,
    command: String,
    ended: Ended<A>,
}

impl<A: Aggregate> Then<A> {
    pub(super) fn new(given: Given<A>, command: String, ended: Ended<A>) -> Self {
        Self { given, command, ended }
    }

    /// It succeeded, with exactly these events.
    #[track_caller]
    pub fn then_events(self, events: impl EventList<A::Event>) -> Self {
        let expected: Result<Vec<_>, _> =
            events.into_events().iter().map(|event| survives(A::TYPE, event)).collect();
        let expected = match expected {
            Ok(expected) => shown(&expected),
            Err(reason) => fail(&format!("expected: the event {reason}")),
        };
        let Ended::Succeeded(happened) = &self.ended else {
            self.wrong(&format!("had to succeed with these events:\n{}", diff::pretty(&expected)));
        };
        let actual = shown(&happened.events);
        if actual != expected {
            let diff = diff::json(&expected, &actual);
            fail(&format!("{} brought about other events:\n{diff}", self.subject()));
        }
        self
    }

    /// It succeeded, and nothing happened.
    #[track_caller]
    pub fn then_no_events(self) -> Self {
        self.then_events([])
    }

    /// It succeeded with this reply, compared as JSON.
    #[track_caller]
    pub fn then_reply(self, reply: A::Reply) -> Self {
        let expected = match RawJson::encode(&reply) {
            Ok(expected) => expected.to_value(),
            Err(error) => fail(&format!("expected: the reply cannot be encoded: {error}")),
        };
        let Ended::Succeeded(happened) = &self.ended else {
            self.wrong(&format!("had to succeed with the reply {}", diff::pretty(&expected)));
        };
        let actual = happened.reply.as_ref().map_or(Value::Null, RawJson::to_value);
        if actual != expected {
            let diff = diff::json(&expected, &actual);
            fail(&format!("{} has another reply:\n{diff}", self.subject()));
        }
        self
    }

    /// The aggregate rejected it with this code. `version_conflict` is the code of a command that
    /// expected another version.
    #[track_caller]
    pub fn then_rejected(self, code: &str) -> Self {
        match &self.ended {
            Ended::Rejected(failure, _) if failure.code == code => self,
            Ended::Rejected(failure, _) => {
                let diff = diff::lines(code, &failure.code);
                let (subject, message) = (self.subject(), &failure.message);
                fail(&format!("{subject} was rejected with another code:\n{diff}({message})"))
            }
            _ => self.wrong(&format!("had to be rejected with the code `{code}`")),
        }
    }

    /// The aggregate rejected it with this error.
    #[track_caller]
    pub fn then_error(self, expected: A::Error) -> Self
    where
        A::Error: PartialEq + Debug,
    {
        match &self.ended {
            Ended::Rejected(_, Some(error)) if *error == expected => self,
            Ended::Rejected(_, Some(error)) => {
                let diff = diff::lines(&format!("{expected:#?}"), &format!("{error:#?}"));
                fail(&format!("{} was rejected with another error:\n{diff}", self.subject()))
            }
            _ => self.wrong(&format!("had to be rejected with {expected:?}")),
        }
    }

    /// The aggregate rejected it with an error of which this is true.
    #[track_caller]
    pub fn then_rejected_with(self, is_it: impl FnOnce(&A::Error) -> bool) -> Self {
        match &self.ended {
            Ended::Rejected(_, Some(error)) if is_it(error) => self,
            Ended::Rejected(..) => self.wrong("had to be rejected with another error"),
            _ => self.wrong("had to be rejected"),
        }
    }

    /// The command's rules refuse it, at exactly these places of the payload (JSON pointers,
    /// RFC 6901): `["/amount"]`.
    #[track_caller]
    pub fn then_invalid<P: Into<String>>(self, pointers: impl IntoIterator<Item = P>) -> Self {
        let expected: BTreeSet<String> = pointers.into_iter().map(Into::into).collect();
        let Ended::Invalid(broken) = &self.ended else {
            let pointers: Vec<_> = expected.into_iter().collect();
            self.wrong(&format!("had to be refused as invalid at {}", pointers.join(", ")));
        };
        let actual: BTreeSet<String> = broken.iter().map(|one| one.pointer.clone()).collect();
        if actual != expected {
            let lines = |pointers: &BTreeSet<String>| {
                pointers.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
            };
            let rules: Vec<_> = broken.iter().map(violation_line).collect();
            let diff = diff::lines(&lines(&expected), &lines(&actual));
            let (subject, rules) = (self.subject(), rules.join("\n"));
            fail(&format!("{subject} breaks rules at other places:\n{diff}{rules}"));
        }
        self
    }

    /// It failed with this code, and a worker would try it again
    /// ([`FailureKind::Retryable`](crate::domain::FailureKind)).
    #[track_caller]
    pub fn then_retryable(self, code: &str) -> Self {
        match &self.ended {
            Ended::Retryable(failure) if failure.code == code => self,
            _ => self.wrong(&format!("had to fail with the code `{code}`, to be tried again")),
        }
    }

    /// A worker would write it off with this code: the aggregate's own
    /// ([`FailureKind::Fatal`](crate::domain::FailureKind)), `handler_panicked` (once its retries
    /// are exhausted), `unencodable_event`, `unencodable_reply`, `unstorable` (an event or reply
    /// holds the character U+0000).
    #[track_caller]
    pub fn then_dead(self, code: &str) -> Self {
        match &self.ended {
            Ended::Dead(failure) if failure.code == code => self,
            _ => self.wrong(&format!("had to be dead with the code `{code}`")),
        }
    }

    /// The stream has this version now: the number of its events.
    #[track_caller]
    pub fn then_version(self, version: i64) -> Self {
        let actual = self.given.subject().version.0;
        if actual != version {
            let diff = diff::lines(&version.to_string(), &actual.to_string());
            fail(&format!("{} leaves the stream at another version:\n{diff}", self.subject()));
        }
        self
    }

    /// The next command.
    #[track_caller]
    pub fn when(self, command: impl Into<A::Command>) -> Then<A> {
        self.given.when(command)
    }

    /// The stream as it is now, for another time, other metadata, or events from elsewhere.
    pub fn and(self) -> Given<A> {
        self.given
    }

    fn subject(&self) -> String {
        format!("`{}` on {}", self.command, self.given.subject().stream)
    }

    #[track_caller]
    fn wrong(&self, expected: &str) -> ! {
        let (subject, actual) = (self.subject(), self.ended.shown());
        fail(&format!("{subject} {expected}\nbut {actual}"))
    }
}
