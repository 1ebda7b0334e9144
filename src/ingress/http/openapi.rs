//! The contract, generated from the code.

#![allow(dead_code)] // the shapes below exist to be described

use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

/// A command as it is sent.
#[derive(ToSchema)]
pub(super) struct CommandDraft {
    /// Chosen by the caller, or made here (UUIDv7): the idempotency key.
    id: Option<uuid::Uuid>,
    /// The wire name.
    #[schema(example = "account.deposit")]
    r#type: String,
    /// `{aggregate type}/{aggregate id}`.
    #[schema(example = "account/acc-42", pattern = "^[a-z][a-z0-9_]*/[A-Za-z0-9._~:-]{1,128}$")]
    stream: String,
    /// As the type's JSON Schema says (`GET /v1/types/{type}`).
    payload: serde_json::Value,
    /// `queued` (default): through the broker, by a worker. `immediate`: executed by the process that
    /// receives it; 503 if that has no room. `immediate-or-queued`: queued if it has none.
    #[schema(pattern = "^(queued|immediate|immediate-or-queued)$")]
    lane: Option<String>,
    /// Reject the command if the stream is not at this version.
    #[schema(minimum = 0)]
    expected_version: Option<i64>,
    /// Do not start it before.
    not_before: Option<time::OffsetDateTime>,
    /// Do not start it after: it ends as `cancelled`.
    not_after: Option<time::OffsetDateTime>,
    /// When it ends, the command is sent there by a POST, signed as Standard Webhooks define, at
    /// least once. `https`, and a public address, unless the service allows more; no user, no
    /// fragment. Not part of the content: a repetition with another one is the same command, and
    /// the first one's counts.
    #[schema(max_length = 2048, example = "https://shop.example/hooks/orders")]
    callback_url: Option<String>,
    metadata: Option<MetadataDraft>,
}

/// Who asks, and on which trail.
#[derive(ToSchema)]
#[schema(as = Metadata)]
struct MetadataDraft {
    #[schema(min_length = 1, max_length = 255)]
    correlation_id: Option<String>,
    #[schema(min_length = 1, max_length = 255)]
    causation_id: Option<String>,
    #[schema(min_length = 1, max_length = 255)]
    actor: Option<String>,
    /// W3C Trace Context.
    traceparent: Option<String>,
}

/// What recurs.
#[derive(ToSchema)]
pub(super) struct RecurringDraft {
    /// Minute, hour, day of month, month, day of week; with a sixth field in front: seconds.
    #[schema(example = "30 3 * * MON-FRI", max_length = 255)]
    cron: String,
    /// A name of the IANA database; `UTC` unless told.
    #[schema(example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// What becomes of runs that could not be sent in time: `skip` (unless told), `once` or `all`.
    #[schema(pattern = "^(skip|once|all)$")]
    missed_runs: Option<String>,
    command: RecurringCommandDraft,
}

/// The command that each run sends.
#[derive(ToSchema)]
struct RecurringCommandDraft {
    /// The wire name.
    #[schema(example = "account.deposit")]
    r#type: String,
    /// `{aggregate type}/{aggregate id}`.
    #[schema(example = "account/acc-42", pattern = "^[a-z][a-z0-9_]*/[A-Za-z0-9._~:-]{1,128}$")]
    stream: String,
    /// As the type's JSON Schema says (`GET /v1/types/{type}`).
    payload: serde_json::Value,
    /// `queued`.
    #[schema(pattern = "^queued$")]
    lane: Option<String>,
    /// Reject the command if the stream is not at this version.
    #[schema(minimum = 0)]
    expected_version: Option<i64>,
    metadata: Option<RecurringMetadataDraft>,
}

/// Who asks. Each run adds what caused it (`recurring/{name}@{due time}`) and a trace.
#[derive(ToSchema)]
#[schema(as = RecurringMetadata)]
struct RecurringMetadataDraft {
    #[schema(min_length = 1, max_length = 255)]
    correlation_id: Option<String>,
    #[schema(min_length = 1, max_length = 255)]
    actor: Option<String>,
}

/// Why a command is cancelled.
#[derive(ToSchema)]
#[schema(as = Cancel)]
pub(super) struct CancelDraft {
    /// The command's outcome says it.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// How a dead letter is retried.
#[derive(ToSchema)]
#[schema(as = Retry)]
pub(super) struct RetryDraft {
    /// Execute it with this payload instead; the original is kept.
    payload: Option<serde_json::Value>,
    /// Why; kept in the audit.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// How a dead letter is discarded.
#[derive(ToSchema)]
#[schema(as = Discard)]
pub(super) struct DiscardDraft {
    /// Why; kept in the audit.
    #[schema(max_length = 1000)]
    reason: String,
}

/// Why a request was refused (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// `urn:adjutant:problem:{code}`.
    r#type: String,
    title: String,
    status: u16,
    /// Stable, for programs.
    code: String,
    /// For people.
    detail: String,
    /// Every place that is wrong.
    errors: Option<Vec<PlaceBody>>,
    /// The command it is about.
    id: Option<uuid::Uuid>,
}

/// A place that is wrong.
#[derive(ToSchema)]
#[schema(as = ProblemPlace)]
struct PlaceBody {
    /// JSON pointer (RFC 6901) into the request.
    pointer: String,
    /// Which rule.
    rule: String,
    /// For people.
    message: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Adjutant",
        description = "Commands in, events out, exactly once.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        super::submit::submit, super::batch::submit_batch,
        super::commands::one, super::commands::list, super::watch::watch,
        super::cancel::one, super::cancel_all::all,
        super::views::one, super::views::page, super::streams::events,
        super::types::list, super::types::one,
        super::operations::members, super::projections::projections, super::operations::cache,
        super::lanes::lanes,
        super::dead_letters::list, super::dead_letters::groups, super::dead_letters::one,
        super::letter_actions::retry, super::letter_actions::discard,
        super::jobs::retry, super::jobs::discard, super::jobs::list, super::jobs::one,
        super::jobs::cancel,
        super::recurring::list, super::recurring::one, super::recurring::put,
        super::recurring::remove, super::recurring::pause, super::recurring::resume,
    ),
    tags(
        (name = "commands", description = "Role `submit`"),
        (name = "queries", description = "Role `read`"),
        (name = "operations", description = "Role `operate`"),
    ),
    modifiers(&BearerTokens),
)]
struct Contract;

struct BearerTokens;

impl Modify for BearerTokens {
    fn modify(&self, contract: &mut utoipa::openapi::OpenApi) {
        let components = contract.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", scheme);
    }
}

/// The contract in JSON.
pub(super) fn contract() -> String {
    Contract::openapi().to_json().unwrap_or_default()
}
