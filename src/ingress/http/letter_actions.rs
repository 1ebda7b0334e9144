//! Dead letters: retrying and discarding one.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::Response,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    App, body,
    dead_letters::{self, LetterResource, letter_id, not_found},
    params::Named,
    respond::{self, store_problem},
};
use crate::{
    dead_letter::{DeadLetterId, DeadLetterState, act},
    ingress::{
        AccessRole, Problem, ProblemCode,
        draft::{self, json_problem, utf8},
    },
    message::RawJson,
    store::{Acted, ActedBy, RetryRequest, StoreError},
};

/// The longest reason, in characters.
const LONGEST_REASON: usize = 1_000;

/// How a dead letter is retried.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RetryBody {
    payload: Option<Box<RawValue>>,
    reason: Option<String>,
}

/// How a dead letter is discarded.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DiscardBody {
    reason: Option<String>,
}

/// Executes a dead command again, perhaps with a corrected payload. Once only: a second call answers
/// 409.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/retry", tag = "operations",
    params(("id" = uuid::Uuid, Path, description = "The dead letter's id")),
    request_body = super::openapi::RetryDraft,
    responses(
        (status = 202, description = "It is due now; its command will end again", body = LetterResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type", body = super::openapi::ProblemBody),
        (status = 404, description = "There is no such dead letter", body = super::openapi::ProblemBody),
        (status = 409, description = "`already_retried`, `already_discarded`, `nothing_to_retry`", body = super::openapi::ProblemBody),
        (status = 422, description = "The corrected payload breaks its rules", body = super::openapi::ProblemBody),
        (status = 503, description = "`action_unknown`: ask again, nothing is done twice", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn retry(
    State(app): State<App>,
    Named(id): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let who = caller(&app, &parts.headers)?;
    let id = letter_id(&id)?;
    let asked: RetryBody = read_body(&app, &parts, body).await?.unwrap_or_default();
    let reason = reason(asked.reason, false)?;
    let payload = match &asked.payload {
        None => None,
        Some(payload) => Some(corrected(&app, id, payload).await?),
    };
    let by = ActedBy { who, reason, job: None };
    let requests = [RetryRequest { id, payload }];
    let acted = act::retry(app.store.as_ref(), &app.signals, &requests, &by).await;
    answer(&app, id, acted, StatusCode::ACCEPTED).await
}

/// Gives a dead command up: its outcome stays `dead`, and what waits behind it goes on. Once only.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", tag = "operations",
    params(("id" = uuid::Uuid, Path, description = "The dead letter's id")),
    request_body = super::openapi::DiscardDraft,
    responses(
        (status = 200, description = "It is discarded", body = LetterResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type", body = super::openapi::ProblemBody),
        (status = 404, description = "There is no such dead letter", body = super::openapi::ProblemBody),
        (status = 409, description = "`already_retried`, `already_discarded`", body = super::openapi::ProblemBody),
        (status = 422, description = "There is no reason", body = super::openapi::ProblemBody),
        (status = 503, description = "`action_unknown`: ask again, nothing is done twice", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn discard(
    State(app): State<App>,
    Named(id): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let who = caller(&app, &parts.headers)?;
    let id = letter_id(&id)?;
    let asked: DiscardBody = read_body(&app, &parts, body).await?.unwrap_or_default();
    let reason = reason(asked.reason, true)?;
    let by = ActedBy { who, reason, job: None };
    let acted = act::discard(app.store.as_ref(), &app.signals, &[id], &by).await;
    answer(&app, id, acted, StatusCode::OK).await
}

/// Who acts: the name of the caller's token.
pub(super) fn caller(app: &App, headers: &HeaderMap) -> Result<String, Problem> {
    app.access.authorize(headers, &[AccessRole::Operate]).map(|caller| caller.name.clone())
}

/// A body in JSON, if there is one.
pub(super) async fn read_body<T: DeserializeOwned>(
    app: &App,
    parts: &Parts,
    body: axum::body::Body,
) -> Result<Option<T>, Problem> {
    let limits = &app.settings;
    let within = Duration::from_millis(limits.body_timeout_ms);
    let limit = limits.max_command_bytes;
    let received = body::read(&app.bodies, &parts.headers, body, limit, within).await?;
    if received.bytes.is_empty() {
        return Ok(None);
    }
    body::check_content_type(&parts.headers, "application/json")?;
    let text = utf8(&received.bytes)?;
    draft::object(text)?;
    serde_json::from_str(text).map(Some).map_err(|error| json_problem(&error))
}

/// A reason as it may be kept.
pub(super) fn reason(given: Option<String>, needed: bool) -> Result<Option<String>, Problem> {
    let refused = |rule: &str, detail: String| {
        Err(Problem::new(ProblemCode::RuleViolation, detail).at("/reason", rule))
    };
    let Some(reason) = given.filter(|reason| !reason.trim().is_empty()) else {
        if needed {
            return refused("required", "say why: `reason` is kept in the audit".into());
        }
        return Ok(None);
    };
    if reason.contains('\0') {
        let detail = "must not hold the character U+0000";
        return Err(Problem::new(ProblemCode::TextWithNul, detail).at("/reason", "no_nul"));
    }
    let length = reason.chars().count();
    if length > LONGEST_REASON {
        return refused(
            "length",
            format!("must have at most {LONGEST_REASON} characters, has {length}"),
        );
    }
    Ok(Some(reason))
}

/// A corrected payload, checked like that of a new command of its type.
async fn corrected(app: &App, id: DeadLetterId, payload: &RawValue) -> Result<RawJson, Problem> {
    let letter = dead_letters::load(app, id).await?.letter;
    if letter.state != DeadLetterState::Open {
        return Err(taken(id, letter.state));
    }
    if letter.kind != crate::dead_letter::DeadLetterKind::Command {
        let detail = "only the payload of a command can be corrected";
        return Err(Problem::new(ProblemCode::RuleViolation, detail).at("/payload", "command"));
    }
    app.validator.check_payload(&letter.type_name, payload)
}

async fn answer(
    app: &App,
    id: DeadLetterId,
    acted: Result<Vec<Acted>, StoreError>,
    done: StatusCode,
) -> Result<Response, Problem> {
    let acted = acted.map_err(|error| match error {
        StoreError::Unknown(why) => Problem::new(ProblemCode::ActionUnknown, why),
        StoreError::Unstorable(why) => Problem::new(ProblemCode::Unstorable, why),
        error => store_problem(error),
    })?;
    match acted.first() {
        Some(Acted::Done) => {}
        Some(Acted::NotFound) => return Err(not_found(id)),
        Some(Acted::NotOpen(state)) => return Err(taken(id, *state)),
        Some(Acted::ParkedKey | Acted::Callback) => {
            let detail = "it was not passed on to whoever can do it";
            return Err(Problem::new(ProblemCode::Internal, detail));
        }
        Some(Acted::NothingToRetry) => {
            let detail = "what it is about is not dead any more, or not kept any more";
            return Err(Problem::new(ProblemCode::NothingToRetry, detail));
        }
        None => return Err(Problem::new(ProblemCode::Internal, "nothing was answered")),
    }
    let Ok(Some(details)) = app.store.dead_letter(id).await else {
        // It is done, whether it can be read now or not.
        return Ok(respond::json(done, &serde_json::json!({ "id": id })));
    };
    let mut response = respond::json(done, &LetterResource::of(&details.letter));
    let command = format!("/v1/commands/{}", details.letter.command_id);
    if done == StatusCode::ACCEPTED
        && let Ok(location) = axum::http::HeaderValue::try_from(command)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Somebody was first.
fn taken(id: DeadLetterId, state: DeadLetterState) -> Problem {
    let code = match state {
        DeadLetterState::Discarded => ProblemCode::AlreadyDiscarded,
        _ => ProblemCode::AlreadyRetried,
    };
    Problem::new(code, format!("the dead letter {id} is {} already", state.as_str()))
}
