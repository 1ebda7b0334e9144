//! `GET /v1/commands/{id}/watch`: a command's changes as server-sent events (WHATWG HTML,
//! "Server-sent events"), closed after the end. An event is the command resource; its id says which
//! status it tells, so that a client that comes back, to whichever process, is told only what is new.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::{
    App,
    access::{Allowed, ToSubmit},
    commands,
    params::{self, Asked, Named},
    resource::CommandResource,
};
use crate::{
    http_server::LongWait,
    ingress::{NoRoom, Problem, ProblemCode, StatusChanges, Told},
    store::CommandRecord,
};

/// How often something is sent when nothing changes, so that proxies keep the connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A comment, which clients ignore.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// When to come back after the connection broke, in milliseconds.
const RETRY: &str = "retry: 2000\n";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// What becomes of a command, as server-sent events: its status now, then every change, the end last.
#[utoipa::path(
    get, path = "/v1/commands/{id}/watch", tag = "commands",
    params(
        ("id" = uuid::Uuid, Path, description = "The command's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that arrived: only what is new is sent"),
    ),
    responses(
        (status = 200, description = "Events `status`; the data of each is the command resource in one line (schema `Command`). Closed after the end", content_type = "text/event-stream", body = String),
        (status = 204, description = "It has ended, and the end had arrived: do not come back"),
        (status = 404, description = "There is no such command", body = super::openapi::ProblemBody),
        (status = 503, description = "Too many watch, or the process stops", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn watch(
    _: Allowed<ToSubmit>,
    State(app): State<App>,
    long_wait: LongWait,
    Named(id): Named<String>,
    Asked(NoQuery {}): Asked<NoQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = params::command_id(&id)?;
    // Copied, because many may wait, and their headers are slices of large buffers.
    let seen = headers.get("last-event-id").map(|seen| seen.as_bytes().to_vec());
    drop(headers);
    // Already now: when thousands come at once, they wait for their turn to be read, too.
    long_wait.begins();
    let record = commands::load(&app, id).await?;
    let now = tell(&record).map_err(|error| {
        Problem::new(ProblemCode::Internal, format!("the command cannot be written: {error}"))
    })?;
    let seen = seen.is_some_and(|seen| seen == now.mark.as_bytes());
    if now.last && seen {
        return Ok(uncached(StatusCode::NO_CONTENT, Body::empty()));
    }
    let changes = if now.last {
        None
    } else {
        let changes = app.changes.changes(record.partition, id, record.progress());
        Some(changes.map_err(no_room)?)
    };
    drop(record);
    let first = if seen { COMMENT } else { now.text.clone() };
    let first = Bytes::from([RETRY.as_bytes(), &first].concat());
    let events = Events { first: Some(first), told: now.mark, changes };
    let mut response = uncached(StatusCode::OK, Body::from_stream(events.into_stream()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would otherwise collect events before it passes them on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn uncached(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn no_room(why: NoRoom) -> Problem {
    let code = match why {
        NoRoom::Full => ProblemCode::Overloaded,
        NoRoom::Stopping => ProblemCode::Stopping,
    };
    Problem::new(code, format!("nothing can be watched: {why}"))
}

/// A command's status as an event. Its id names status and attempts, whatever statuses there are.
pub(super) fn tell(record: &CommandRecord) -> Result<Told, serde_json::Error> {
    let resource = CommandResource::of(record);
    let mark = format!("{}-{}", resource.status(), resource.attempts());
    // JSON in one line: a line break inside a text is written as an escape.
    let data = serde_json::to_string(&resource)?;
    let text = format!("event: status\nid: {mark}\ndata: {data}\n\n");
    Ok(Told { mark, text: text.into(), last: resource.has_ended() })
}

/// What one client is sent. It is asked for the next piece when there is room for it, so a slow
/// client gets the newest status and not all that it missed.
struct Events {
    first: Option<Bytes>,
    /// What was sent last.
    told: String,
    /// `None`: nothing comes any more.
    changes: Option<StatusChanges>,
}

impl Events {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut events| async move {
            let piece = events.next().await?;
            Some((Ok(piece), events))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let Ok(told) = tokio::time::timeout(HEARTBEAT, self.changed()).await else {
            return Some(COMMENT);
        };
        let told = told?;
        if told.last {
            self.changes = None;
        }
        self.told.clone_from(&told.mark);
        Some(told.text.clone())
    }

    /// The next status that differs from the last one sent.
    async fn changed(&mut self) -> Option<Arc<Told>> {
        loop {
            let told = self.changes.as_mut()?.next().await?;
            if told.mark != self.told {
                return Some(told);
            }
        }
    }
}
