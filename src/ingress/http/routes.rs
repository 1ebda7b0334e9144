//! Which path is answered by what.

use axum::{
    Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};

use super::{
    App,
    access::{Allowed, ToOperate},
    batch, cancel, cancel_all, commands, dead_letters, jobs, lanes, letter_actions, operations,
    projections, recurring, respond, streams, submit, types, views, watch,
};
use crate::{
    ingress::{Problem, ProblemCode},
    observe::admin::{self, Observed},
};

/// The whole API.
pub(super) fn router(app: App) -> Router {
    let observed = Observed { health: app.health.clone(), metrics: app.recorder.clone() };
    let api = Router::new()
        .route("/v1/commands", post(submit::submit).get(commands::list))
        .route("/v1/commands/batch", post(batch::submit_batch))
        .route("/v1/commands/cancel", post(cancel_all::all))
        .route("/v1/commands/{id}", get(commands::one).delete(cancel::one))
        .route("/v1/commands/{id}/watch", get(watch::watch))
        .route("/v1/views/{view}", get(views::page))
        .route("/v1/views/{view}/{*key}", get(views::one))
        .route("/v1/streams/{type}/{id}", get(streams::events))
        .route("/v1/types", get(types::list))
        .route("/v1/types/{type}", get(types::one))
        .route("/v1/members", get(operations::members))
        .route("/v1/projections", get(projections::projections))
        .route("/v1/lanes", get(lanes::lanes))
        .route("/v1/cache", get(operations::cache))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/groups", get(dead_letters::groups))
        .route("/v1/dead-letters/retry", post(jobs::retry))
        .route("/v1/dead-letters/discard", post(jobs::discard))
        .route("/v1/dead-letters/{id}", get(dead_letters::one))
        .route("/v1/dead-letters/{id}/retry", post(letter_actions::retry))
        .route("/v1/dead-letters/{id}/discard", post(letter_actions::discard))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::one).delete(jobs::cancel))
        .route("/v1/recurring", get(recurring::list))
        .route(
            "/v1/recurring/{name}",
            get(recurring::one).put(recurring::put).delete(recurring::remove),
        )
        .route("/v1/recurring/{name}/pause", post(recurring::pause))
        .route("/v1/recurring/{name}/resume", post(recurring::resume))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(contract));
    promised(api)
        .with_state(app)
        .merge(admin::probes().with_state(observed))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// Paths of the contract that a later release answers.
fn promised(api: Router<App>) -> Router<App> {
    [
        "/v1/commands/types/{type}/{action}",
        "/v1/projections/{name}/{action}",
        "/v1/sagas",
        "/v1/sagas/{*rest}",
    ]
    .into_iter()
    .fold(api, |api, path| api.route(path, any(not_available)))
}

async fn not_available(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} {} is not available in this release", uri.path());
    Problem { status: 404, ..Problem::new(ProblemCode::NotAvailable, detail) }
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(ProblemCode::NotFound, format!("there is nothing at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not allowed at {}", uri.path());
    Problem::new(ProblemCode::MethodNotAllowed, detail)
}

async fn metrics(_: Allowed<ToOperate>, State(app): State<App>) -> Response {
    admin::metrics_response(app.recorder.as_ref())
}

async fn contract(State(app): State<App>) -> Response {
    respond::with_type(StatusCode::OK, "application/json", app.contract.clone())
}

/// What is answered when a handler panicked.
pub(super) fn panicked() -> Response {
    Problem::new(ProblemCode::Internal, "a bug in this service; its log says more").into_response()
}
