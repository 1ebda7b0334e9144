//! For operators: members, caches.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    access::{Allowed, ToOperate},
    reports::CacheStats,
    respond::{self, List, store_problem},
};
use crate::{
    ingress::Problem,
    message::{GroupName, MemberId, Partition, Timestamp},
    store::{Member, Role},
};

/// A live process.
#[derive(Serialize, ToSchema)]
#[schema(as = Member)]
pub(super) struct MemberResource<'a> {
    /// Its incarnation.
    #[schema(value_type = uuid::Uuid)]
    id: MemberId,
    /// Host name and process id.
    name: &'a str,
    /// The release it runs.
    release: &'a str,
    #[schema(value_type = Vec<String>)]
    roles: &'a [Role],
    /// The groups it can run.
    #[schema(value_type = Vec<String>)]
    groups: &'a [GroupName],
    /// The partitions it owns, by group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Vec<i16>>>)]
    partitions: Option<BTreeMap<String, Vec<Partition>>>,
    /// It is stopping and owns nothing any more.
    draining: bool,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    heartbeat_at: Timestamp,
    /// Counters: entries applied by group and source.
    #[schema(value_type = Object)]
    stats: &'a serde_json::Value,
}

/// Live processes, with their roles and the partitions they own.
#[utoipa::path(
    get, path = "/v1/members", tag = "operations",
    responses((status = 200, body = List<MemberResource<'static>>))
)]
pub(super) async fn members(
    _: Allowed<ToOperate>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let ttl = Duration::from_millis(app.settings.member_ttl_ms);
    let members = app.store.live_members(ttl).await.map_err(store_problem)?;
    let mut owned = app.ownership.as_ref().map(|it| it.owned_by(&members).into_iter());
    let items = members
        .iter()
        .map(|member| {
            let owned = owned.as_mut().map(|owned| owned.next().unwrap_or_default());
            let partitions = owned.map(|owned| {
                let mut by_group = BTreeMap::<String, Vec<Partition>>::new();
                for it in owned {
                    by_group.entry(it.group.as_str().to_owned()).or_default().push(it.partition);
                }
                by_group
            });
            member_resource(member, partitions)
        })
        .collect();
    Ok(respond::json(StatusCode::OK, &List { items, next: None }))
}

fn member_resource(
    member: &Member,
    partitions: Option<BTreeMap<String, Vec<Partition>>>,
) -> MemberResource<'_> {
    MemberResource {
        id: member.id,
        name: &member.name,
        release: &member.release,
        roles: &member.roles,
        groups: &member.groups,
        partitions,
        draining: member.draining,
        started_at: member.started_at,
        heartbeat_at: member.heartbeat_at,
        stats: &member.stats,
    }
}

/// The caches of the process that answers.
#[utoipa::path(
    get, path = "/v1/cache", tag = "operations",
    responses((status = 200, body = List<CacheStats>))
)]
pub(super) async fn cache(_: Allowed<ToOperate>, State(app): State<App>) -> Response {
    let items = app.cache.as_ref().map(|cache| cache.caches()).unwrap_or_default();
    respond::json(StatusCode::OK, &List { items, next: None })
}
