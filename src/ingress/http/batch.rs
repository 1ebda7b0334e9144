//! `POST /v1/commands/batch`: many commands, one a line (NDJSON), each answered on its own line.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, body, respond};
use crate::{
    ingress::{Acceptance, AccessRole, Answer, Origin, Problem, ProblemCode},
    message::CommandId,
    store::NewCommand,
};

const NDJSON: &str = "application/x-ndjson";

/// After how many lines other tasks get their turn.
const LINES_AT_A_TIME: usize = 64;

/// What became of one line.
#[derive(Serialize, ToSchema)]
pub(super) struct LineResult {
    /// The command's id; null if the line was not readable.
    #[schema(value_type = Option<uuid::Uuid>)]
    id: Option<CommandId>,
    /// The status that the command alone would have got: 202, 409, 422 …
    code: u16,
    /// It had been accepted before; nothing was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replay: bool,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<super::openapi::ProblemBody>)]
    problem: Option<Problem>,
}

/// Accepts up to 1,000 commands, one JSON object a line. Lines succeed and fail alone; those that are
/// accepted keep their order.
#[utoipa::path(
    post, path = "/v1/commands/batch", tag = "commands",
    request_body(content = String, content_type = "application/x-ndjson", description = "Up to 1,000 lines, 8 MiB, 256 KiB a line"),
    responses(
        (status = 200, description = "One result a line, in order", body = LineResult, content_type = "application/x-ndjson"),
        (status = 413, description = "Too many lines or bytes; nothing was accepted", body = super::openapi::ProblemBody),
        (status = 415, description = "Not NDJSON", body = super::openapi::ProblemBody),
        (status = 503, description = "No room; nothing was accepted", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn submit_batch(State(app): State<App>, request: Request) -> Response {
    match submit(&app, request).await {
        Ok(response) => response,
        Err(problem) => {
            app.metrics.batch.refused(problem.code);
            problem.into_response()
        }
    }
}

async fn submit(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = app.access.authorize(&parts.headers, &[AccessRole::Submit])?;
    body::check_content_type(&parts.headers, NDJSON)?;
    if parts.headers.contains_key("idempotency-key") {
        let detail = "a batch takes no `Idempotency-Key`: give each line its `id`";
        return Err(Problem::new(ProblemCode::InvalidHeader, detail));
    }
    let limits = &app.settings;
    let within = Duration::from_millis(limits.body_timeout_ms);
    let received =
        body::read(&app.bodies, &parts.headers, body, limits.max_batch_bytes, within).await?;
    let lines = lines(app, &received.bytes)?;
    caller.take(lines.len())?;

    let traceparent = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let origin = Origin { traceparent, ..Origin::default() };
    let mut results = Vec::with_capacity(lines.len());
    let mut commands = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        if index % LINES_AT_A_TIME == LINES_AT_A_TIME - 1 {
            tokio::task::yield_now().await;
        }
        results.push(check(app, line, &origin, &mut commands));
    }
    drop(received);
    let answers = app.accept_together(commands).await.map_err(Problem::from)?;
    fill_in(&mut results, answers);
    Ok(write(app, &results))
}

/// The lines; an empty one after the last line break is none.
fn lines<'a>(app: &App, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Problem> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if text.is_empty() {
        return Err(Problem::new(ProblemCode::MalformedJson, "there is no line"));
    }
    let mut lines = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        if line.len() > app.settings.max_command_bytes {
            let detail = format!(
                "line {} is longer than {} bytes",
                lines.len() + 1,
                app.settings.max_command_bytes
            );
            return Err(Problem::new(ProblemCode::TooLarge, detail));
        }
        if lines.len() == app.settings.max_batch_lines {
            let detail = format!("a batch has at most {} lines", app.settings.max_batch_lines);
            return Err(Problem::new(ProblemCode::TooManyLines, detail));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Checks a line. What passes goes to `commands` and is answered later.
fn check(
    app: &App,
    line: &[u8],
    origin: &Origin<'_>,
    commands: &mut Vec<NewCommand>,
) -> LineResult {
    match app.validator.check(line, origin) {
        Ok(command) => {
            let id = Some(command.id);
            commands.push(command);
            LineResult { id, code: PENDING, replay: false, problem: None }
        }
        Err(problem) => LineResult {
            id: id_of(line),
            code: problem.status,
            replay: false,
            problem: Some(problem),
        },
    }
}

/// Stands for the answer that is still to come; no HTTP status.
const PENDING: u16 = 0;

/// The id of a line that was refused, if it is readable at all.
fn id_of(line: &[u8]) -> Option<CommandId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: Option<CommandId>,
    }
    serde_json::from_slice::<OnlyId>(line).ok()?.id
}

fn fill_in(results: &mut [LineResult], answers: Vec<Answer>) {
    let pending = results.iter_mut().filter(|result| result.code == PENDING);
    for (result, answer) in pending.zip(answers) {
        match answer {
            Ok(Acceptance { replay, .. }) => {
                result.code = StatusCode::ACCEPTED.as_u16();
                result.replay = replay;
            }
            Err(refusal) => {
                let problem = Problem::from(refusal);
                result.code = problem.status;
                result.problem = Some(problem);
            }
        }
    }
}

fn write(app: &App, results: &[LineResult]) -> Response {
    let mut body = Vec::with_capacity(results.len() * 64);
    for result in results {
        match &result.problem {
            Some(problem) => app.metrics.batch.refused(problem.code),
            None => app.metrics.batch.accepted(result.replay),
        }
        if let Err(error) = serde_json::to_writer(&mut body, result) {
            return Problem::new(ProblemCode::Internal, error.to_string()).into_response();
        }
        body.push(b'\n');
    }
    respond::with_type(StatusCode::OK, NDJSON, body)
}
