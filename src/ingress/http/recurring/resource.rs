//! The recurring command as a resource.

use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::super::respond::Raw;
use crate::{
    message::{CommandId, Lane, Metadata, Timestamp, Version},
    recurring::Schedule,
    store::{CommandTemplate, RecurringCommand},
};

/// How many due times are shown.
const UPCOMING: usize = 5;

/// A recurring command, and when it is due.
#[derive(Serialize, ToSchema)]
#[schema(as = Recurring)]
pub(super) struct RecurringResource<'a> {
    name: &'a str,
    cron: &'a str,
    /// A name of the IANA database.
    time_zone: &'a str,
    /// `skip`, `once` or `all`.
    missed_runs: &'static str,
    command: TemplateResource<'a>,
    /// `active` or `paused`.
    state: &'static str,
    /// How often a person has changed it, from 1.
    revision: i64,
    /// Null: it is paused, or never due again.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_due_at: Option<Timestamp>,
    /// The next five due times. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    upcoming: Option<Vec<String>>,
    /// How many runs were sent.
    runs: i64,
    /// How many due times passed without a run of their own, up to 10,000 at a time.
    missed: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_due_at: Option<Timestamp>,
    /// The command of the last run: `GET /v1/commands/{id}`.
    #[schema(value_type = Option<uuid::Uuid>)]
    last_command_id: Option<CommandId>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    changed_at: Timestamp,
    changed_by: &'a str,
}

/// The command that each run sends.
#[derive(Serialize, ToSchema)]
#[schema(as = RecurringTemplate)]
struct TemplateResource<'a> {
    #[serde(rename = "type")]
    command_type: &'a str,
    stream: &'a str,
    #[schema(value_type = serde_json::Value)]
    payload: Raw<'a>,
    lane: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    expected_version: Option<Version>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    #[schema(value_type = Option<Object>)]
    metadata: &'a Metadata,
}

impl<'a> RecurringResource<'a> {
    /// With its next due times.
    pub(super) fn of(recurring: &'a RecurringCommand) -> Self {
        Self { upcoming: Some(upcoming(recurring)), ..Self::in_list(recurring) }
    }

    /// Without them.
    pub(super) fn in_list(recurring: &'a RecurringCommand) -> Self {
        let terms = &recurring.terms;
        Self {
            name: recurring.name().as_str(),
            cron: &terms.cron,
            time_zone: &terms.time_zone,
            missed_runs: terms.missed_runs.as_str(),
            command: TemplateResource::of(&terms.command),
            state: terms.state.as_str(),
            revision: recurring.revision,
            next_due_at: recurring.next_due_at,
            upcoming: None,
            runs: recurring.runs,
            missed: recurring.missed,
            last_due_at: recurring.last_due_at,
            last_command_id: recurring.last_command_id,
            created_at: recurring.turn.created_at,
            created_by: &recurring.created_by,
            changed_at: recurring.changed_at,
            changed_by: &recurring.changed_by,
        }
    }
}

impl<'a> TemplateResource<'a> {
    fn of(command: &'a CommandTemplate) -> Self {
        Self {
            command_type: &command.command_type,
            stream: command.stream.as_str(),
            payload: Raw(&command.payload),
            lane: match command.lane {
                Lane::Queued => "queued",
                Lane::Immediate => "immediate",
            },
            expected_version: command.expected_version,
            metadata: &command.metadata,
        }
    }
}

/// None if it is paused, or if this process cannot read the schedule.
fn upcoming(recurring: &RecurringCommand) -> Vec<String> {
    let Some(next) = recurring.next_due_at else { return Vec::new() };
    let schedule = Schedule::parse(&recurring.terms.cron, &recurring.terms.time_zone);
    let later = schedule.map(|it| it.upcoming(next, UPCOMING - 1)).unwrap_or_default();
    let times = std::iter::once(next).chain(later);
    times.filter_map(|time| time.format(&Rfc3339).ok()).collect()
}
