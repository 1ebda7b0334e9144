//! Writing answers.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    ingress::{Problem, ProblemCode},
    message::RawJson,
    store::StoreError,
};

/// A page of a list.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct List<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// Send it as `after` to get the next page; null at the end.
    pub(super) next: Option<String>,
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => with_type(status, "application/json", body),
        Err(error) => {
            Problem::new(ProblemCode::Internal, format!("the answer cannot be written: {error}"))
                .into_response()
        }
    }
}

/// An answer of some media type.
pub(super) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = with_type(status, "application/problem+json", body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A question that the store could not answer.
pub(super) fn store_problem(error: StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) | StoreError::Transient(_) | StoreError::Unknown(_) => {
            Problem::new(ProblemCode::Unavailable, error.to_string())
        }
        // A value that no row can hold, for example a cursor that is none of ours.
        StoreError::Unstorable(why) => Problem::new(ProblemCode::InvalidParameter, why),
        error => {
            tracing::error!(%error, "a question was not answered");
            Problem::new(ProblemCode::Internal, error.to_string())
        }
    }
}

/// JSON that is embedded as it is, without building its tree.
pub(super) struct Raw<'a>(pub(super) &'a RawJson);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(self.0.as_str()) {
            Ok(raw) => raw.serialize(serializer),
            // Only a bug in its source brings this about; better null than no answer.
            Err(_) => serializer.serialize_unit(),
        }
    }
}
