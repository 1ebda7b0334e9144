//! Recurring commands: setting, looking, pausing, removing.

mod condition;
mod draft;
mod resource;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

use self::{condition::Condition, draft::RecurringBody, resource::RecurringResource};
use super::{
    App,
    access::{Allowed, ToOperate},
    letter_actions::{caller, read_body},
    params::{self, Asked, Named, invalid},
    respond::{self, List, store_problem},
};
use crate::{
    ingress::{Problem, ProblemCode},
    recurring::Schedule,
    store::{NextDue, RecurringCommand, RecurringName, RecurringState, RecurringTerms, StoreError},
};

/// How often a change is tried when somebody else changes the same at the same time.
const TRIES: usize = 5;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// How many: 1 to 500, 50 unless told.
    limit: Option<i64>,
}

/// Recurring commands, by name.
#[utoipa::path(
    get, path = "/v1/recurring", tag = "operations", params(ListQuery),
    responses((status = 200, body = List<RecurringResource<'static>>))
)]
pub(super) async fn list(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let limit = params::limit(query.limit)?;
    params::no_nul("after", query.after.as_deref().unwrap_or_default())?;
    let page = app.store.all_recurring(query.after.as_deref(), limit).await;
    let page = page.map_err(store_problem)?;
    let items = page.items.iter().map(RecurringResource::in_list).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: page.next }))
}

/// One recurring command, with its next five due times.
#[utoipa::path(
    get, path = "/v1/recurring/{name}", tag = "operations",
    params(("name" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "`ETag` names what people have set", body = RecurringResource<'static>),
        (status = 404, description = "There is none of this name", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Named(name): Named<String>,
) -> Result<Response, Problem> {
    let name = recurring_name(&name)?;
    let found = app.store.recurring(&name).await.map_err(store_problem)?;
    Ok(answer(StatusCode::OK, &found.ok_or_else(|| not_found(&name))?))
}

/// Makes a recurring command, or replaces what was set of it. One that is paused stays so. The same
/// again changes nothing; if the schedule is the same, so is the next due time.
#[utoipa::path(
    put, path = "/v1/recurring/{name}", tag = "operations",
    params(
        ("name" = String, Path, description = "1 to 100 of `a-z`, `0-9`, `_`, `.` and `-`"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this `ETag`; `*`: only if it is there"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there"),
    ),
    request_body = super::openapi::RecurringDraft,
    responses(
        (status = 200, description = "It is as asked for", body = RecurringResource<'static>),
        (status = 201, description = "It was made: `Location`", body = RecurringResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type, no name", body = super::openapi::ProblemBody),
        (status = 409, description = "`changed_meanwhile`", body = super::openapi::ProblemBody),
        (status = 412, description = "It is not as `If-Match` or `If-None-Match` says", body = super::openapi::ProblemBody),
        (status = 422, description = "`invalid_schedule`, or a command that would be refused", body = super::openapi::ProblemBody),
        (status = 503, description = "`action_unknown`: ask again, nothing is done twice", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn put(
    State(app): State<App>,
    Named(name): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let who = caller(&app, &parts.headers)?;
    let (name, condition) = (recurring_name(&name)?, Condition::read(&parts.headers)?);
    let asked: Option<RecurringBody> = read_body(&app, &parts, body).await?;
    let asked = asked.ok_or_else(|| {
        Problem::new(ProblemCode::MalformedJson, "send what recurs in JSON: cron, command, …")
    })?;
    let (schedule, terms) = asked.check(&app.validator)?;
    let schedule = Box::new(schedule);
    change(&app, &name, &condition, &who, |found| {
        let Some(found) = found else {
            return Ok(Some((terms.clone(), DueFrom::Now(schedule.clone()))));
        };
        let terms = RecurringTerms { state: found.terms.state, ..terms.clone() };
        Ok(if draft::is_same(&terms, &found.terms) {
            None
        } else if draft::has_same_schedule(&terms, &found.terms) && found.next_due_at.is_some() {
            Some((terms, DueFrom::Before))
        } else {
            Some((terms, DueFrom::Now(schedule.clone())))
        })
    })
    .await
}

/// Stops a recurring command until it is resumed. What falls due meanwhile is not made up for.
#[utoipa::path(
    post, path = "/v1/recurring/{name}/pause", tag = "operations",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this `ETag`"),
    ),
    responses(
        (status = 200, description = "It is paused", body = RecurringResource<'static>),
        (status = 404, description = "There is none of this name", body = super::openapi::ProblemBody),
        (status = 412, description = "It is not as `If-Match` says", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn pause(
    State(app): State<App>,
    Named(name): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let name = recurring_name(&name)?;
    set_state(&app, &name, request, RecurringState::Paused).await
}

/// Lets a paused recurring command go on, from its next due time on.
#[utoipa::path(
    post, path = "/v1/recurring/{name}/resume", tag = "operations",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this `ETag`"),
    ),
    responses(
        (status = 200, description = "It is active", body = RecurringResource<'static>),
        (status = 404, description = "There is none of this name", body = super::openapi::ProblemBody),
        (status = 412, description = "It is not as `If-Match` says", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn resume(
    State(app): State<App>,
    Named(name): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let name = recurring_name(&name)?;
    set_state(&app, &name, request, RecurringState::Active).await
}

/// Removes a recurring command; answers what it was. Commands that it has sent stay.
#[utoipa::path(
    delete, path = "/v1/recurring/{name}", tag = "operations",
    params(
        ("name" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this `ETag`"),
    ),
    responses(
        (status = 200, description = "It was this, and is gone", body = RecurringResource<'static>),
        (status = 404, description = "There is none of this name", body = super::openapi::ProblemBody),
        (status = 412, description = "It is not as `If-Match` says", body = super::openapi::ProblemBody),
        (status = 503, description = "`action_unknown`: ask again", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn remove(
    State(app): State<App>,
    Named(name): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    caller(&app, &parts.headers)?;
    let (name, condition) = (recurring_name(&name)?, Condition::read(&parts.headers)?);
    for _ in 0..TRIES {
        let found = app.store.recurring(&name).await.map_err(store_problem)?;
        condition.check(found.as_ref())?;
        let revision = found.ok_or_else(|| not_found(&name))?.revision;
        let removed = app.store.remove_recurring(&name, Some(revision)).await.map_err(unknown)?;
        if let Some(removed) = removed {
            tracing::info!(%name, "a recurring command was removed");
            return Ok(respond::json(StatusCode::OK, &RecurringResource::in_list(&removed)));
        }
    }
    Err(changed_meanwhile(&name))
}

/// What becomes of what was found; `None`: it is as it should be.
type Change = Option<(RecurringTerms, DueFrom)>;

/// From when on it is due.
enum DueFrom {
    /// Its next due time stays.
    Before,
    /// From now on.
    Now(Box<Schedule>),
    /// Not at all.
    Never,
}

async fn set_state(
    app: &App,
    name: &RecurringName,
    request: Request,
    state: RecurringState,
) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    let (parts, body): (Parts, _) = request.into_parts();
    let who = caller(app, &parts.headers)?;
    let condition = Condition::read(&parts.headers)?;
    let _: Option<Nothing> = read_body(app, &parts, body).await?;
    change(app, name, &condition, &who, |found| {
        let found = found.ok_or_else(|| not_found(name))?;
        if found.terms.state == state {
            return Ok(None);
        }
        let due = match state {
            RecurringState::Paused => DueFrom::Never,
            RecurringState::Active => DueFrom::Now(Box::new(draft::schedule(&found.terms)?)),
        };
        Ok(Some((RecurringTerms { state, ..found.terms.clone() }, due)))
    })
    .await
}

/// Reads, changes and writes by compare-and-set, until nobody comes between.
async fn change(
    app: &App,
    name: &RecurringName,
    condition: &Condition,
    who: &str,
    decide: impl Fn(Option<&RecurringCommand>) -> Result<Change, Problem>,
) -> Result<Response, Problem> {
    for _ in 0..TRIES {
        let found = app.store.recurring(name).await.map_err(store_problem)?;
        condition.check(found.as_ref())?;
        let (terms, due) = match (decide(found.as_ref())?, &found) {
            (None, Some(found)) => return Ok(answer(StatusCode::OK, found)),
            (None, None) => return Err(not_found(name)),
            (Some(change), _) => change,
        };
        let is_active = terms.state == RecurringState::Active;
        let next_due = match due {
            DueFrom::Before => NextDue::Keep,
            DueFrom::Now(schedule) if is_active => {
                NextDue::At(schedule.after(app.store.now().await.map_err(store_problem)?))
            }
            DueFrom::Now(_) | DueFrom::Never => NextDue::At(None),
        };
        let revision = found.as_ref().map(|found| found.revision);
        let written = app.store.put_recurring(name, &terms, next_due, revision, who).await;
        if let Some(written) = written.map_err(unknown)? {
            tracing::info!(%name, revision = written.revision, who, "a recurring command was set");
            let status = if found.is_some() { StatusCode::OK } else { StatusCode::CREATED };
            return Ok(answer(status, &written));
        }
    }
    Err(changed_meanwhile(name))
}

fn answer(status: StatusCode, recurring: &RecurringCommand) -> Response {
    let mut response = respond::json(status, &RecurringResource::of(recurring));
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::try_from(condition::etag(recurring)) {
        headers.insert(header::ETAG, etag);
    }
    if status == StatusCode::CREATED
        && let Ok(location) = HeaderValue::try_from(format!("/v1/recurring/{}", recurring.name()))
    {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// A name in a path.
fn recurring_name(text: &str) -> Result<RecurringName, Problem> {
    text.parse().map_err(|error| invalid(format!("`{text}`: {error}")))
}

fn not_found(name: &RecurringName) -> Problem {
    let detail = format!("no recurring command is named `{name}`");
    Problem::new(ProblemCode::RecurringNotFound, detail)
}

fn changed_meanwhile(name: &RecurringName) -> Problem {
    let detail = format!("others are changing `{name}` at the same time; look at it and try again");
    Problem::new(ProblemCode::ChangedMeanwhile, detail)
}

/// A change whose answer was lost is told as such.
fn unknown(error: StoreError) -> Problem {
    match error {
        StoreError::Unknown(why) => Problem::new(ProblemCode::ActionUnknown, why),
        StoreError::Unstorable(why) => Problem::new(ProblemCode::Unstorable, why),
        error => store_problem(error),
    }
}
