//! Logs: to standard error, as text for people or as JSON for programs.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
#[error("log.level `{level}` is not understood: {reason}")]
pub struct LogError {
    level: String,
    reason: String,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(log: &Log) -> Result<(), LogError> {
    let wrong = |error: &dyn std::fmt::Display| LogError {
        level: log.level.clone(),
        reason: error.to_string(),
    };
    let filter = EnvFilter::try_new(&log.level).map_err(|error| wrong(&error))?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error here means that somebody logs already, and then everything is fine.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    Ok(())
}
