//! How the lanes of the process that answers stand.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    access::{Allowed, ToOperate},
    respond::{self, List, store_problem},
};
use crate::{
    immediate::{LaneStats, LatencyBucket},
    ingress::Problem,
    message::GroupName,
};

/// A lane.
#[derive(Serialize, ToSchema)]
#[schema(as = Lane)]
pub(super) struct LaneResource {
    /// `queued` or `immediate`.
    name: &'static str,
    /// Whose figures these are: of the whole `service`, or of the `process` that answers.
    of: &'static str,
    /// Commands that are being executed. Absent for the queued lane: its workers know.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<usize>,
    /// Commands that wait: for the queued lane, entries of the command log that are not finished.
    waiting: u64,
    /// Commands that there was no room for, since this process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<u64>,
    /// Bytes that waiting and running commands hold in memory, roughly.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// Commands that were executed, since this process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<u64>,
    /// How many of them took how long, from arrival to end. The same is in the metrics as
    /// `adjutant_lane_seconds`, for both lanes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latency: Vec<BucketResource>,
}

/// Commands that took at most so long, and longer than the bucket before.
#[derive(Serialize, ToSchema)]
#[schema(as = LatencyBucket)]
struct BucketResource {
    /// In milliseconds; absent: longer than all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most_ms: Option<u64>,
    count: u64,
}

/// The lanes: what runs, waits and was refused.
#[utoipa::path(
    get, path = "/v1/lanes", tag = "operations",
    responses((status = 200, body = List<LaneResource>))
)]
pub(super) async fn lanes(
    _: Allowed<ToOperate>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let heads = app.store.heads().await.map_err(store_problem)?;
    let reached = app.store.checkpoints(&GroupName::commands()).await.map_err(store_problem)?;
    let behind = heads.commands.iter().zip(&reached).map(|(head, reached)| head.0 - reached.0);
    let queued = LaneResource {
        name: "queued",
        of: "service",
        running: None,
        waiting: behind.sum::<i64>().max(0).unsigned_abs(),
        refused: None,
        bytes: None,
        executed: None,
        latency: Vec::new(),
    };
    let immediate = app.immediate.as_ref().map(|lane| immediate(lane.stats()));
    let items = [Some(queued), immediate].into_iter().flatten().collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: None }))
}

fn immediate(stats: LaneStats) -> LaneResource {
    let bucket = |LatencyBucket { at_most, count }| BucketResource {
        at_most_ms: at_most.map(|at_most| u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX)),
        count,
    };
    LaneResource {
        name: "immediate",
        of: "process",
        running: Some(stats.running),
        waiting: stats.waiting as u64,
        refused: Some(stats.refused),
        bytes: Some(stats.bytes),
        executed: Some(stats.executed),
        latency: stats.latency.into_iter().map(bucket).collect(),
    }
}
