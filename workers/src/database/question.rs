//! What is asked, in the words of either database.

use serde_json::Value;
use time::OffsetDateTime;

/// A query, with the parameter that it may have.
pub(crate) struct Question {
    pub(super) postgres: &'static str,
    pub(super) sqlite: &'static str,
    pub(super) parameter: Option<Parameter>,
}

/// A parameter. Lists are JSON, which both databases can read as a table.
#[derive(Clone)]
pub(crate) enum Parameter {
    Json(Value),
    Time(OffsetDateTime),
}

impl Question {
    /// A query that both understand.
    pub(crate) const fn plain(sql: &'static str) -> Self {
        Self::by_dialect(sql, sql)
    }

    /// A query that differs.
    pub(crate) const fn by_dialect(postgres: &'static str, sqlite: &'static str) -> Self {
        Self { postgres, sqlite, parameter: None }
    }

    /// The query with its parameter.
    pub(crate) fn with(self, parameter: Parameter) -> Self {
        Self { parameter: Some(parameter), ..self }
    }
}
