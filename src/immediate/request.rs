//! A command as Rust code writes it.

use serde::Serialize;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;

use crate::{
    domain::{Aggregate, MessageSet},
    ingress::{Origin, Problem, ProblemCode, Validator},
    message::{CommandId, Metadata, Timestamp, Version},
    store::NewCommand,
};

/// A command to an aggregate, with what else a sender may say of it. It is checked as one that
/// comes by HTTP.
#[derive(Clone, Debug)]
pub struct Request<A: Aggregate> {
    id: Option<CommandId>,
    stream_id: String,
    command: A::Command,
    expected_version: Option<Version>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    callback_url: Option<String>,
    metadata: Metadata,
}

/// The lane as a sender names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantedLane {
    Queued,
    Immediate,
    ImmediateOrQueued,
}

impl<A: Aggregate> Request<A> {
    /// A command to the aggregate with this id: the stream `{A::TYPE}/{id}`.
    pub fn new(id: impl Into<String>, command: A::Command) -> Self {
        Self {
            id: None,
            stream_id: id.into(),
            command,
            expected_version: None,
            not_before: None,
            not_after: None,
            callback_url: None,
            metadata: Metadata::default(),
        }
    }

    /// Its id: sent again with the same one, it is the same command.
    #[must_use]
    pub fn id(self, id: CommandId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// It is rejected if its stream is not at this version.
    #[must_use]
    pub fn expected_version(self, version: Version) -> Self {
        Self { expected_version: Some(version), ..self }
    }

    /// It is not started before.
    #[must_use]
    pub fn not_before(self, time: Timestamp) -> Self {
        Self { not_before: Some(time), ..self }
    }

    /// It is not started after: it ends as `cancelled`.
    #[must_use]
    pub fn not_after(self, time: Timestamp) -> Self {
        Self { not_after: Some(time), ..self }
    }

    /// Where it is sent when it has ended.
    #[must_use]
    pub fn callback_url(self, url: impl Into<String>) -> Self {
        Self { callback_url: Some(url.into()), ..self }
    }

    /// Who asks, and on which trail.
    #[must_use]
    pub fn metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// Checks it as the ingress does.
    pub(super) fn check(
        &self,
        validator: &Validator,
        lane: WantedLane,
    ) -> Result<NewCommand, Problem> {
        let wrong = |error: &dyn std::fmt::Display| {
            Problem::new(ProblemCode::InvalidPayload, error.to_string()).at("/payload", "json")
        };
        let payload = self.command.encode().map_err(|error| wrong(&error))?;
        let payload = RawValue::from_string(payload.as_str().to_owned());
        let time = |time: Option<Timestamp>| time.and_then(|time| time.format(&Rfc3339).ok());
        let draft = Draft {
            id: self.id,
            command_type: format!("{}.{}", A::TYPE, self.command.kind().name),
            stream: format!("{}/{}", A::TYPE, self.stream_id),
            payload: payload.map_err(|error| wrong(&error))?,
            lane: match lane {
                WantedLane::Queued => "queued",
                WantedLane::Immediate => "immediate",
                WantedLane::ImmediateOrQueued => "immediate-or-queued",
            },
            expected_version: self.expected_version.map(|version| version.0),
            not_before: time(self.not_before),
            not_after: time(self.not_after),
            callback_url: self.callback_url.as_deref(),
            metadata: &self.metadata,
        };
        let json = serde_json::to_vec(&draft).map_err(|error| wrong(&error))?;
        validator.check(&json, &Origin::default())
    }
}

/// The body of `POST /v1/commands`.
#[derive(Serialize)]
struct Draft<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<CommandId>,
    #[serde(rename = "type")]
    command_type: String,
    stream: String,
    payload: Box<RawValue>,
    lane: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: &'a Metadata,
}
