//! Path and query parameters, refused as problems.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::{App, headers::MAX_WAIT};
use crate::{
    ingress::{Problem, ProblemCode},
    message::CommandId,
};

/// A query string as `T`; unknown parameters are refused if `T` does so.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(asked)| Self(asked)).map_err(|error| invalid(error.body_text()))
    }
}

/// The parts of the path.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, app).await;
        path.map(|Path(named)| Self(named)).map_err(|error| invalid(error.body_text()))
    }
}

/// A parameter that is not allowed.
pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidParameter, detail)
}

/// A command's id in a path.
pub(super) fn command_id(text: &str) -> Result<CommandId, Problem> {
    text.parse().map_err(|_| invalid(format!("`{text}` is no command id: ids are UUIDs")))
}

/// The size of a page: 1 to 500, 50 unless told.
pub(super) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(50) {
        limit @ 1..=500 => Ok(limit),
        _ => Err(invalid("`limit` must be 1 to 500")),
    }
}

/// How long to wait: whole seconds up to [`MAX_WAIT`].
pub(super) fn wait(seconds: Option<u64>) -> Result<Duration, Problem> {
    match seconds.unwrap_or(0) {
        seconds if seconds <= MAX_WAIT => Ok(Duration::from_secs(seconds)),
        _ => Err(invalid(format!("`wait` must be at most {MAX_WAIT} seconds"))),
    }
}

/// Text that PostgreSQL could not even compare with.
pub(super) fn no_nul(name: &str, text: &str) -> Result<(), Problem> {
    if text.contains('\0') {
        let detail = format!("`{name}` holds the character U+0000");
        return Err(Problem::new(ProblemCode::TextWithNul, detail));
    }
    Ok(())
}
