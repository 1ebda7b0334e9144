//! Reading views: one document, or a page.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    access::{Allowed, ToRead},
    params::{self, Asked, Named, invalid},
    respond::{self, List, Raw, store_problem},
};
use crate::{
    http_server::LongWait,
    ingress::{Problem, ProblemCode},
    message::{GroupName, Position},
    store::ViewRecord,
};

/// A document of a view.
#[derive(Serialize, ToSchema)]
pub(super) struct Document<'a> {
    key: &'a str,
    /// How often it changed; also its `ETag`.
    version: i64,
    #[schema(value_type = serde_json::Value)]
    value: Option<Raw<'a>>,
    /// For each partition that fed it, the last position that did.
    #[schema(value_type = Vec<String>)]
    as_of: &'a [Position],
}

impl<'a> Document<'a> {
    fn of(record: &'a ViewRecord) -> Self {
        Self {
            key: &record.key,
            version: record.version,
            value: record.value.as_ref().map(Raw),
            as_of: &record.as_of,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OneQuery {
    /// First wait until the view has applied this position (`partition:offset` of an outcome).
    at: Option<String>,
    /// For how many seconds (at most 60).
    wait: Option<u64>,
}

/// One document.
#[utoipa::path(
    get, path = "/v1/views/{view}/{key}", tag = "queries",
    params(
        ("view" = String, Path, description = "The view"),
        ("key" = String, Path, description = "The key; it may hold slashes"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag`: 304 if it still is"),
        OneQuery,
    ),
    responses(
        (status = 200, body = Document<'static>),
        (status = 304, description = "It has not changed"),
        (status = 404, description = "No such view or document", body = super::openapi::ProblemBody),
        (status = 504, description = "The position was not applied in time, or it waits because its key is parked", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    _: Allowed<ToRead>,
    State(app): State<App>,
    long_wait: LongWait,
    Named((view, key)): Named<(String, String)>,
    Asked(query): Asked<OneQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check_view(&app, &view)?;
    params::no_nul("key", &key)?;
    let wait = params::wait(query.wait)?;
    // Copied, because many may wait, and their headers are slices of large buffers.
    let known = known_etags(&headers);
    drop(headers);
    let record = match &query.at {
        Some(at) => {
            if !wait.is_zero() {
                long_wait.begins();
            }
            let position = wait_for(&app, &view, at, wait).await?;
            read_at(&app, &view, &key, position).await?
        }
        None if query.wait.is_some() => return Err(invalid("`wait` needs `at`")),
        None => app.store.view(&view, &key).await.map_err(store_problem)?,
    };
    let record = record.filter(|record| record.value.is_some()).ok_or_else(|| {
        let detail = format!("the view `{view}` has no document `{key}`");
        Problem::new(ProblemCode::DocumentNotFound, detail)
    })?;
    let etag = format!("\"{}\"", record.version);
    let mut response = if matches_etag(&known, &etag) {
        let mut unchanged = Response::new(Body::empty());
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        respond::json(StatusCode::OK, &Document::of(&record))
    };
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

fn check_view(app: &App, view: &str) -> Result<(), Problem> {
    if app.registry.projection(view).is_some() {
        return Ok(());
    }
    Err(Problem::new(ProblemCode::UnknownView, format!("`{view}` is no view of this service")))
}

/// Reads one's own writes: the view must have applied the position.
async fn wait_for(
    app: &App,
    view: &str,
    at: &str,
    wait: std::time::Duration,
) -> Result<Position, Problem> {
    let position: Position = at.parse().map_err(|error| invalid(format!("`at`: {error}")))?;
    if position.partition.0 >= app.partitions.get() {
        return Err(invalid(format!("`at`: there are {} partitions", app.partitions.get())));
    }
    let group = GroupName::projection(view);
    let reached = app.positions.reached(&group, position, wait).await.map_err(store_problem)?;
    if reached {
        return Ok(position);
    }
    let detail = format!("the view `{view}` has not applied {position} yet");
    Err(Problem::new(ProblemCode::NotApplied, detail))
}

/// The view has passed the position; it has applied it, too, unless its key is parked.
async fn read_at(
    app: &App,
    view: &str,
    key: &str,
    position: Position,
) -> Result<Option<ViewRecord>, Problem> {
    let found = app.store.view_at(view, key, position).await.map_err(store_problem)?;
    if !found.parked {
        return Ok(found.record);
    }
    let detail = format!(
        "the document `{key}` of the view `{view}` does not hold {position}: an event could not be \
         applied, and what follows it waits until it is replayed"
    );
    Err(Problem::new(ProblemCode::Parked, detail))
}

/// The lists of `If-None-Match`.
fn known_etags(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::IF_NONE_MATCH).into_iter();
    values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

/// Weak comparison (RFC 9110, section 13.1.2).
fn matches_etag(known: &[String], etag: &str) -> bool {
    known.iter().flat_map(|list| list.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Only keys that start with it.
    prefix: Option<String>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// How many: 1 to 500, 50 unless told.
    limit: Option<i64>,
}

/// A page of documents, in key order.
#[utoipa::path(
    get, path = "/v1/views/{view}", tag = "queries",
    params(("view" = String, Path, description = "The view"), PageQuery),
    responses(
        (status = 200, body = List<Document<'static>>),
        (status = 404, description = "No such view", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn page(
    _: Allowed<ToRead>,
    State(app): State<App>,
    Named(view): Named<String>,
    Asked(query): Asked<PageQuery>,
) -> Result<Response, Problem> {
    check_view(&app, &view)?;
    let limit = params::limit(query.limit)?;
    let prefix = query.prefix.as_deref().unwrap_or_default();
    params::no_nul("prefix", prefix)?;
    params::no_nul("after", query.after.as_deref().unwrap_or_default())?;
    // One more than asked for shows whether there is a next page.
    let found = app.store.views(&view, prefix, query.after.as_deref(), limit + 1).await;
    let mut records = found.map_err(store_problem)?;
    let more = records.len() as i64 > limit;
    records.truncate(limit as usize);
    let next = records.last().filter(|_| more).map(|record| record.key.clone());
    let items = records.iter().map(Document::of).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next }))
}
