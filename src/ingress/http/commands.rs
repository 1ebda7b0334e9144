//! Asking for commands: one, or a list.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    App,
    access::{Allowed, ToSubmit},
    params::{self, Asked, Named, invalid},
    resource::CommandResource,
    respond::{self, List, store_problem},
};
use crate::{
    http_server::LongWait,
    ingress::{Problem, ProblemCode},
    message::{CommandId, Metadata, RawJson},
    store::{CommandFilter, CommandRecord, CommandStatus, UnknownStatus},
};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OneQuery {
    /// Wait up to this many seconds (at most 60) for the command to end.
    wait: Option<u64>,
}

/// One command, with its outcome if it has ended.
#[utoipa::path(
    get, path = "/v1/commands/{id}", tag = "commands",
    params(("id" = uuid::Uuid, Path, description = "The command's id"), OneQuery),
    responses(
        (status = 200, body = CommandResource<'static>),
        (status = 404, description = "There is no such command", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    _: Allowed<ToSubmit>,
    State(app): State<App>,
    long_wait: LongWait,
    Named(id): Named<String>,
    Asked(query): Asked<OneQuery>,
) -> Result<Response, Problem> {
    let (id, wait) = (params::command_id(&id)?, params::wait(query.wait)?);
    if !wait.is_zero() {
        // Already now: when thousands come at once, they wait for their turn to be read, too.
        long_wait.begins();
    }
    let mut record = load(&app, id).await?;
    if record.outcome.is_none() && !wait.is_zero() {
        // Not shown, and perhaps large: many may wait.
        record.payload = RawJson::from_trusted("null".into());
        record.metadata = Metadata::default();
        // `watch` looks at once, so an outcome written since the record was read is not missed.
        record.outcome = app.changes.watch(record.partition, id).within(wait).await;
    }
    Ok(respond::json(StatusCode::OK, &CommandResource::of(&record)))
}

pub(super) async fn load(app: &App, id: CommandId) -> Result<CommandRecord, Problem> {
    // It is never closed; if it were, reading would be as good.
    let turn = app.reads.acquire().await.ok();
    let found = app.store.command(id).await.map_err(store_problem)?;
    drop(turn);
    found.ok_or_else(|| {
        Problem::new(ProblemCode::CommandNotFound, format!("no command has the id {id}"))
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only this status.
    status: Option<String>,
    /// Only this type.
    r#type: Option<String>,
    /// Only this stream.
    stream: Option<String>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// How many: 1 to 500, 50 unless told.
    limit: Option<i64>,
}

/// Commands, newest first.
#[utoipa::path(
    get, path = "/v1/commands", tag = "commands", params(ListQuery),
    responses((status = 200, body = List<CommandResource<'static>>))
)]
pub(super) async fn list(
    _: Allowed<ToSubmit>,
    State(app): State<App>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let limit = params::limit(query.limit)?;
    for (name, text) in [("type", &query.r#type), ("after", &query.after)] {
        params::no_nul(name, text.as_deref().unwrap_or_default())?;
    }
    let stream = query
        .stream
        .as_deref()
        .map(|text| text.parse().map_err(|error| invalid(format!("`stream`: {error}"))));
    let filter = CommandFilter {
        status: query.status.as_deref().map(status).transpose()?,
        command_type: query.r#type,
        stream: stream.transpose()?,
    };
    let page = app.store.commands(&filter, query.after.as_deref(), limit).await;
    let page = page.map_err(store_problem)?;
    let items = page.items.iter().map(CommandResource::of).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: page.next }))
}

fn status(word: &str) -> Result<CommandStatus, Problem> {
    word.parse().map_err(|error: UnknownStatus| invalid(error.to_string()))
}
