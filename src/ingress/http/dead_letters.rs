//! Dead letters: looking at them.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    access::{Allowed, ToOperate},
    letter_filter::{self, with_filter},
    params::{self, Asked, Named, invalid},
    resource::{CommandResource, FailedAttemptResource},
    respond::{self, List, Raw, store_problem},
};
use crate::{
    dead_letter::DeadLetterId,
    ingress::{Problem, ProblemCode},
    message::{CommandId, Failure, Metadata, Position, Timestamp, Version},
    store::{
        AuditEntry, CallbackDetails, CommandEdit, DeadLetter, DeadLetterDetails, DeadLetterGroup,
        JobId, PastOutcome, StoredStreamEvent,
    },
};

/// Work that a person must look at.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(super) struct LetterResource<'a> {
    #[schema(value_type = uuid::Uuid)]
    id: DeadLetterId,
    /// `command`, `parked_key` or `callback`.
    kind: &'static str,
    /// The group in which it died.
    group: &'a str,
    /// The command's stream, what is parked, or the host that was to be called back.
    key: &'a str,
    /// The command's type, or the event's.
    #[serde(rename = "type")]
    type_name: &'a str,
    /// The command, or the one that caused the event.
    #[schema(value_type = uuid::Uuid)]
    command_id: CommandId,
    /// The log entry that failed: `partition:offset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    position: Option<Position>,
    /// What the last attempt failed with.
    #[schema(value_type = super::resource::FailureResource)]
    error: &'a Failure,
    /// Failures of one cause have one fingerprint.
    fingerprint: &'a str,
    /// How many attempts failed.
    attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    died_at: Timestamp,
    /// `open`, `retrying`, `resolved` or `discarded`.
    state: &'static str,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    state_at: Timestamp,
}

impl<'a> LetterResource<'a> {
    pub(super) fn of(letter: &'a DeadLetter) -> Self {
        let partition = letter.partition;
        Self {
            id: letter.id,
            kind: letter.kind.as_str(),
            group: letter.group.as_str(),
            key: &letter.key,
            type_name: &letter.type_name,
            command_id: letter.command_id,
            position: letter.offset.map(|offset| Position { partition, offset }),
            error: &letter.error,
            fingerprint: &letter.fingerprint,
            attempts: letter.attempts,
            died_at: letter.died_at,
            state: letter.state.as_str(),
            state_at: letter.state_at,
        }
    }
}

with_filter! {
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    ListQuery {
        /// Where the page starts: `next` of the page before.
        after: Option<String>,
        /// How many: 1 to 500, 50 unless told.
        limit: Option<i64>,
    }
}

/// Dead letters, newest first. A page may be short of its limit and still have a next one: what a
/// filter leaves out counts against the rows that are read for a page.
#[utoipa::path(
    get, path = "/v1/dead-letters", tag = "operations", params(ListQuery),
    responses(
        (status = 200, body = List<LetterResource<'static>>),
        (status = 400, description = "An unknown field, value or cursor", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn list(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Asked(mut query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let limit = params::limit(query.limit)?;
    let filter = letter_filter::read(&app, query.words()).await?;
    let page = app.store.dead_letters(&filter, query.after.as_deref(), limit).await;
    let page = page.map_err(store_problem)?;
    let items = page.items.iter().map(LetterResource::of).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: page.next }))
}

/// Dead letters of one cause.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterGroup)]
pub(super) struct GroupResource<'a> {
    /// Type, error code and normalised message are the same.
    fingerprint: &'a str,
    /// How many.
    count: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    first_died_at: Timestamp,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    last_died_at: Timestamp,
    /// The newest one.
    example: ExampleResource<'a>,
}

/// A dead letter that stands for its group.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterExample)]
struct ExampleResource<'a> {
    #[schema(value_type = uuid::Uuid)]
    id: DeadLetterId,
    #[serde(rename = "type")]
    type_name: &'a str,
    #[schema(value_type = super::resource::FailureResource)]
    error: &'a Failure,
}

impl<'a> GroupResource<'a> {
    fn of(group: &'a DeadLetterGroup) -> Self {
        Self {
            fingerprint: &group.fingerprint,
            count: group.letters,
            first_died_at: group.first_died_at,
            last_died_at: group.last_died_at,
            example: ExampleResource {
                id: group.example,
                type_name: &group.type_name,
                error: &group.error,
            },
        }
    }
}

with_filter! {
    #[derive(IntoParams)]
    #[into_params(parameter_in = Query)]
    GroupsQuery {}
}

/// Dead letters counted by the fingerprint of their error; the largest 500 groups, largest first.
#[utoipa::path(
    get, path = "/v1/dead-letters/groups", tag = "operations", params(GroupsQuery),
    responses(
        (status = 200, body = List<GroupResource<'static>>),
        (status = 400, description = "An unknown field or value", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn groups(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Asked(mut query): Asked<GroupsQuery>,
) -> Result<Response, Problem> {
    let filter = letter_filter::read(&app, query.words()).await?;
    let groups = app.store.dead_letter_groups(&filter).await.map_err(store_problem)?;
    let items = groups.iter().map(GroupResource::of).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: None }))
}

/// A dead letter with everything that is known of it.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterDetails)]
pub(super) struct DetailsResource<'a> {
    #[serde(flatten)]
    letter: LetterResource<'a>,
    /// The command as it stands now; null if it is not kept any more.
    command: Option<CommandResource<'a>>,
    /// The command's payload as it was accepted.
    #[schema(value_type = serde_json::Value)]
    payload: Option<Raw<'a>>,
    /// The newest payload that a person gave it: what it was, or will be, executed with.
    edit: Option<EditResource<'a>>,
    /// The command's metadata.
    #[schema(value_type = Object)]
    metadata: Option<&'a Metadata>,
    /// The trace (W3C) that it belongs to.
    trace_id: Option<&'a str>,
    /// Of a parked key: the event that could not be applied.
    event: Option<EventResource<'a>>,
    /// Of a callback: what was not taken; null if it was delivered or discarded since.
    callback: Option<CallbackResource<'a>>,
    /// Attempts that failed, oldest first; the newest 500.
    attempt_history: Vec<FailedAttemptResource<'a>>,
    /// Ends that retries took back, oldest first; the newest 500.
    past_outcomes: Vec<PastOutcomeResource<'a>>,
    /// What people did with it, oldest first; the newest 500.
    audit: Vec<AuditResource<'a>>,
}

/// A payload that a person corrected.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandEdit)]
struct EditResource<'a> {
    /// Counted 1, 2, 3 …
    edit: i32,
    #[schema(value_type = serde_json::Value)]
    payload: Raw<'a>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    edited_at: Timestamp,
    edited_by: &'a str,
}

/// An event that could not be applied.
#[derive(Serialize, ToSchema)]
#[schema(as = FailedEvent)]
struct EventResource<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    schema_version: i16,
    #[schema(value_type = i64)]
    version: Version,
    #[schema(value_type = serde_json::Value)]
    data: Raw<'a>,
}

/// A callback that was not taken. Its URL may be a secret: it is not shown.
#[derive(Serialize, ToSchema)]
#[schema(as = FailedCallback)]
struct CallbackResource<'a> {
    /// The header of the same name.
    webhook_id: uuid::Uuid,
    /// Which of the command's ends it tells of: the outcome's `attempts`.
    ended_after: i32,
    /// Since when it is owed: the command's end, or the last retry.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    owed_at: Timestamp,
    /// How often it was tried.
    attempts: i32,
    /// What the last try failed with.
    error: Option<&'a str>,
}

/// An end that a retry took back.
#[derive(Serialize, ToSchema)]
#[schema(as = PastOutcome)]
struct PastOutcomeResource<'a> {
    attempts: i32,
    #[schema(value_type = i64)]
    version: Version,
    #[schema(value_type = Option<super::resource::FailureResource>)]
    error: Option<&'a Failure>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    completed_at: Timestamp,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    taken_back_at: Timestamp,
}

/// What somebody did with a dead letter.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetterAudit)]
struct AuditResource<'a> {
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `retry`, `retry_edited` or `discard`.
    action: &'a str,
    who: &'a str,
    reason: Option<&'a str>,
    /// The job that did it, if one did.
    #[schema(value_type = Option<uuid::Uuid>)]
    job: Option<JobId>,
}

impl<'a> DetailsResource<'a> {
    fn of(details: &'a DeadLetterDetails) -> Self {
        let command = details.command.as_ref();
        Self {
            letter: LetterResource::of(&details.letter),
            command: command.map(CommandResource::of),
            payload: command.map(|command| Raw(&command.payload)),
            edit: details.edit.as_ref().map(EditResource::of),
            metadata: command.map(|command| &command.metadata),
            trace_id: command.and_then(|command| command.metadata.trace_id()),
            event: details.event.as_ref().map(EventResource::of),
            callback: details.callback.as_ref().map(CallbackResource::of),
            attempt_history: details.attempts.iter().map(FailedAttemptResource::of).collect(),
            past_outcomes: details.past_outcomes.iter().map(PastOutcomeResource::of).collect(),
            audit: details.audit.iter().map(AuditResource::of).collect(),
        }
    }
}

impl<'a> EditResource<'a> {
    fn of(edit: &'a CommandEdit) -> Self {
        let CommandEdit { edit, payload, edited_at, edited_by } = edit;
        Self { edit: *edit, payload: Raw(payload), edited_at: *edited_at, edited_by }
    }
}

impl<'a> EventResource<'a> {
    fn of(event: &'a StoredStreamEvent) -> Self {
        let StoredStreamEvent { event_type, schema_version, version, data, .. } = event;
        Self { event_type, schema_version: *schema_version, version: *version, data: Raw(data) }
    }
}

impl<'a> CallbackResource<'a> {
    fn of(it: &'a CallbackDetails) -> Self {
        let CallbackDetails { id, ended_after, owed_at, attempts, error } = it;
        Self {
            webhook_id: *id,
            ended_after: *ended_after,
            owed_at: *owed_at,
            attempts: *attempts,
            error: error.as_deref(),
        }
    }
}

impl<'a> PastOutcomeResource<'a> {
    fn of(it: &'a PastOutcome) -> Self {
        Self {
            attempts: it.attempts,
            version: it.version,
            error: it.error.as_ref(),
            completed_at: it.completed_at,
            taken_back_at: it.taken_back_at,
        }
    }
}

impl<'a> AuditResource<'a> {
    fn of(it: &'a AuditEntry) -> Self {
        let AuditEntry { at, action, who, reason, job } = it;
        Self { at: *at, action, who, reason: reason.as_deref(), job: *job }
    }
}

/// One dead letter: payload, error history, every attempt, what people did with it.
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "operations",
    params(("id" = uuid::Uuid, Path, description = "The dead letter's id")),
    responses(
        (status = 200, body = DetailsResource<'static>),
        (status = 404, description = "There is no such dead letter", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Named(id): Named<String>,
) -> Result<Response, Problem> {
    let details = load(&app, letter_id(&id)?).await?;
    Ok(respond::json(StatusCode::OK, &DetailsResource::of(&details)))
}

pub(super) async fn load(app: &App, id: DeadLetterId) -> Result<DeadLetterDetails, Problem> {
    let found = app.store.dead_letter(id).await.map_err(store_problem)?;
    found.ok_or_else(|| not_found(id))
}

pub(super) fn not_found(id: DeadLetterId) -> Problem {
    Problem::new(ProblemCode::DeadLetterNotFound, format!("no dead letter has the id {id}"))
}

/// A dead letter's id in a path.
pub(super) fn letter_id(text: &str) -> Result<DeadLetterId, Problem> {
    text.parse().map_err(|_| invalid(format!("`{text}` is no dead letter id: ids are UUIDs")))
}
