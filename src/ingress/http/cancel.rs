//! `DELETE /v1/commands/{id}`: calling one command off.

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    letter_actions::{read_body, reason},
    params::{self, Asked, Named, invalid},
    resource::CommandResource,
    respond::{self, store_problem},
};
use crate::{
    cancellation,
    ingress::{AccessRole, Problem, ProblemCode},
    message::{CommandId, OutcomeStatus},
    store::{CancelAnswer, CancelledBy, StoreError},
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CancelQuery {
    /// Why, at most 1,000 characters; the command's outcome says it.
    reason: Option<String>,
}

/// The same, as a body.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CancelBody {
    reason: Option<String>,
}

/// Cancels a command that has not ended: one that is not due, is queued, waits, or is between two
/// attempts, none of which had an effect. Once only: a second call answers 409.
#[utoipa::path(
    delete, path = "/v1/commands/{id}", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command's id"), CancelQuery),
    request_body(content = Option<super::openapi::CancelDraft>, description = "Why, instead of the parameter"),
    responses(
        (status = 200, description = "It is cancelled", body = CommandResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type", body = super::openapi::ProblemBody),
        (status = 404, description = "There is no such command", body = super::openapi::ProblemBody),
        (status = 409, description = "`already_ended`, `already_cancelled`", body = super::openapi::ProblemBody),
        (status = 422, description = "The reason is too long", body = super::openapi::ProblemBody),
        (status = 429, description = "Too fast; nothing was done", body = super::openapi::ProblemBody),
        (status = 503, description = "`action_unknown`: ask again, nothing is done twice", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    State(app): State<App>,
    Named(id): Named<String>,
    Asked(query): Asked<CancelQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = app.access.authorize(&parts.headers, &[AccessRole::Submit])?;
    let id = params::command_id(&id)?;
    caller.take(1)?;
    let asked: CancelBody = read_body(&app, &parts, body).await?.unwrap_or_default();
    let why = match (query.reason, asked.reason) {
        (Some(_), Some(_)) => return Err(invalid("`reason` was given twice")),
        (query, body) => reason(query.or(body), false)?,
    };
    let by = CancelledBy { who: caller.name.clone(), reason: why, job: None };
    let answers = cancellation::cancel(app.store.as_ref(), &app.signals, &[id], &by).await;
    let answers = answers.map_err(|error| match error {
        StoreError::Unknown(why) => Problem::new(ProblemCode::ActionUnknown, why),
        error => store_problem(error),
    })?;
    match answers.first() {
        Some(CancelAnswer::Cancelled { .. }) => {}
        Some(CancelAnswer::AlreadyEnded(status)) => return Err(ended(id, *status)),
        Some(CancelAnswer::NotFound) => {
            let detail = format!("no command has the id {id}");
            return Err(Problem::new(ProblemCode::CommandNotFound, detail));
        }
        None => return Err(Problem::new(ProblemCode::Internal, "nothing was answered")),
    }
    let Ok(Some(record)) = app.store.command(id).await else {
        // It is done, whether it can be read now or not.
        let told = serde_json::json!({ "id": id, "status": "cancelled" });
        return Ok(respond::json(StatusCode::OK, &told));
    };
    Ok(respond::json(StatusCode::OK, &CommandResource::of(&record)))
}

/// It is too late; what else can be done.
fn ended(id: CommandId, status: OutcomeStatus) -> Problem {
    let (code, what) = match status {
        OutcomeStatus::Cancelled => {
            (ProblemCode::AlreadyCancelled, "is cancelled already: its outcome says why")
        }
        OutcomeStatus::Succeeded => (
            ProblemCode::AlreadyEnded,
            "has succeeded: what it did stays; send a command that undoes it",
        ),
        OutcomeStatus::Rejected => {
            (ProblemCode::AlreadyEnded, "was rejected: it did nothing, and will do nothing")
        }
        OutcomeStatus::Dead => {
            (ProblemCode::AlreadyEnded, "is dead: discard its dead letter instead")
        }
    };
    Problem::new(code, format!("the command {id} {what}")).about(id)
}
