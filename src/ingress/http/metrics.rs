//! Counters of the HTTP intake. Those of the hot path are looked up once.

use metrics::{Counter, counter};

use crate::{ingress::ProblemCode, observe::names};

/// Counters of single commands and of batches.
pub(super) struct HttpMetrics {
    pub(super) single: IntakeCounters,
    pub(super) batch: IntakeCounters,
}

/// Counters of one way in.
pub(super) struct IntakeCounters {
    intake: &'static str,
    accepted: Counter,
    replayed: Counter,
}

impl HttpMetrics {
    pub(super) fn new() -> Self {
        Self { single: IntakeCounters::new("http"), batch: IntakeCounters::new("batch") }
    }
}

impl IntakeCounters {
    fn new(intake: &'static str) -> Self {
        Self {
            intake,
            accepted: counter!(names::INTAKE_ACCEPTED_TOTAL, "intake" => intake),
            replayed: counter!(names::INTAKE_REPLAYED_TOTAL, "intake" => intake),
        }
    }

    pub(super) fn accepted(&self, replay: bool) {
        if replay { &self.replayed } else { &self.accepted }.increment(1);
    }

    pub(super) fn refused(&self, code: ProblemCode) {
        let (intake, code) = (self.intake, code.as_str());
        counter!(names::INTAKE_REFUSED_TOTAL, "intake" => intake, "code" => code).increment(1);
    }
}
