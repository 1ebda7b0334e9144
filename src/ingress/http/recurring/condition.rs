//! Preconditions of a change: `If-Match` and `If-None-Match` (RFC 9110, section 13.1).

use axum::http::{HeaderMap, header};

use crate::{
    ingress::{Problem, ProblemCode},
    store::RecurringCommand,
};

/// What must be so for a change to take place.
pub(super) enum Condition {
    /// Nothing.
    None,
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It has one of these tags.
    Tagged(Vec<String>),
}

impl Condition {
    /// What the request says.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let refuse = |what: &str| Problem::new(ProblemCode::InvalidHeader, what);
        let text = |name| -> Result<Option<String>, Problem> {
            let values = headers.get_all(name).iter().map(|value| value.to_str());
            let values: Vec<&str> = values
                .collect::<Result<_, _>>()
                .map_err(|_| refuse("a precondition is not readable"))?;
            Ok((!values.is_empty()).then(|| values.join(",")))
        };
        let (matches, differs) = (text(header::IF_MATCH)?, text(header::IF_NONE_MATCH)?);
        match (matches.as_deref().map(str::trim), differs.as_deref().map(str::trim)) {
            (None, None) => Ok(Self::None),
            (Some("*"), None) => Ok(Self::Present),
            (Some(tags), None) => {
                Ok(Self::Tagged(tags.split(',').map(|tag| tag.trim().to_owned()).collect()))
            }
            (None, Some("*")) => Ok(Self::Absent),
            (None, Some(_)) => Err(refuse("`If-None-Match` takes `*` here")),
            (Some(_), Some(_)) => Err(refuse("send `If-Match` or `If-None-Match`, not both")),
        }
    }

    /// Refuses if it is not so.
    pub(super) fn check(&self, found: Option<&RecurringCommand>) -> Result<(), Problem> {
        let is_so = match self {
            Self::None => true,
            Self::Present => found.is_some(),
            Self::Absent => found.is_none(),
            Self::Tagged(tags) => found.is_some_and(|found| tags.contains(&etag(found))),
        };
        if is_so {
            return Ok(());
        }
        let detail = match found {
            Some(found) => format!(
                "`{}` is at {} now, changed by {}; look at it, then decide",
                found.name(),
                etag(found),
                found.changed_by
            ),
            None => "it is not there (any more)".to_owned(),
        };
        Err(Problem::new(ProblemCode::PreconditionFailed, detail))
    }
}

/// Names what people have set: another one after each change, and for one that was made again.
pub(super) fn etag(recurring: &RecurringCommand) -> String {
    let made = recurring.turn.created_at.unix_timestamp_nanos() / 1_000;
    format!("\"{}-{made:x}\"", recurring.revision)
}
