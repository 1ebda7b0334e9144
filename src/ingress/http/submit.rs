//! `POST /v1/commands`: one command.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::HeaderValue,
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use super::{
    App, body, headers,
    resource::{CommandResource, Known},
};
use crate::{
    http_server::LongWait,
    immediate::{AsyncCommandProcessor, Executed},
    ingress::{Acceptance, AccessRole, Origin, Problem, WaitForOutcome},
    message::{CommandId, Lane, StreamId, Timestamp},
    store::NewCommand,
};

/// A wait that takes longer than this is a long one. Most commands end sooner, and their connections
/// are left as they are.
const QUICK: Duration = Duration::from_millis(250);

/// Accepts a command: 202 when it is durable, 200 when it ended within `Prefer: wait=N`.
#[utoipa::path(
    post, path = "/v1/commands", tag = "commands",
    params(
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait up to N seconds (at most 60) for the outcome"),
        ("Idempotency-Key" = Option<String>, Header, description = "1–255 characters; the id becomes the UUIDv5 of caller and key"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context, carried to every effect"),
    ),
    request_body = super::openapi::CommandDraft,
    responses(
        (status = 200, description = "It ended in time, or a repetition had ended", body = CommandResource<'static>),
        (status = 202, description = "Accepted and durable: it will end in exactly one outcome", body = CommandResource<'static>),
        (status = 400, description = "Not JSON, unknown field, wrong type", body = super::openapi::ProblemBody),
        (status = 401, description = "No valid token", body = super::openapi::ProblemBody),
        (status = 403, description = "The token lacks the role `submit`", body = super::openapi::ProblemBody),
        (status = 409, description = "The id or key is taken by other content", body = super::openapi::ProblemBody),
        (status = 413, description = "The body is too large", body = super::openapi::ProblemBody),
        (status = 415, description = "The body is not JSON", body = super::openapi::ProblemBody),
        (status = 422, description = "Unknown type, wrong stream, U+0000, or broken rules", body = super::openapi::ProblemBody),
        (status = 429, description = "Too fast; nothing was accepted", body = super::openapi::ProblemBody),
        (status = 500, description = "`acceptance_unknown`: repeat it with the same id", body = super::openapi::ProblemBody),
        (status = 503, description = "No room, or no database; nothing was accepted", body = super::openapi::ProblemBody),
    )
)]
pub(super) async fn submit(State(app): State<App>, request: Request) -> Response {
    match submit_one(&app, request).await {
        Ok(response) => response,
        Err(problem) => {
            app.metrics.single.refused(problem.code);
            problem.into_response()
        }
    }
}

async fn submit_one(app: &App, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let caller = app.access.authorize(&parts.headers, &[AccessRole::Submit])?;
    body::check_content_type(&parts.headers, "application/json")?;
    let wait = headers::preferred_wait(&parts.headers)?;
    let key = headers::id_of_key(&parts.headers, &caller.name)?;
    caller.take(1)?;
    let limits = &app.settings;
    let received = body::read(
        &app.bodies,
        &parts.headers,
        body,
        limits.max_command_bytes,
        Duration::from_millis(limits.body_timeout_ms),
    )
    .await?;
    let traceparent = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let origin = Origin { id: key, traceparent, reply_to: None };
    let command = app.validator.check(&received.bytes, &origin)?;
    let long_wait = parts.extensions.get().cloned().unwrap_or_default();
    // Both are slices of a large buffer, and many may wait.
    drop((received, parts));

    let sent = Sent {
        id: command.id,
        command_type: command.command_type.clone(),
        stream: command.stream.clone(),
        not_before: command.not_before,
        lane: command.lane,
        not_after: command.not_after,
    };
    if let Some(immediate) = app.immediate.as_ref().filter(|_| command.lane == Lane::Immediate) {
        return submit_immediate(app, immediate, command, sent, wait, &long_wait).await;
    }
    // Interest is registered before the command is accepted, so that no hint is missed.
    let outcome = wait
        .filter(|wait| !wait.is_zero())
        .map(|wait| (app.changes.expect(app.partitions.of(&command.stream), command.id), wait));
    let accepted = app
        .commit
        .accept(command)
        .await
        .map_err(|refusal| Problem::from(refusal).about(sent.id))?;
    app.metrics.single.accepted(accepted.replay);
    Ok(with_applied(answer(app, &sent, accepted, outcome, &long_wait).await, wait))
}

/// With a caller who waits, it is executed and then answered; else it is durable, and then answered.
async fn submit_immediate(
    app: &App,
    immediate: &AsyncCommandProcessor,
    command: NewCommand,
    sent: Sent,
    wait: Option<Duration>,
    long_wait: &LongWait,
) -> Result<Response, Problem> {
    let refused = |refusal| Problem::from(refusal).about(sent.id);
    let limit = wait.unwrap_or_default();
    let began = Instant::now();
    let executed = immediate.execute(command, limit).await.map_err(refused)?;
    let response = match executed {
        // The first command's resource, whichever lane it took.
        Executed::Ended(acceptance, _) if acceptance.replay => {
            app.metrics.single.accepted(true);
            answer(app, &sent, acceptance, None, long_wait).await
        }
        Executed::Ended(acceptance, outcome) => {
            app.metrics.single.accepted(acceptance.replay);
            CommandResource::of_known(&sent.known(&acceptance), Some(&outcome))
                .submitted(acceptance.replay)
        }
        Executed::Accepted(acceptance, lane) => {
            let sent = Sent { lane, ..sent };
            app.metrics.single.accepted(acceptance.replay);
            // It goes through the queue, or somebody else executes it: the rest of the wait is for
            // that.
            let left = limit.saturating_sub(began.elapsed());
            let partition = app.partitions.of(&sent.stream);
            let wait = (!left.is_zero()).then(|| (app.changes.watch(partition, sent.id), left));
            answer(app, &sent, acceptance, wait, long_wait).await
        }
    };
    Ok(with_applied(response, wait))
}

fn with_applied(mut response: Response, wait: Option<Duration>) -> Response {
    if let Some(wait) = wait {
        let applied = format!("wait={}", wait.as_secs());
        if let Ok(applied) = HeaderValue::try_from(applied) {
            response.headers_mut().insert("preference-applied", applied);
        }
    }
    response
}

/// What is kept of a command while the store has it.
struct Sent {
    id: CommandId,
    command_type: String,
    stream: StreamId,
    not_before: Option<Timestamp>,
    lane: Lane,
    not_after: Option<Timestamp>,
}

impl Sent {
    fn known(&self, accepted: &Acceptance) -> Known<'_> {
        Known {
            id: self.id,
            command_type: &self.command_type,
            stream: self.stream.as_str(),
            lane: self.lane,
            not_before: self.not_before,
            not_after: self.not_after,
            accepted_at: accepted.accepted_at,
        }
    }
}

async fn answer(
    app: &App,
    sent: &Sent,
    accepted: Acceptance,
    outcome: Option<(WaitForOutcome, Duration)>,
    long_wait: &LongWait,
) -> Response {
    if accepted.replay {
        // The first command may have ended long ago. If it cannot be read now, it is still accepted.
        if let Ok(Some(record)) = app.store.command(sent.id).await
            && (record.outcome.is_some() || outcome.is_none())
        {
            return CommandResource::of(&record).submitted(true);
        }
    }
    let known = sent.known(&accepted);
    let ended = match outcome {
        Some((outcome, wait)) => long_wait.begins_after(QUICK, outcome.within(wait)).await,
        None => None,
    };
    CommandResource::of_known(&known, ended.as_ref()).submitted(accepted.replay)
}
