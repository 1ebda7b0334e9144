//! Reading streams: an aggregate's events.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    access::{Allowed, ToRead},
    params::{self, Asked, Named, invalid},
    respond::{self, List, Raw, store_problem},
};
use crate::{
    ingress::{Problem, ProblemCode},
    message::{CommandId, Metadata, Partition, Position, StreamId, Timestamp, Version},
    store::StoredStreamEvent,
};

/// An event of a stream.
#[derive(Serialize, ToSchema)]
pub(super) struct Event<'a> {
    /// Its place in the stream.
    #[schema(value_type = i64)]
    version: Version,
    /// Its place in the event log: `partition:offset`.
    #[schema(value_type = String)]
    position: Position,
    /// The wire name.
    r#type: &'a str,
    schema_version: i16,
    #[schema(value_type = serde_json::Value)]
    data: Raw<'a>,
    /// The command that caused it.
    #[schema(value_type = uuid::Uuid)]
    command_id: CommandId,
    #[schema(value_type = Object)]
    metadata: &'a Metadata,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    recorded_at: Timestamp,
}

impl<'a> Event<'a> {
    fn of(event: &'a StoredStreamEvent, partition: Partition) -> Self {
        Self {
            version: event.version,
            position: Position { partition, offset: event.offset },
            r#type: &event.event_type,
            schema_version: event.schema_version,
            data: Raw(&event.data),
            command_id: event.command_id,
            metadata: &event.metadata,
            recorded_at: event.recorded_at,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Only events after this version.
    after: Option<i64>,
    /// How many: 1 to 500, 50 unless told.
    limit: Option<i64>,
}

/// A stream's events, in order. A stream that has none yet is an empty list.
#[utoipa::path(
    get, path = "/v1/streams/{type}/{id}", tag = "queries",
    params(
        ("type" = String, Path, description = "The aggregate type"),
        ("id" = String, Path, description = "The aggregate's id"),
        PageQuery,
    ),
    responses(
        (status = 200, body = List<Event<'static>>),
        (status = 404, description = "No such aggregate type", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn events(
    _: Allowed<ToRead>,
    State(app): State<App>,
    Named((kind, id)): Named<(String, String)>,
    Asked(query): Asked<PageQuery>,
) -> Result<Response, Problem> {
    if app.registry.aggregate(&kind).is_none() {
        let detail = format!("`{kind}` is no aggregate type of this service");
        return Err(Problem::new(ProblemCode::UnknownAggregate, detail));
    }
    let stream = StreamId::new(&kind, &id).map_err(|error| invalid(error.to_string()))?;
    let limit = params::limit(query.limit)?;
    let after = match query.after.unwrap_or(0) {
        after if after >= 0 => Version(after),
        _ => return Err(invalid("`after` must be a version")),
    };
    // One more than asked for shows whether there is a next page.
    let found = app.store.stream_events(&stream, after, limit + 1).await;
    let mut events = found.map_err(store_problem)?;
    let more = events.len() as i64 > limit;
    events.truncate(limit as usize);
    let next = events.last().filter(|_| more).map(|event| event.version.to_string());
    let partition = app.partitions.of(&stream);
    let items = events.iter().map(|event| Event::of(event, partition)).collect();
    Ok(respond::json(StatusCode::OK, &List { items, next }))
}
