//! `POST /v1/commands/cancel`: calling off all commands that match, in the background.

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    App,
    jobs::{self, JobResource},
    letter_actions::{caller, read_body, reason},
    letter_filter::between,
    params::{invalid, no_nul},
    respond::store_problem,
};
use crate::{
    cancellation,
    domain::RuleViolation,
    ingress::Problem,
    message::OutcomeStatus,
    store::{CancelFilter, CommandStatus, JobAction, JobFilter, NewJob},
};

/// Unless told, at most this many a second.
const RATE: i32 = 1_000;

/// Which commands are cancelled, and why. At least one restriction, or `all`.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = CancelAll)]
pub(super) struct CancelAllBody {
    /// Only in this status: `scheduled`, `accepted`, `waiting` or `retrying`.
    status: Option<String>,
    /// Only of this type.
    r#type: Option<String>,
    /// Only of this stream.
    stream: Option<String>,
    /// Only those that were accepted longer ago: `90s`, `15m`, `2h`, `7d`.
    older_than: Option<String>,
    /// Only those that were accepted since: `90s`, `15m`, `2h`, `7d`.
    newer_than: Option<String>,
    /// Every command that has not ended.
    all: Option<bool>,
    /// Why, at most 1,000 characters; the commands' outcomes say it.
    reason: Option<String>,
    /// At most so many a second: 1 to 10,000; 1,000 unless told.
    rate: Option<i32>,
}

/// Cancels all commands that match and have not ended, as a job. Those that come later are not touched.
#[utoipa::path(
    post, path = "/v1/commands/cancel", tag = "operations",
    request_body = CancelAllBody,
    responses(
        (status = 202, description = "A job does it: `Location`", body = JobResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type or value", body = super::openapi::ProblemBody),
        (status = 422, description = "Nothing says which commands, or an option breaks its rules", body = super::openapi::ProblemBody),
        (status = 503, description = "`action_unknown`: look at the jobs", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn all(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let who = caller(&app, &parts.headers)?;
    let asked: CancelAllBody = read_body(&app, &parts, body).await?.unwrap_or_default();
    let reason = reason(asked.reason.clone(), false)?;
    let rate = asked.rate.unwrap_or(RATE);
    let all = asked.all;
    let filter = filter(&app, asked).await?;
    let mut broken = Vec::new();
    jobs::check_rate(rate, &mut broken);
    check_meant(all, &filter, &mut broken);
    jobs::refuse(broken)?;
    let store = app.store.as_ref();
    let walk = cancellation::begin(store, &filter).await.map_err(store_problem)?;
    let total = cancellation::count(store, &filter, &walk).await.map_err(store_problem)?;
    let job = NewJob {
        action: JobAction::Cancel,
        filter: JobFilter::Commands(filter),
        rate,
        canary: 0,
        max_failed_share: 1.0,
        who,
        reason,
    };
    jobs::answer(&app, app.store.create_walking_job(&job, &walk, total).await)
}

async fn filter(app: &App, asked: CancelAllBody) -> Result<CancelFilter, Problem> {
    no_nul("type", asked.r#type.as_deref().unwrap_or_default())?;
    let stream = asked.stream.as_deref().map(|text| {
        let stream = text.parse();
        stream.map_err(|error| invalid(format!("`stream`: {error}")))
    });
    let status = asked.status.as_deref().map(str::parse::<CommandStatus>).transpose();
    let (before, after) = between(app, asked.older_than, asked.newer_than).await?;
    Ok(CancelFilter {
        status: status.map_err(|error| invalid(format!("`status`: {error}")))?,
        command_type: asked.r#type,
        stream: stream.transpose()?,
        accepted_before: before,
        accepted_after: after,
    })
}

/// Nobody cancels everything by leaving something out.
fn check_meant(all: Option<bool>, filter: &CancelFilter, broken: &mut Vec<RuleViolation>) {
    let mut refuse = |pointer: &str, rule: &str, message: &str| {
        let (pointer, rule) = (pointer.to_owned(), rule.to_owned());
        broken.push(RuleViolation { pointer, rule, message: message.to_owned() });
    };
    match (all == Some(true), filter.is_empty()) {
        (false, true) => refuse(
            "/all",
            "required",
            "say which commands (status, type, stream, older_than, newer_than), or `all: true`",
        ),
        (true, false) => {
            refuse("/all", "alone", "`all` means every command: leave it out, or the rest");
        }
        _ => {}
    }
    if let Some(CommandStatus::Ended(status)) = filter.status {
        let message = match status {
            OutcomeStatus::Dead => "it has ended: discard its dead letter instead",
            _ => "it has ended, and cannot be cancelled",
        };
        refuse("/status", "undecided", message);
    }
}
