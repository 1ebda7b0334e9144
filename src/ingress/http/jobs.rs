//! Jobs: retrying or discarding all dead letters that match, in the background, and what became of jobs
//! of every kind.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    access::{Allowed, ToOperate},
    letter_actions::{caller, read_body, reason},
    letter_filter::{self, FilterWords, with_filter},
    params::{self, Asked, Named, invalid},
    respond::{self, List, store_problem},
};
use crate::{
    dead_letter::DeadLetterState,
    domain::RuleViolation,
    ingress::{Problem, ProblemCode},
    message::Timestamp,
    store::{
        Cancelled, DeadLetterFilter, Job, JobAction, JobFilter, JobId, MOST_ACTED_ON, NewJob,
        StoreError,
    },
};

/// Unless told, at most this many a second.
const RATE: i32 = 1_000;
const HIGHEST_RATE: i32 = 10_000;
/// Unless told, so many first.
const CANARY: i32 = 5;
/// Unless told, the share of them that may die again.
const MAX_FAILED_SHARE: f64 = 0.5;

with_filter! {
    /// Which dead letters are retried, and how.
    #[derive(ToSchema)]
    #[schema(as = RetryAll)]
    RetryAllBody {
        /// Why.
        reason: Option<String>,
        /// At most so many a second: 1 to 10,000; 1,000 unless told.
        rate: Option<i32>,
        /// So many first, whose outcomes decide about the rest: 0 (none) to 500; 5 unless told.
        canary: Option<i32>,
        /// The share of them that may die again, 0 to 1; 0.5 unless told.
        max_failed_share: Option<f64>,
    }
}

with_filter! {
    /// Which dead letters are discarded, and why.
    #[derive(ToSchema)]
    #[schema(as = DiscardAll)]
    DiscardAllBody {
        /// Why: needed.
        reason: Option<String>,
        /// At most so many a second: 1 to 10,000; 1,000 unless told.
        rate: Option<i32>,
    }
}

/// A job, and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobResource<'a> {
    #[schema(value_type = uuid::Uuid)]
    id: JobId,
    /// `retry` or `discard` (dead letters), `cancel` (commands).
    action: &'static str,
    /// Which dead letters, or which commands.
    #[schema(value_type = Object)]
    filter: &'a JobFilter,
    /// `running`, `done`, `stopped` (its canary failed) or `cancelled`.
    state: &'static str,
    /// Why it stopped.
    note: Option<&'a str>,
    /// How many matched when it was made; later ones are not touched. Commands are counted among 10,000 or
    /// so; when there are more, it grows.
    total: i64,
    /// How many it has acted on.
    done: i64,
    /// How many it could not act on: somebody else was first, or it is not possible.
    failed: i64,
    rate: i32,
    canary: Option<CanaryResource>,
    who: &'a str,
    reason: Option<&'a str>,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The last sign of life of who works on it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    heartbeat_at: Option<Timestamp>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
}

/// The letters that go first.
#[derive(Serialize, ToSchema)]
#[schema(as = JobCanary)]
struct CanaryResource {
    /// How many.
    size: i32,
    /// The share of them that may die again.
    max_failed_share: f64,
    /// How many were sent; null: none yet.
    sent: Option<usize>,
    /// How many died again; null: it is not known yet.
    died_again: Option<i32>,
}

impl<'a> JobResource<'a> {
    fn of(job: &'a Job) -> Self {
        let asked = &job.asked;
        Self {
            id: job.id,
            action: asked.action.as_str(),
            filter: &asked.filter,
            state: job.state.as_str(),
            note: job.note.as_deref(),
            total: job.total,
            done: job.done,
            failed: job.failed,
            rate: asked.rate,
            canary: (asked.canary > 0).then(|| CanaryResource {
                size: asked.canary,
                max_failed_share: asked.max_failed_share,
                sent: job.canary.as_ref().map(|canary| canary.commands.len()),
                died_again: job.canary.as_ref().and_then(|canary| canary.died_again),
            }),
            who: &asked.who,
            reason: asked.reason.as_deref(),
            created_at: job.created_at,
            heartbeat_at: job.heartbeat_at,
            finished_at: job.finished_at,
        }
    }
}

/// Retries all open dead letters that match, as a job. Those that come later are not touched.
#[utoipa::path(
    post, path = "/v1/dead-letters/retry", tag = "operations",
    request_body = RetryAllBody,
    responses(
        (status = 202, description = "A job does it: `Location`", body = JobResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type or value", body = super::openapi::ProblemBody),
        (status = 422, description = "An option breaks its rules", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn retry(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let who = caller(&app, &parts.headers)?;
    let mut asked: RetryAllBody = required(read_body(&app, &parts, body).await?)?;
    let filter = open_ones(&app, asked.words()).await?;
    let reason = reason(asked.reason, false)?;
    let (rate, canary) = (asked.rate.unwrap_or(RATE), asked.canary.unwrap_or(CANARY));
    let max_failed_share = asked.max_failed_share.unwrap_or(MAX_FAILED_SHARE);
    let mut broken = Vec::new();
    check_rate(rate, &mut broken);
    if !(0..=MOST_ACTED_ON as i32).contains(&canary) {
        broken.push(range("/canary", format!("must be 0 to {MOST_ACTED_ON}")));
    }
    if !(0.0..=1.0).contains(&max_failed_share) {
        broken.push(range("/max_failed_share", "must be 0 to 1".into()));
    }
    refuse(broken)?;
    let (action, filter) = (JobAction::Retry, JobFilter::DeadLetters(filter));
    make(&app, NewJob { action, filter, rate, canary, max_failed_share, who, reason }).await
}

/// Discards all open dead letters that match, as a job. Those that come later are not touched.
#[utoipa::path(
    post, path = "/v1/dead-letters/discard", tag = "operations",
    request_body = DiscardAllBody,
    responses(
        (status = 202, description = "A job does it: `Location`", body = JobResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type or value", body = super::openapi::ProblemBody),
        (status = 422, description = "There is no reason, or an option breaks its rules", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn discard(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let who = caller(&app, &parts.headers)?;
    let mut asked: DiscardAllBody = required(read_body(&app, &parts, body).await?)?;
    let filter = open_ones(&app, asked.words()).await?;
    let reason = reason(asked.reason, true)?;
    let rate = asked.rate.unwrap_or(RATE);
    let mut broken = Vec::new();
    check_rate(rate, &mut broken);
    refuse(broken)?;
    let (action, filter) = (JobAction::Discard, JobFilter::DeadLetters(filter));
    let (canary, max_failed_share) = (0, 1.0);
    make(&app, NewJob { action, filter, rate, canary, max_failed_share, who, reason }).await
}

/// An empty body is no request to act on everything: `{}` is.
fn required<T>(body: Option<T>) -> Result<T, Problem> {
    body.ok_or_else(|| {
        let detail = "send a filter in JSON; `{}` means all that are open";
        Problem::new(ProblemCode::MalformedJson, detail)
    })
}

/// Only what is open can be acted on.
async fn open_ones(app: &App, words: FilterWords) -> Result<DeadLetterFilter, Problem> {
    let filter = letter_filter::read(app, words).await?;
    if filter.state != Some(DeadLetterState::Open) {
        return Err(invalid("`state`: only open dead letters can be acted on"));
    }
    Ok(filter)
}

pub(super) fn check_rate(rate: i32, broken: &mut Vec<RuleViolation>) {
    if !(1..=HIGHEST_RATE).contains(&rate) {
        broken.push(range("/rate", format!("must be 1 to {HIGHEST_RATE}")));
    }
}

fn range(pointer: &str, message: String) -> RuleViolation {
    RuleViolation { pointer: pointer.into(), rule: "range".into(), message }
}

pub(super) fn refuse(broken: Vec<RuleViolation>) -> Result<(), Problem> {
    let Some(first) = broken.first() else { return Ok(()) };
    let detail = format!("{}: {}", first.pointer, first.message);
    Err(Problem::new(ProblemCode::RuleViolation, detail).with_errors(broken))
}

async fn make(app: &App, job: NewJob) -> Result<Response, Problem> {
    answer(app, app.store.create_job(&job).await)
}

/// Answers with a job that was made, and wakes who works on it.
pub(super) fn answer(app: &App, made: Result<Job, StoreError>) -> Result<Response, Problem> {
    let made = made.map_err(|error| match error {
        StoreError::Unknown(why) => Problem::new(ProblemCode::ActionUnknown, why),
        error => store_problem(error),
    })?;
    app.jobs.wake();
    let mut response = respond::json(StatusCode::ACCEPTED, &JobResource::of(&made));
    if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{}", made.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// How many: 1 to 500, 50 unless told.
    limit: Option<i64>,
}

/// Jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "operations", params(ListQuery),
    responses((status = 200, body = List<JobResource<'static>>))
)]
pub(super) async fn list(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let limit = params::limit(query.limit)?;
    let page = app.store.jobs(query.after.as_deref(), limit).await.map_err(store_problem)?;
    let items = page.items.iter().map(JobResource::of).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: page.next }))
}

/// One job, and how far it is.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "operations",
    params(("id" = uuid::Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, body = JobResource<'static>),
        (status = 404, description = "There is no such job", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Named(id): Named<String>,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    let job = app.store.job(id).await.map_err(store_problem)?.ok_or_else(|| not_found(id))?;
    Ok(respond::json(StatusCode::OK, &JobResource::of(&job)))
}

/// Calls a job off. What it has done stays done.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "operations",
    params(("id" = uuid::Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, description = "It is cancelled", body = JobResource<'static>),
        (status = 404, description = "There is no such job", body = super::openapi::ProblemBody),
        (status = 409, description = "It has ended", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn cancel(
    _: Allowed<ToOperate>,
    State(app): State<App>,
    Named(id): Named<String>,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    match app.store.cancel_job(id).await.map_err(store_problem)? {
        Some(Cancelled::Now(job)) => Ok(respond::json(StatusCode::OK, &JobResource::of(&job))),
        Some(Cancelled::Ended(job)) => {
            let detail = format!("the job {id} is {} already", job.state.as_str());
            Err(Problem::new(ProblemCode::JobEnded, detail))
        }
        None => Err(not_found(id)),
    }
}

fn not_found(id: JobId) -> Problem {
    Problem::new(ProblemCode::JobNotFound, format!("no job has the id {id}"))
}

/// A job's id in a path.
fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| invalid(format!("`{text}` is no job id: ids are UUIDs")))
}
