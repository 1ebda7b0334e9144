//! Through which lane a command goes, how long its sender waits, and when it may be started.

use std::time::Duration;

use hyper::header::HeaderValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::chaos::random::Draw;

/// A lane, as a sender names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// By the broker, to a command worker.
    Queued,
    /// In the process that is asked, or not at all.
    Immediate,
    /// The same, and by the queue if there is no room.
    ImmediateOrQueued,
}

impl Lane {
    /// Its name in the API.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Immediate => "immediate",
            Self::ImmediateOrQueued => "immediate-or-queued",
        }
    }
}

/// How a command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The lane.
    pub lane: Lane,
    /// At the same time to another process, through the queue.
    pub on_both: bool,
    /// For how many seconds its sender waits for its end; zero: it is answered at once.
    pub waits: u32,
}

impl Way {
    /// By the queue, answered at once.
    pub(crate) const QUEUED: Self = Self { lane: Lane::Queued, on_both: false, waits: 0 };

    /// Three in ten are for the immediate lane, and of those some are sent through both.
    pub(crate) fn any(draw: &mut Draw) -> Self {
        let (lane, on_both, waiting) = match draw.below(100) {
            0..13 => (Lane::Immediate, false, 100),
            13..22 => (Lane::Immediate, false, 0),
            22..27 => (Lane::ImmediateOrQueued, false, 50),
            27..30 => (Lane::Immediate, true, 60),
            _ => (Lane::Queued, false, 8),
        };
        let waits = if draw.happens(waiting) { 1 + u32::from(draw.happens(30)) } else { 0 };
        Self { lane, on_both, waits }
    }

    /// What of it goes through the queue.
    pub(super) fn by_the_queue(self) -> Self {
        Self { lane: Lane::Queued, on_both: false, ..self }
    }

    /// `Prefer` (RFC 7240).
    pub(super) fn preference(self) -> Option<HeaderValue> {
        match (self.waits, self.lane) {
            (0, Lane::Queued) => None,
            (0, _) => Some(HeaderValue::from_static("respond-async")),
            (seconds, _) => HeaderValue::from_str(&format!("wait={seconds}")).ok(),
        }
    }
}

/// When a command may be started, by the store's clock. That is this machine's: only processes of
/// the service have clocks that jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Not before.
    pub not_before: Option<OffsetDateTime>,
    /// Not after.
    pub not_after: Option<OffsetDateTime>,
}

impl Times {
    /// Most have none. Of the deadlines, some are over long before they arrive.
    pub(super) fn any(draw: &mut Draw) -> Self {
        let now = OffsetDateTime::now_utc();
        let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
        let not_before = draw.happens(5).then(|| now + draw.millis(0..3_000));
        let not_after = draw.happens(7).then(|| match (not_before, draw.happens(25)) {
            (Some(due), _) => due + draw.millis(0..2_000),
            (None, false) => now + draw.millis(0..1_500),
            (None, true) => now - Duration::from_secs(30) - draw.millis(0..600_000),
        });
        Self { not_before, not_after }
    }

    /// A time at which it is not due yet.
    pub(super) fn later(draw: &mut Draw) -> Self {
        let not_before = OffsetDateTime::now_utc() + draw.millis(500..3_000);
        let not_before = not_before.replace_millisecond(not_before.millisecond()).ok();
        Self { not_before, not_after: None }
    }

    /// The fields of a command.
    pub(super) fn named(self) -> impl Iterator<Item = (&'static str, String)> {
        let fields = [("not_before", self.not_before), ("not_after", self.not_after)];
        fields.into_iter().filter_map(|(name, time)| Some((name, time?.format(&Rfc3339).ok()?)))
    }
}
