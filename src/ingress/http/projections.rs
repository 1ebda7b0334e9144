//! For operators: how far each projection is, and what is parked in it.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    access::{Allowed, ToOperate},
    respond::{self, List, store_problem},
};
use crate::{
    dead_letter::DeadLetterId,
    ingress::Problem,
    message::{GroupName, MemberId, Offset, Partition, Position, Timestamp},
    store::{EventProgress, Generation, Member, ParkedKey},
    worker::suspension,
};

/// How many parked keys of a projection are named.
const NAMED: usize = 100;

/// A projection and how far it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Projection)]
pub(super) struct ProjectionResource {
    name: &'static str,
    /// Which build of the view is served.
    #[schema(value_type = i32)]
    version: Generation,
    /// `running`; `suspended`: a process at least pauses it, because the events of most keys fail
    /// there for one reason.
    state: &'static str,
    /// Which processes pause it.
    suspended_in: Vec<Suspension>,
    partitions: Vec<Progress>,
    parked: Parked,
}

/// A process that pauses a projection.
#[derive(Serialize, ToSchema)]
struct Suspension {
    /// Its incarnation.
    #[schema(value_type = uuid::Uuid)]
    member: MemberId,
    /// Host name and process id.
    process: String,
    /// `open`: nothing is applied; `half_open`: a probe is.
    breaker: String,
}

/// How far a group is in one partition.
#[derive(Serialize, ToSchema)]
struct Progress {
    #[schema(value_type = i16)]
    partition: Partition,
    /// The last offset it has finished.
    #[schema(value_type = i64)]
    checkpoint: Offset,
    /// The newest offset there is.
    #[schema(value_type = i64)]
    head: Offset,
    /// How many events it is behind.
    lag: i64,
    /// How long the first event behind the checkpoint has waited, in seconds (0: there is none).
    lag_seconds: f64,
}

/// Keys that are parked.
#[derive(Serialize, ToSchema)]
struct Parked {
    /// How many.
    count: i64,
    /// The first hundred.
    keys: Vec<ParkedResource>,
}

/// A key that is parked: its events wait.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedKey)]
struct ParkedResource {
    /// `stream`, `document` or `instance`.
    scope: &'static str,
    key: String,
    /// The event that could not be applied.
    #[schema(value_type = String)]
    failed_at: Position,
    /// `waiting` for a person, or `replaying`.
    state: &'static str,
    /// How often the event was tried.
    attempts: i32,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    parked_at: Timestamp,
    #[schema(value_type = uuid::Uuid)]
    dead_letter: DeadLetterId,
}

/// Projections, with checkpoint, head and lag by partition, and the keys that are parked.
#[utoipa::path(
    get, path = "/v1/projections", tag = "operations",
    responses((status = 200, body = List<ProjectionResource>))
)]
pub(super) async fn projections(
    _: Allowed<ToOperate>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let counts = app.store.parked_counts().await.map_err(store_problem)?;
    let ttl = Duration::from_millis(app.settings.member_ttl_ms);
    let members = app.store.live_members(ttl).await.map_err(store_problem)?;
    let mut items = Vec::new();
    for projection in app.registry.projections() {
        let name = projection.name();
        let group = GroupName::projection(name);
        let progress = app.store.event_progress(&group).await.map_err(store_problem)?;
        let count = counts.iter().find(|count| count.group == group).map_or(0, |count| count.keys);
        let keys = if count > 0 {
            app.store.parked_keys(&group, None, NAMED).await.map_err(store_problem)?
        } else {
            Vec::new()
        };
        let (now, partitions) = progress;
        let suspended_in = suspensions(&members, &group);
        let partitions = app.partitions.all().zip(&partitions);
        items.push(ProjectionResource {
            name,
            version: Generation::FIRST,
            state: if suspended_in.is_empty() { "running" } else { "suspended" },
            suspended_in,
            partitions: partitions.map(|(partition, it)| progress_in(partition, it, now)).collect(),
            parked: Parked { count, keys: keys.into_iter().map(resource).collect() },
        });
    }
    Ok(respond::json(StatusCode::OK, &List { items, next: None }))
}

fn suspensions(members: &[Member], group: &GroupName) -> Vec<Suspension> {
    let suspended = members.iter().filter_map(|member| {
        let breaker = suspension(&member.stats, group)?.to_owned();
        Some(Suspension { member: member.id, process: member.name.clone(), breaker })
    });
    suspended.collect()
}

fn progress_in(partition: Partition, progress: &EventProgress, now: Timestamp) -> Progress {
    let EventProgress { checkpoint, head, waiting_since } = *progress;
    let waited = waiting_since.map_or(0.0, |since| (now - since).as_seconds_f64());
    Progress {
        partition,
        checkpoint,
        head,
        lag: (head.0 - checkpoint.0).max(0),
        lag_seconds: waited.max(0.0),
    }
}

fn resource(parked: ParkedKey) -> ParkedResource {
    ParkedResource {
        scope: parked.name.scope.as_str(),
        key: parked.name.key,
        failed_at: parked.failed,
        state: if parked.replay.is_some() { "replaying" } else { "waiting" },
        attempts: parked.attempts,
        parked_at: parked.parked_at,
        dead_letter: parked.dead_letter,
    }
}
