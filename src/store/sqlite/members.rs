//! The members table. One process holds a file, but a service may run several members in it.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteStore, storable,
    transaction::{Transaction, column, id, time},
};
use crate::{
    message::{GroupName, MemberId, Timestamp},
    store::{
        Heartbeat, Member, Members, Role, StoreError,
        stored::{json_text, parse},
    },
};

/// After this long without a sign of life a member is removed, in microseconds.
const SILENT: i64 = 3_600 * 1_000_000;

/// A member that says it is draining stays so. Served by the primary key.
const BEAT: &str = "
    INSERT INTO members (id, name, release, roles, groups, draining, stats, started_at,
                         heartbeat_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
    ON CONFLICT (id) DO UPDATE
       SET draining = excluded.draining, stats = excluded.stats,
           heartbeat_at = excluded.heartbeat_at";

/// The table holds a row a process: no index needed.
const LIVE: &str = "
    SELECT id, name, release, roles, groups, draining, started_at, heartbeat_at, stats
      FROM members WHERE heartbeat_at > ?1 ORDER BY id";

const LEAVE: &str = "DELETE FROM members WHERE id = ?1 OR heartbeat_at < ?2";

const FORGET: &str = "DELETE FROM members";

/// Whoever opens a file is alone with it: all its members are of processes that are gone. To wait
/// for their silence would leave their partitions to nobody.
pub(super) fn forget_all(connection: &rusqlite::Connection) -> rusqlite::Result<usize> {
    connection.execute(FORGET, ())
}

#[async_trait]
impl Members for SqliteStore {
    async fn heartbeat(
        &self,
        beat: &Heartbeat,
        ttl: Duration,
    ) -> Result<(Timestamp, Vec<Member>), StoreError> {
        let beat = beat.clone();
        let beaten = self.engine.write(move |transaction| {
            write(transaction, &beat)?;
            Ok((transaction.time()?, live(transaction, ttl)?))
        });
        beaten.await
    }

    async fn live_members(&self, ttl: Duration) -> Result<Vec<Member>, StoreError> {
        self.engine.read(move |transaction| live(transaction, ttl)).await
    }

    /// No other process can have this file open: there is nobody to tell.
    async fn notify_members(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        let left = self.engine.write(move |transaction| {
            let silent_since = transaction.now.saturating_sub(SILENT);
            transaction.execute(LEAVE, params![id.0.as_bytes(), silent_since])
        });
        left.await?;
        Ok(())
    }
}

fn write(transaction: &Transaction<'_>, beat: &Heartbeat) -> Result<(), StoreError> {
    let roles: Vec<&str> = beat.roles.iter().map(|role| role.as_str()).collect();
    let groups: Vec<&str> = beat.groups.iter().map(GroupName::as_str).collect();
    let stats = json_text(&beat.stats)?;
    transaction.execute(
        BEAT,
        params![
            beat.id.0.as_bytes(),
            storable::text(&beat.name)?,
            storable::text(&beat.release)?,
            json_text(&roles)?,
            json_text(&groups)?,
            beat.draining,
            storable::json(&stats)?,
            transaction.now,
        ],
    )?;
    Ok(())
}

fn live(transaction: &Transaction<'_>, ttl: Duration) -> Result<Vec<Member>, StoreError> {
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    transaction.all(LIVE, [transaction.now.saturating_sub(ttl)], member)
}

pub(super) fn member(row: &Row<'_>) -> Result<Member, StoreError> {
    let roles: Vec<String> = parse(&column::<String>(row, 3)?)?;
    let groups: Vec<String> = parse(&column::<String>(row, 4)?)?;
    Ok(Member {
        id: MemberId(id(row, 0)?),
        name: column(row, 1)?,
        release: column(row, 2)?,
        // A newer release may have roles that this one does not know.
        roles: roles.iter().filter_map(|role| role.parse::<Role>().ok()).collect(),
        groups: groups.iter().map(|group| GroupName::from_stored(group)).collect(),
        draining: column(row, 5)?,
        started_at: time(row, 6)?,
        heartbeat_at: time(row, 7)?,
        stats: parse(&column::<String>(row, 8)?)?,
    })
}
