//! What can be sent and what can happen: message types with their JSON Schema.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    access::{Allowed, ToKnowTypes},
    params::Named,
    respond::{self, List},
};
use crate::{
    domain::TypeDescription,
    ingress::{Problem, ProblemCode},
};

/// A message type.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageType<'a> {
    /// The wire name.
    name: &'a str,
    /// `command` or `event`.
    kind: &'static str,
    /// The schema version that is written.
    schema_version: i16,
    /// Of a command: `strict` if later strict commands of its stream wait while it is retried or
    /// dead, else `relaxed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
    /// JSON Schema (2020-12) of the payload.
    #[schema(value_type = Object)]
    json_schema: &'a serde_json::Value,
}

impl<'a> MessageType<'a> {
    fn of(described: &'a TypeDescription) -> Self {
        Self {
            name: &described.name,
            kind: if described.is_command { "command" } else { "event" },
            schema_version: described.schema_version,
            order: described.is_command.then_some(if described.strict {
                "strict"
            } else {
                "relaxed"
            }),
            json_schema: &described.json_schema,
        }
    }
}

/// All message types, by name.
#[utoipa::path(
    get, path = "/v1/types", tag = "queries",
    responses((status = 200, body = List<MessageType<'static>>))
)]
pub(super) async fn list(_: Allowed<ToKnowTypes>, State(app): State<App>) -> Response {
    let items = app.registry.types().map(MessageType::of).collect();
    respond::json(StatusCode::OK, &List { items, next: None })
}

/// One message type.
#[utoipa::path(
    get, path = "/v1/types/{type}", tag = "queries",
    params(("type" = String, Path, description = "The wire name")),
    responses(
        (status = 200, body = MessageType<'static>),
        (status = 404, description = "No such type", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn one(
    _: Allowed<ToKnowTypes>,
    State(app): State<App>,
    Named(name): Named<String>,
) -> Result<Response, Problem> {
    let described = app.registry.message_type(&name).ok_or_else(|| {
        let detail = format!("`{name}` is no message type of this service");
        Problem::new(ProblemCode::UnknownType, detail)
    })?;
    Ok(respond::json(StatusCode::OK, &MessageType::of(described)))
}
