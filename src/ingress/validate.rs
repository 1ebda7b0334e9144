//! From untrusted bytes to a command that may be accepted, or a problem. Everything that can be
//! known before the database is asked is checked here, so that a refused command costs no
//! transaction and an accepted one cannot fail its neighbours in a batch.

use std::sync::Arc;

use serde_json::{Value, value::RawValue};

use super::{
    Problem, ProblemCode,
    draft::{Draft, LaneWord, json_problem, utf8},
    trace,
};
#[cfg(feature = "webhooks")]
use crate::webhook::{CallbackTarget, InvalidTarget, TargetRules};
use crate::{
    domain::{AggregateType, DecodeError, Registry, RuleViolation},
    message::{
        CommandContent, CommandId, Lane, Metadata, RawJson, ReplyAddress, StreamId, Timestamp,
        Version,
    },
    store::{NewCommand, WhenDue},
};

/// What is known of a command besides its body.
#[derive(Clone, Debug, Default)]
pub struct Origin<'a> {
    /// The id that the body must have if it has any (an idempotency key, an AMQP message id).
    pub id: Option<CommandId>,
    /// A `traceparent` as it came with the request; ignored if it is not valid.
    pub traceparent: Option<&'a str>,
    /// Where the outcome is sent besides the database.
    pub reply_to: Option<ReplyAddress>,
}

/// Checks commands against what the service knows. Cheap to clone.
#[derive(Clone)]
pub struct Validator {
    registry: Arc<Registry>,
    immediate_lane: bool,
    #[cfg(feature = "webhooks")]
    callbacks: Option<TargetRules>,
}

impl Validator {
    /// For the types of this registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            immediate_lane: false,
            #[cfg(feature = "webhooks")]
            callbacks: None,
        }
    }

    /// For a process that has the immediate lane; without it, commands for it are refused.
    #[must_use]
    pub fn with_immediate_lane(self, immediate_lane: bool) -> Self {
        Self { immediate_lane, ..self }
    }

    /// Takes a `callback_url` that keeps these rules; without them, none.
    #[cfg(feature = "webhooks")]
    #[must_use]
    pub fn with_callbacks(self, callbacks: Option<TargetRules>) -> Self {
        Self { callbacks, ..self }
    }

    /// Reads and checks one command in JSON.
    pub fn check(&self, json: &[u8], origin: &Origin<'_>) -> Result<NewCommand, Problem> {
        self.check_draft(Draft::read(utf8(json)?)?, origin)
    }

    /// Checks one command that was decoded already (from MessagePack, say).
    pub fn check_value(&self, value: &Value, origin: &Origin<'_>) -> Result<NewCommand, Problem> {
        let text = serde_json::to_string(value).map_err(|error| json_problem(&error))?;
        self.check(text.as_bytes(), origin)
    }

    /// Checks a payload alone: one that corrects a command of this type.
    pub fn check_payload(
        &self,
        command_type: &str,
        payload: &RawValue,
    ) -> Result<RawJson, Problem> {
        let value: Value = serde_json::from_str(payload.get())
            .map_err(|error| json_problem(&error).at("/payload", "json"))?;
        let aggregate = self.aggregate_of(command_type)?;
        let mut found = Findings::default();
        found.nul_in_payload(payload.get(), &value);
        let payload = RawJson::from_trusted(payload.get().to_owned());
        found.payload_rules(aggregate.as_ref(), command_type, &payload)?;
        found.refuse()?;
        Ok(payload)
    }

    fn check_draft(&self, draft: Draft<'_>, origin: &Origin<'_>) -> Result<NewCommand, Problem> {
        let id = decide_id(draft.id, origin.id)?;
        self.refuse_what_is_not_delivered(&draft)?;
        let payload_value: Value = serde_json::from_str(draft.payload.get())
            .map_err(|error| json_problem(&error).at("/payload", "json"))?;
        let aggregate = self.aggregate_of(&draft.command_type)?;
        let mut metadata = draft.metadata.unwrap_or_default();

        let mut found = Findings::default();
        let stream = found.stream(&draft.stream, aggregate.as_ref());
        found.metadata(&metadata);
        found.expected_version(draft.expected_version);
        found.deadline(draft.not_before, draft.not_after);
        let callback_url = self.callback_url(draft.callback_url.as_deref(), &mut found)?;
        found.nul_in_payload(draft.payload.get(), &payload_value);
        let payload = RawJson::from_trusted(draft.payload.get().to_owned());
        found.payload_rules(aggregate.as_ref(), &draft.command_type, &payload)?;
        found.refuse()?;
        let stream = stream.ok_or_else(|| internal("a stream was neither read nor refused"))?;

        let expected_version = draft.expected_version.map(Version);
        let content = CommandContent {
            command_type: &draft.command_type,
            stream: &stream,
            payload: &payload_value,
            not_before: draft.not_before,
            not_after: draft.not_after,
            expected_version,
        };
        let content_hash = content.hash().map_err(|error| internal(&error.to_string()))?;
        if metadata.traceparent.is_none() {
            metadata.traceparent = Some(traceparent(origin.traceparent));
        }
        Ok(NewCommand {
            id,
            command_type: draft.command_type.into_owned(),
            stream,
            payload,
            metadata,
            lane: match draft.lane {
                Some(LaneWord::Immediate | LaneWord::ImmediateOrQueued) if self.immediate_lane => {
                    Lane::Immediate
                }
                _ => Lane::Queued,
            },
            expected_version,
            not_before: draft.not_before,
            content_hash,
            reply_to: origin.reply_to.clone(),
            not_after: draft.not_after,
            callback_url,
            or_queued: draft.lane == Some(LaneWord::ImmediateOrQueued),
            held_by: None,
            when_due: WhenDue::Log,
        })
    }

    /// Nothing is accepted and ignored.
    fn refuse_what_is_not_delivered(&self, draft: &Draft<'_>) -> Result<(), Problem> {
        let immediate = matches!(draft.lane, Some(LaneWord::Immediate));
        if immediate && !self.immediate_lane {
            return Err(Problem::not_available("/lane", "the immediate lane of this process"));
        }
        Ok(())
    }

    #[cfg(feature = "webhooks")]
    fn callback_url(
        &self,
        given: Option<&str>,
        found: &mut Findings,
    ) -> Result<Option<String>, Problem> {
        let Some(given) = given else { return Ok(None) };
        let rules = self.callbacks.ok_or_else(no_callbacks)?;
        match CallbackTarget::check(given, rules) {
            Ok(target) => Ok(Some(target.as_str().to_owned())),
            Err(broken) => {
                for InvalidTarget { rule, message } in broken {
                    let pointer = "/callback_url".to_owned();
                    found.add(ProblemCode::RuleViolation, pointer, rule, message);
                }
                Ok(None)
            }
        }
    }

    #[cfg(not(feature = "webhooks"))]
    #[expect(clippy::unused_self, reason = "the same call, whatever was built in")]
    fn callback_url(
        &self,
        given: Option<&str>,
        _: &mut Findings,
    ) -> Result<Option<String>, Problem> {
        given.map_or(Ok(None), |_| Err(no_callbacks()))
    }

    fn aggregate_of(&self, command_type: &str) -> Result<&Arc<dyn AggregateType>, Problem> {
        self.registry.aggregate_of_command(command_type).ok_or_else(|| {
            let detail = format!("`{command_type}` is no command type of this service");
            Problem::new(ProblemCode::UnknownCommandType, detail).at("/type", "known")
        })
    }
}

fn decide_id(own: Option<CommandId>, given: Option<CommandId>) -> Result<CommandId, Problem> {
    match (own, given) {
        (Some(own), Some(given)) if own != given => Err(Problem::new(
            ProblemCode::IdempotencyKeyMismatch,
            format!("the key stands for the id {given}, but the command has the id {own}"),
        )
        .at("/id", "idempotency_key")),
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => Ok(CommandId::generate()),
    }
}

/// Nobody would sign and deliver it.
fn no_callbacks() -> Problem {
    let detail = "this service is not configured to call back: leave `callback_url` out, and ask for \
                  the command instead";
    Problem::new(ProblemCode::CallbacksNotConfigured, detail)
        .at("/callback_url", "callbacks_not_configured")
}

fn traceparent(given: Option<&str>) -> String {
    match given {
        Some(given) if trace::is_traceparent(given) => given.to_owned(),
        _ => trace::new_traceparent(),
    }
}

fn internal(detail: &str) -> Problem {
    Problem::new(ProblemCode::Internal, detail)
}

/// All that is wrong with the values of a command, so that the caller learns it at once.
#[derive(Default)]
struct Findings {
    errors: Vec<RuleViolation>,
    code: Option<ProblemCode>,
}

impl Findings {
    fn add(&mut self, code: ProblemCode, pointer: String, rule: &str, message: String) {
        self.code.get_or_insert(code);
        self.errors.push(RuleViolation { pointer, rule: rule.to_owned(), message });
    }

    /// Refuses if anything was found, with the code of the first finding.
    fn refuse(self) -> Result<(), Problem> {
        let Some(code) = self.code else { return Ok(()) };
        let detail = match self.errors.as_slice() {
            [only] => format!("{}: {}", only.pointer, only.message),
            more => format!("{} values are wrong; `errors` names them", more.len()),
        };
        Err(Problem::new(code, detail).with_errors(self.errors))
    }

    fn stream(&mut self, text: &str, aggregate: &dyn AggregateType) -> Option<StreamId> {
        if text.contains('\0') {
            self.nul("/stream".into());
            return None;
        }
        let wrong = |this: &mut Self, message| {
            this.add(ProblemCode::WrongStream, "/stream".into(), "stream", message);
        };
        match text.parse::<StreamId>() {
            Err(error) => wrong(self, error.to_string()),
            Ok(stream) if stream.aggregate_type() != aggregate.name() => wrong(
                self,
                format!(
                    "the command is one of `{}`, the stream is one of `{}`",
                    aggregate.name(),
                    stream.aggregate_type()
                ),
            ),
            Ok(stream) => return Some(stream),
        }
        None
    }

    fn metadata(&mut self, metadata: &Metadata) {
        for (name, value) in metadata.fields() {
            let pointer = format!("/metadata/{name}");
            let length = value.chars().count();
            if value.contains('\0') {
                self.nul(pointer);
            } else if !(1..=Metadata::MAX_FIELD).contains(&length) {
                let message =
                    format!("must have 1 to {} characters, has {length}", Metadata::MAX_FIELD);
                self.add(ProblemCode::RuleViolation, pointer, "length", message);
            } else if name == "traceparent" && !trace::is_traceparent(value) {
                let message = "must be a W3C traceparent".to_owned();
                self.add(ProblemCode::RuleViolation, pointer, "traceparent", message);
            }
        }
    }

    fn expected_version(&mut self, version: Option<i64>) {
        if version.is_some_and(|version| version < 0) {
            let message = "must be at least 0".to_owned();
            self.add(ProblemCode::RuleViolation, "/expected_version".into(), "range", message);
        }
    }

    fn deadline(&mut self, not_before: Option<Timestamp>, not_after: Option<Timestamp>) {
        if let (Some(not_before), Some(not_after)) = (not_before, not_after)
            && not_after < not_before
        {
            let message = "must not be before `not_before`".to_owned();
            self.add(ProblemCode::RuleViolation, "/not_after".into(), "order", message);
        }
    }

    fn nul_in_payload(&mut self, text: &str, value: &Value) {
        for pointer in RawJson::nul_pointers(text, value) {
            self.nul(format!("/payload{pointer}"));
        }
    }

    fn nul(&mut self, pointer: String) {
        let message = "must not hold the character U+0000".to_owned();
        self.add(ProblemCode::TextWithNul, pointer, "no_nul", message);
    }

    /// Reads the payload as its type; a payload of another shape is refused at once.
    fn payload_rules(
        &mut self,
        aggregate: &dyn AggregateType,
        command_type: &str,
        payload: &RawJson,
    ) -> Result<(), Problem> {
        let broken = aggregate.check(command_type, payload).map_err(|error| match error {
            DecodeError::Payload { .. } => {
                Problem::new(ProblemCode::InvalidPayload, error.to_string()).at("/payload", "type")
            }
            other => internal(&other.to_string()),
        })?;
        for violation in broken {
            let pointer = format!("/payload{}", violation.pointer);
            self.add(ProblemCode::RuleViolation, pointer, &violation.rule, violation.message);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
