//! Owners of partitions and crash counts.

use async_trait::async_trait;
use rusqlite::params;

use super::{
    SqliteStore,
    transaction::{Transaction, column, id},
};
use crate::{
    message::{GroupName, MemberId, Offset, Partition},
    store::{StoreError, Suspects, Taken},
};

/// Served by the primary key, as all that follow.
const OWNER: &str = "
    SELECT member, released FROM partition_owners WHERE group_name = ?1 AND partition = ?2";

const TAKE: &str = "
    INSERT INTO partition_owners (group_name, partition, member, released, since)
    VALUES (?1, ?2, ?3, 0, ?4)
    ON CONFLICT (group_name, partition) DO UPDATE
       SET member = excluded.member, released = 0, since = excluded.since";

const RELEASE: &str = "
    UPDATE partition_owners SET released = 1, since = ?4
     WHERE group_name = ?1 AND partition = ?2 AND member = ?3";

const FINISHED: &str = "
    DELETE FROM suspects WHERE group_name = ?1 AND partition = ?2 AND \"offset\" < ?3";

const COUNT: &str = "
    INSERT INTO suspects (group_name, partition, \"offset\", crashes) VALUES (?1, ?2, ?3, 1)
    ON CONFLICT (group_name, partition, \"offset\") DO UPDATE SET crashes = crashes + 1";

const COUNTED: &str = "
    SELECT count(*) FROM suspects WHERE group_name = ?1 AND partition = ?2";

const CRASHES: &str = "
    SELECT crashes FROM suspects WHERE group_name = ?1 AND partition = ?2 AND \"offset\" = ?3";

const END: &str = "DELETE FROM suspects WHERE group_name = ?1 AND partition = ?2";

#[async_trait]
impl Suspects for SqliteStore {
    async fn take_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
        by_force: bool,
    ) -> Result<Taken, StoreError> {
        let group = group.clone();
        let taken = self.engine.write(move |transaction| {
            let held = transaction.is_held(&group, partition, member)?;
            if held && !by_force {
                return Ok(Taken::Held);
            }
            let (group, member) = (group.as_str(), member.0.as_bytes());
            transaction.execute(TAKE, params![group, partition.0, member, transaction.now])?;
            Ok(if held { Taken::Unreleased } else { Taken::Released })
        });
        taken.await
    }

    async fn release_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
    ) -> Result<(), StoreError> {
        let group = group.clone();
        let released = self.engine.write(move |transaction| {
            let (group, member) = (group.as_str(), member.0.as_bytes());
            let place = params![group, partition.0, member, transaction.now];
            if transaction.execute(RELEASE, place)? > 0 {
                transaction.execute(END, params![group, partition.0])?;
            }
            Ok(())
        });
        released.await
    }

    async fn begin_suspect(
        &self,
        group: &GroupName,
        partition: Partition,
        offset: Offset,
    ) -> Result<i32, StoreError> {
        let group = group.clone();
        let counted = self.engine.write(move |transaction| {
            let place = params![group.as_str(), partition.0, offset.0];
            if offset.0 <= 0 {
                let counted = params![group.as_str(), partition.0];
                let before = transaction.first(COUNTED, counted, |row| column::<i32>(row, 0))?;
                transaction.execute(COUNT, place)?;
                return Ok(before.unwrap_or_default());
            }
            transaction.execute(FINISHED, place)?;
            transaction.execute(COUNT, place)?;
            Ok(transaction.first(CRASHES, place, |row| column::<i32>(row, 0))?.unwrap_or(1) - 1)
        });
        counted.await
    }

    async fn end_suspects(
        &self,
        group: &GroupName,
        partition: Partition,
    ) -> Result<(), StoreError> {
        let group = group.clone();
        let ended = self.engine.write(move |transaction| {
            transaction.execute(END, params![group.as_str(), partition.0])?;
            Ok(())
        });
        ended.await
    }
}

impl Transaction<'_> {
    /// Whether another member has not released it.
    fn is_held(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
    ) -> Result<bool, StoreError> {
        let owner = self.first(OWNER, params![group.as_str(), partition.0], |row| {
            Ok((MemberId(id(row, 0)?), column::<bool>(row, 1)?))
        })?;
        Ok(owner.is_some_and(|(owner, released)| !released && owner != member))
    }
}
