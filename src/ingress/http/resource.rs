//! The command resource: what is known of a command.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::respond::{self, Raw};
use crate::{
    message::{CommandId, Failure, Lane, Outcome, Position, Timestamp, Version},
    store::{CommandRecord, CommandStatus, FailedAttempt},
};

/// A command and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Command)]
pub(super) struct CommandResource<'a> {
    #[schema(value_type = uuid::Uuid)]
    id: CommandId,
    /// The wire name.
    #[serde(rename = "type")]
    command_type: &'a str,
    stream: &'a str,
    lane: &'static str,
    /// `scheduled`, `accepted`, `waiting` (behind an earlier strict command of its stream),
    /// `retrying`, `succeeded`, `rejected`, `dead` or `cancelled`.
    status: &'static str,
    /// How often it was tried.
    attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// Not started before it.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    not_before: Option<Timestamp>,
    /// Not started after it: it ends as `cancelled` then, with the error `expired`.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    not_after: Option<Timestamp>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    completed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeResource<'a>>,
    /// The newest attempts that failed, newest first, at most 50. Not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<FailedAttemptResource<'a>>,
}

/// An attempt that failed.
#[derive(Serialize, ToSchema)]
#[schema(as = FailedAttempt)]
pub(super) struct FailedAttemptResource<'a> {
    /// Which one it was, counted from 1.
    attempt: i32,
    #[schema(value_type = FailureResource)]
    error: &'a Failure,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    failed_at: Timestamp,
    /// When the next one was due; absent: there was none.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_due_at: Option<Timestamp>,
}

impl<'a> FailedAttemptResource<'a> {
    pub(super) fn of(failed: &'a FailedAttempt) -> Self {
        let FailedAttempt { attempt, error, failed_at, next_due_at } = failed;
        Self { attempt: attempt.0, error, failed_at: *failed_at, next_due_at: *next_due_at }
    }
}

/// How a command ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Outcome)]
struct OutcomeResource<'a> {
    /// Where its events stand: `partition:offset`.
    #[schema(value_type = Vec<String>)]
    positions: &'a [Position],
    /// The stream's version afterwards.
    #[schema(value_type = i64)]
    version: Version,
    /// What the aggregate answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    reply: Option<Raw<'a>>,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FailureResource>)]
    error: Option<&'a Failure>,
}

/// Why a command did not succeed.
#[derive(ToSchema)]
#[schema(as = Failure)]
#[allow(dead_code)] // describes `Failure` to the contract
pub(super) struct FailureResource {
    /// A stable code.
    code: String,
    /// For people.
    message: String,
    /// What caused it, outermost first; absent if nothing is known.
    sources: Option<Vec<String>>,
}

/// What a resource is made of while its command may not be read back.
pub(super) struct Known<'a> {
    pub(super) id: CommandId,
    pub(super) command_type: &'a str,
    pub(super) stream: &'a str,
    pub(super) lane: Lane,
    pub(super) not_before: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) accepted_at: Timestamp,
}

/// A command as `GET /v1/commands/{id}` shows it: what a callback tells.
pub fn command_json(record: &CommandRecord) -> Result<bytes::Bytes, serde_json::Error> {
    serde_json::to_vec(&CommandResource::of(record)).map(Into::into)
}

impl<'a> CommandResource<'a> {
    /// Of a command that was accepted just now, with its outcome if that is known already.
    pub(super) fn of_known(known: &Known<'a>, outcome: Option<&'a Outcome>) -> Self {
        let scheduled = known.not_before.is_some_and(|due| due > known.accepted_at);
        let status = match outcome {
            Some(outcome) => CommandStatus::Ended(outcome.status),
            None if scheduled => CommandStatus::Scheduled,
            None => CommandStatus::Accepted,
        };
        Self {
            id: known.id,
            command_type: known.command_type,
            stream: known.stream,
            lane: match known.lane {
                Lane::Queued => "queued",
                Lane::Immediate => "immediate",
            },
            status: status.as_str(),
            attempts: outcome.map_or(0, |outcome| outcome.attempts),
            accepted_at: known.accepted_at,
            not_before: known.not_before,
            not_after: known.not_after,
            completed_at: outcome.map(|outcome| outcome.completed_at),
            outcome: outcome.map(|outcome| OutcomeResource {
                positions: &outcome.positions,
                version: outcome.version,
                reply: outcome.reply.as_ref().map(Raw),
                error: outcome.error.as_ref(),
            }),
            failures: Vec::new(),
        }
    }

    /// Of a command as the store has it.
    pub(super) fn of(record: &'a CommandRecord) -> Self {
        let known = Known {
            id: record.id,
            command_type: &record.command_type,
            stream: record.stream.as_str(),
            lane: record.lane,
            not_before: record.not_before,
            not_after: record.not_after,
            accepted_at: record.accepted_at,
        };
        let status = record.status().as_str();
        let attempts =
            record.outcome.as_ref().map_or(record.failed_attempts, |outcome| outcome.attempts);
        let failures = record.failures.iter().map(FailedAttemptResource::of).collect();
        let known = Self::of_known(&known, record.outcome.as_ref());
        Self { status, attempts, failures, ..known }
    }

    /// Its status.
    pub(super) fn status(&self) -> &'static str {
        self.status
    }

    /// How often it was tried.
    pub(super) fn attempts(&self) -> i32 {
        self.attempts
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// The answer to a submission: 200 with an outcome, else 202.
    pub(super) fn submitted(&self, replay: bool) -> Response {
        let status = if self.has_ended() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut response = respond::json(status, self);
        let headers = response.headers_mut();
        if let Ok(location) = HeaderValue::try_from(format!("/v1/commands/{}", self.id)) {
            headers.insert(header::LOCATION, location);
        }
        if replay {
            headers.insert("idempotent-replay", HeaderValue::from_static("true"));
        }
        response
    }
}
