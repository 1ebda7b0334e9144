//! Why a request was refused: a stable code for programs, a sentence for people. Free of HTTP types,
//! because the AMQP intake refuses with the same words.

use serde::Serialize;

use crate::domain::RuleViolation;

macro_rules! problem_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $status:literal, $title:literal;)+) => {
        /// Every reason for which a request is refused. Codes never change their meaning; new ones
        /// may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ProblemCode {
            /// Every code, in the order of their statuses: what the documentation's table shows.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable code, for example `rule_violation`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The HTTP status that goes with it (`not_available` also comes as 404).
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// A short title, the same for every occurrence (RFC 9457, section 3.1.3).
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }

            /// When it occurs, for the documentation's table.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

problem_codes! {
    /// The body is not JSON in UTF-8, is nested too deeply, or holds a number that is out of range.
    MalformedJson = "malformed_json", 400, "The body is not JSON";
    /// A field is unknown, missing or of the wrong type.
    InvalidField = "invalid_field", 400, "A field is unknown, missing or of the wrong type";
    /// The payload does not have the fields or types of its command type.
    InvalidPayload = "invalid_payload", 400, "The payload does not fit its type";
    /// A query or path parameter is unknown or has a value that is not allowed.
    InvalidParameter = "invalid_parameter", 400, "A parameter is not allowed";
    /// A request header has a value that is not allowed.
    InvalidHeader = "invalid_header", 400, "A header is not allowed";
    /// An `Idempotency-Key` came with an `id` that is not the one derived from it.
    IdempotencyKeyMismatch = "idempotency_key_mismatch", 400, "The id is not that of the idempotency key";
    /// No bearer token came, or one that is not known.
    Unauthenticated = "unauthenticated", 401, "A valid bearer token is needed";
    /// The token lacks the role that the call needs.
    Forbidden = "forbidden", 403, "The token lacks a role";
    /// Nothing is served at this path.
    NotFound = "not_found", 404, "There is nothing here";
    /// No command has this id.
    CommandNotFound = "command_not_found", 404, "There is no such command";
    /// The service has no view of this name.
    UnknownView = "unknown_view", 404, "There is no such view";
    /// The view has no document with this key.
    DocumentNotFound = "document_not_found", 404, "There is no such document";
    /// The service has no command or event of this type.
    UnknownType = "unknown_type", 404, "There is no such message type";
    /// The service has no aggregate of this type.
    UnknownAggregate = "unknown_aggregate", 404, "There is no such aggregate type";
    /// No dead letter has this id.
    DeadLetterNotFound = "dead_letter_not_found", 404, "There is no such dead letter";
    /// No job has this id.
    JobNotFound = "job_not_found", 404, "There is no such job";
    /// No recurring command has this name.
    RecurringNotFound = "recurring_not_found", 404, "There is no such recurring command";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here";
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    /// Another command with other content holds this id or idempotency key.
    IdConflict = "id_conflict", 409, "The id is taken by a command with other content";
    /// The command has ended, and cannot be cancelled; `detail` says what can be done instead.
    AlreadyEnded = "already_ended", 409, "The command has ended";
    /// The command was cancelled before, by somebody or because its `not_after` had passed.
    AlreadyCancelled = "already_cancelled", 409, "The command was cancelled before";
    /// The dead letter was retried before; once is all. If it died again, another dead letter says so.
    AlreadyRetried = "already_retried", 409, "The dead letter was retried before";
    /// The dead letter was discarded before.
    AlreadyDiscarded = "already_discarded", 409, "The dead letter was discarded before";
    /// What the dead letter is about is not dead (any more), or not kept any more.
    NothingToRetry = "nothing_to_retry", 409, "There is nothing to retry";
    /// The job has ended and cannot be cancelled.
    JobEnded = "job_ended", 409, "The job has ended";
    /// Others changed the same thing at the same time, again and again; nothing was done.
    ChangedMeanwhile = "changed_meanwhile", 409, "It was changed meanwhile";
    /// What is to be changed is not (any more) as `If-Match` or `If-None-Match` says; nothing was done.
    PreconditionFailed = "precondition_failed", 412, "It is not as expected";
    /// The body, or a line of a batch, is larger than allowed.
    TooLarge = "too_large", 413, "The body is too large";
    /// A batch has more lines than allowed.
    TooManyLines = "too_many_lines", 413, "The batch has too many lines";
    /// The body is not declared as the media type that is read here.
    UnsupportedMediaType = "unsupported_media_type", 415, "The media type is not supported";
    /// This release does not serve it yet; nothing was done.
    NotAvailable = "not_available", 422, "This is not available yet";
    /// A command has a `callback_url`, but no secret is configured with which callbacks are signed.
    CallbacksNotConfigured = "callbacks_not_configured", 422, "The service does not call back";
    /// No aggregate of this service takes a command of this type.
    UnknownCommandType = "unknown_command_type", 422, "The command type is not known";
    /// The stream is not well-formed, or it is one of another aggregate type.
    WrongStream = "wrong_stream", 422, "The stream does not fit the command";
    /// A text or key holds the character U+0000, which cannot be stored.
    TextWithNul = "text_with_nul", 422, "A text holds U+0000";
    /// One or more values break their rules; `errors` names all of them.
    RuleViolation = "rule_violation", 422, "Values break their rules";
    /// A cron expression or a time zone cannot be read, or no date fits; the detail says what to write.
    InvalidSchedule = "invalid_schedule", 422, "The schedule does not say when";
    /// The store can never store one of the values.
    Unstorable = "unstorable", 422, "A value cannot be stored";
    /// The caller sends faster than its rate allows; nothing was accepted.
    RateLimited = "rate_limited", 429, "Too many commands";
    /// Something unexpected went wrong in this service.
    Internal = "internal", 500, "Something went wrong";
    /// The store's answer was lost and it could not be asked again in time: repeat the command with
    /// the same `id` to learn what became of it. The only refusal that may have been accepted.
    AcceptanceUnknown = "acceptance_unknown", 500, "It is not known whether the command was accepted";
    /// Too much is waiting; nothing was accepted.
    Overloaded = "overloaded", 503, "There is no room at the moment";
    /// The broker does not take what waits for it; nothing was accepted.
    OutboxFull = "outbox_full", 503, "The outbox is full";
    /// The store cannot be reached; nothing was accepted.
    Unavailable = "unavailable", 503, "The store cannot be reached";
    /// This process is stopping; nothing was accepted.
    Stopping = "stopping", 503, "This process is stopping";
    /// The store's answer was lost: it is not known whether it was done. Look, or ask again: nothing is
    /// done twice.
    ActionUnknown = "action_unknown", 503, "It is not known whether it was done";
    /// The view has not applied the position in the time given.
    NotApplied = "not_applied", 504, "The view has not applied the position yet";
    /// The position lies in a part of the document that is parked: an event before it, or it, could
    /// not be applied, and waits for a person.
    Parked = "parked", 504, "The key is parked";
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why, for programs.
    pub code: ProblemCode,
    /// The HTTP status; the code's own unless said otherwise.
    pub status: u16,
    /// What exactly, for people.
    pub detail: String,
    /// The places that are wrong, if there are any.
    pub errors: Vec<RuleViolation>,
    /// After how many seconds it is worth trying again.
    pub retry_after: Option<u32>,
    /// The command it is about, where the caller needs to know.
    pub id: Option<crate::message::CommandId>,
}

impl Problem {
    /// A refusal with the status of its code; those that pass ask for a retry after a second.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let status = code.status();
        let passes = matches!(status, 429 | 503) || code == ProblemCode::AcceptanceUnknown;
        Self {
            code,
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: passes.then_some(1),
            id: None,
        }
    }

    /// Names the places that are wrong.
    #[must_use]
    pub fn with_errors(self, errors: Vec<RuleViolation>) -> Self {
        Self { errors, ..self }
    }

    /// Names one place that is wrong.
    #[must_use]
    pub fn at(mut self, pointer: &str, rule: &str) -> Self {
        let message = self.detail.clone();
        self.errors.push(RuleViolation { pointer: pointer.into(), rule: rule.into(), message });
        self
    }

    /// Names the command.
    #[must_use]
    pub fn about(self, id: crate::message::CommandId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// A feature that is not delivered yet, asked for by a field.
    pub fn not_available(pointer: &str, what: &str) -> Self {
        Self::new(ProblemCode::NotAvailable, format!("{what} is not available in this release"))
            .at(pointer, "not_available")
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Problem {}

/// RFC 9457; `code`, `errors` and `id` are extension members.
impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [RuleViolation],
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<crate::message::CommandId>,
        }
        let shape = Shape {
            kind: &format!("urn:adjutant:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.status,
            code: self.code.as_str(),
            detail: &self.detail,
            errors: &self.errors,
            id: self.id,
        };
        shape.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut codes: Vec<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
    }

    #[test]
    fn a_problem_is_written_as_rfc_9457_says() {
        let problem = Problem::new(ProblemCode::WrongStream, "no slash").at("/stream", "stream");
        let expected = serde_json::json!({
            "type": "urn:adjutant:problem:wrong_stream",
            "title": "The stream does not fit the command",
            "status": 422,
            "code": "wrong_stream",
            "detail": "no slash",
            "errors": [{ "pointer": "/stream", "rule": "stream", "message": "no slash" }],
        });
        assert_eq!(serde_json::to_value(&problem).unwrap(), expected);
    }
}
