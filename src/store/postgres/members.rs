//! The members table.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{PostgresStore, errors, hints, pool};
use crate::{
    message::{GroupName, MemberId, Timestamp},
    store::{Heartbeat, Member, Members, Role, StoreError},
};

/// A member that says it is draining stays so. Served by members_pkey.
const BEAT: &str = "
    INSERT INTO adjutant.members AS m (id, name, release, roles, groups, draining, stats, started_at,
                                       heartbeat_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO UPDATE
       SET draining = EXCLUDED.draining, stats = EXCLUDED.stats,
           heartbeat_at = EXCLUDED.heartbeat_at
    RETURNING clock_timestamp()";

/// The table holds a row a process: no index needed.
const LIVE: &str = "
    SELECT id, name, release, roles, groups, draining, started_at, heartbeat_at, stats
      FROM adjutant.members
     WHERE heartbeat_at > clock_timestamp() - $1::bigint * interval '1 millisecond'
     ORDER BY id";

const LEAVE: &str = "
    DELETE FROM adjutant.members
     WHERE id = $1 OR heartbeat_at < clock_timestamp() - interval '1 hour'";

#[async_trait]
impl Members for PostgresStore {
    async fn heartbeat(
        &self,
        beat: &Heartbeat,
        ttl: Duration,
    ) -> Result<(Timestamp, Vec<Member>), StoreError> {
        let client = self.hot().await?;
        let write = pool::prepare(&client, BEAT).await?;
        let roles: Vec<&str> = beat.roles.iter().map(|role| role.as_str()).collect();
        let groups: Vec<&str> = beat.groups.iter().map(GroupName::as_str).collect();
        let row = client
            .query_one(
                &write,
                &[
                    &beat.id.0,
                    &beat.name,
                    &beat.release,
                    &roles,
                    &groups,
                    &beat.draining,
                    &beat.stats,
                ],
            )
            .await
            .map_err(errors::after_commit)?;
        drop(client);
        Ok((row.get(0), self.live_members(ttl).await?))
    }

    async fn live_members(&self, ttl: Duration) -> Result<Vec<Member>, StoreError> {
        let client = self.hot().await?;
        let live = pool::prepare(&client, LIVE).await?;
        let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let rows = client.query(&live, &[&ttl]).await.map_err(errors::before_commit)?;
        Ok(rows.iter().map(member).collect())
    }

    async fn notify_members(&self) -> Result<(), StoreError> {
        hints::notify(&self.hot().await?, hints::MEMBERS).await
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        let client = self.hot().await?;
        let leave = pool::prepare(&client, LEAVE).await?;
        client.execute(&leave, &[&id.0]).await.map_err(errors::after_commit)?;
        hints::notify(&client, hints::MEMBERS).await
    }
}

pub(super) fn member(row: &Row) -> Member {
    let roles: Vec<String> = row.get(3);
    let groups: Vec<String> = row.get(4);
    Member {
        id: MemberId(row.get(0)),
        name: row.get(1),
        release: row.get(2),
        // A newer release may have roles that this one does not know.
        roles: roles.iter().filter_map(|role| role.parse::<Role>().ok()).collect(),
        groups: groups.iter().map(|group| GroupName::from_stored(group)).collect(),
        draining: row.get(5),
        started_at: row.get(6),
        heartbeat_at: row.get(7),
        stats: row.get(8),
    }
}
