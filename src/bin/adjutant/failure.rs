//! Why a task failed, and the exit code that says so.

use serde_json::Value;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments or the input make no sense.
    #[error("{0}")]
    Usage(String),
    /// The service cannot be reached.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The service refused, or failed.
    #[error("{}", describe(*.status, .problem))]
    Answer {
        /// The HTTP status.
        status: u16,
        /// The problem (RFC 9457), if it sent one.
        problem: Value,
    },
    /// Some of what was asked was answered with no; the output says which.
    #[error("{0}")]
    No(String),
    /// It has not ended within the time given.
    #[error("{0}")]
    NotYet(String),
    /// Reading input or writing output failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Answer { status, .. } if *status < 500 => 1,
            Self::No(_) => 1,
            Self::Usage(_) | Self::Io { .. } => 2,
            Self::Unreachable { .. } | Self::Answer { .. } => 3,
            Self::NotYet(_) => 4,
        }
    }
}

fn describe(status: u16, problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str();
    let Some(code) = text("code") else { return format!("the service answered {status}") };
    let mut said = format!("{code} ({status}): {}", text("detail").unwrap_or_default());
    for place in problem["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| place[name].as_str().unwrap_or_default().to_owned();
        said.extend(["\n  ", &part("pointer"), " ", &part("rule"), ": ", &part("message")]);
    }
    said
}
