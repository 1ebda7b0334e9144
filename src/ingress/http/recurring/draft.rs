//! From the body of a request to what is set, or a problem.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    ingress::{
        Origin, Problem, ProblemCode, Validator,
        draft::{self, LaneWord, json_problem},
    },
    message::Metadata,
    recurring::{InvalidSchedule, Schedule},
    store::{CommandTemplate, MissedRuns, RecurringState, RecurringTerms},
};

/// By whose clocks a schedule is read that names none.
const ZONE: &str = "UTC";

/// What recurs, as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecurringBody {
    cron: String,
    #[serde(default)]
    time_zone: Option<String>,
    #[serde(default)]
    missed_runs: Option<String>,
    command: Box<RawValue>,
}

/// The fields that a command which recurs may have; what each holds is the validator's business.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether they may be there")]
struct Fields {
    r#type: IgnoredAny,
    stream: IgnoredAny,
    payload: IgnoredAny,
    #[serde(default)]
    lane: Option<LaneWord>,
    #[serde(default)]
    expected_version: Option<IgnoredAny>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

impl RecurringBody {
    /// Checks everything that can be known now.
    pub(super) fn check(
        self,
        validator: &Validator,
    ) -> Result<(Schedule, RecurringTerms), Problem> {
        let missed_runs = missed_runs(self.missed_runs.as_deref())?;
        let time_zone = self.time_zone.as_deref().unwrap_or(ZONE);
        let schedule = Schedule::parse(&self.cron, time_zone)
            .map_err(|error| invalid_schedule(&error, time_zone))?;
        let command = template(validator, self.command.get()).map_err(within_command)?;
        let terms = RecurringTerms {
            cron: schedule.expression().to_owned(),
            time_zone: schedule.time_zone().to_owned(),
            missed_runs,
            command,
            state: RecurringState::Active,
        };
        Ok((schedule, terms))
    }
}

fn missed_runs(word: Option<&str>) -> Result<MissedRuns, Problem> {
    let Some(word) = word else { return Ok(MissedRuns::Skip) };
    MissedRuns::ALL.into_iter().find(|policy| policy.as_str() == word).ok_or_else(|| {
        let detail =
            format!("`{word}` says nothing about missed runs: write `skip`, `once` or `all`");
        Problem::new(ProblemCode::InvalidField, detail).at("/missed_runs", "one_of")
    })
}

/// The schedule of what was set before.
pub(super) fn schedule(terms: &RecurringTerms) -> Result<Schedule, Problem> {
    Schedule::parse(&terms.cron, &terms.time_zone)
        .map_err(|error| invalid_schedule(&error, &terms.time_zone))
}

/// Whether two say the same; payloads however they are written.
pub(super) fn is_same(one: &RecurringTerms, other: &RecurringTerms) -> bool {
    let (a, b) = (&one.command, &other.command);
    let command = CommandTemplate { payload: b.payload.clone(), ..a.clone() };
    let with_payload = RecurringTerms { command, ..one.clone() };
    with_payload == *other && a.payload.to_value() == b.payload.to_value()
}

/// Whether two are due at the same times.
pub(super) fn has_same_schedule(one: &RecurringTerms, other: &RecurringTerms) -> bool {
    one.cron == other.cron && one.time_zone == other.time_zone
}

fn invalid_schedule(error: &InvalidSchedule, time_zone: &str) -> Problem {
    let pointer = |error: &InvalidSchedule| {
        if error.is_about_time_zone() { "/time_zone" } else { "/cron" }
    };
    let rule = |error: &InvalidSchedule| match error {
        InvalidSchedule::Never => "fires",
        InvalidSchedule::TimeZone(_) => "time_zone",
        InvalidSchedule::Fields | InvalidSchedule::Field { .. } => "cron",
    };
    let problem = Problem::new(ProblemCode::InvalidSchedule, error.to_string());
    let mut problem = problem.at(pointer(error), rule(error));
    // What is wrong with the other one is told at once.
    if !error.is_about_time_zone()
        && let Err(other) = Schedule::parse("@daily", time_zone)
    {
        let detail = std::mem::replace(&mut problem.detail, other.to_string());
        problem = problem.at(pointer(&other), rule(&other));
        problem.detail = format!("{detail}; {other}");
    }
    problem
}

fn template(validator: &Validator, json: &str) -> Result<CommandTemplate, Problem> {
    draft::object(json)?;
    let fields: Fields = serde_json::from_str(json).map_err(|error| json_problem(&error))?;
    if !matches!(fields.lane, None | Some(LaneWord::Queued)) {
        let detail = "a recurring command is executed by the queued lane; leave `lane` out";
        return Err(Problem::new(ProblemCode::RuleViolation, detail).at("/lane", "queued"));
    }
    let metadata = fields.metadata.unwrap_or_default();
    for (name, value) in
        [("causation_id", &metadata.causation_id), ("traceparent", &metadata.traceparent)]
    {
        if value.is_some() {
            let detail = format!("each run sets `{name}` itself; leave it out");
            let problem = Problem::new(ProblemCode::RuleViolation, detail);
            return Err(problem.at(&format!("/metadata/{name}"), "absent"));
        }
    }
    let command = validator.check(json.as_bytes(), &Origin::default())?;
    Ok(CommandTemplate {
        command_type: command.command_type,
        stream: command.stream,
        payload: command.payload,
        metadata: Metadata { traceparent: None, ..command.metadata },
        lane: command.lane,
        expected_version: command.expected_version,
    })
}

/// The same problem, seen from the whole body.
fn within_command(mut problem: Problem) -> Problem {
    for error in &mut problem.errors {
        error.pointer.insert_str(0, "/command");
    }
    let starts_with_pointer = problem.detail.starts_with('/');
    problem.detail.insert_str(0, if starts_with_pointer { "/command" } else { "`command`: " });
    problem
}
