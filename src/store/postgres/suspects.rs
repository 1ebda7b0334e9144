//! Owners of partitions and crash counts. Nothing here must be on disk when it is answered: it
//! outlives a process, and a server that crashes forgets at worst a suspicion.

use async_trait::async_trait;

use super::{PostgresStore, transaction::Params};
use crate::{
    message::{GroupName, MemberId, Offset, Partition},
    store::{StoreError, Suspects, Taken},
};

/// A row that another member holds changes only by force. Served by partition_owners_pkey, as all
/// that follow are by their primary keys.
const TAKE: &str = "
    WITH before AS MATERIALIZED (
        SELECT o.member, o.released FROM adjutant.partition_owners o
         WHERE o.group_name = $1 AND o.partition = $2 FOR UPDATE),
    -- Looked at before the row is written: afterwards this statement does not see the old one.
    held AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE NOT b.released AND b.member <> $3) > 0 AS is_held
          FROM before b),
    taken AS (
        INSERT INTO adjutant.partition_owners AS p (group_name, partition, member, released, since)
        SELECT $1, $2, $3, false, clock_timestamp() FROM held WHERE $4 OR NOT held.is_held
        ON CONFLICT (group_name, partition) DO UPDATE
           SET member = EXCLUDED.member, released = false, since = EXCLUDED.since
        RETURNING 1)
    SELECT EXISTS (SELECT 1 FROM taken), held.is_held FROM held";

const RELEASE: &str = "
    WITH released AS (
        UPDATE adjutant.partition_owners SET released = true, since = clock_timestamp()
         WHERE group_name = $1 AND partition = $2 AND member = $3
        RETURNING group_name, partition)
    DELETE FROM adjutant.suspects s USING released r
     WHERE s.group_name = r.group_name AND s.partition = r.partition";

const BEGIN: &str = "
    WITH finished AS (
        DELETE FROM adjutant.suspects
         WHERE group_name = $1 AND partition = $2 AND \"offset\" < $3)
    INSERT INTO adjutant.suspects AS s (group_name, partition, \"offset\", crashes)
    VALUES ($1, $2, $3, 1)
    ON CONFLICT (group_name, partition, \"offset\") DO UPDATE SET crashes = s.crashes + 1
    RETURNING CASE WHEN $3 > 0 THEN crashes - 1
              ELSE (SELECT count(*)::integer FROM adjutant.suspects b
                     WHERE b.group_name = $1 AND b.partition = $2) END";

const END: &str = "DELETE FROM adjutant.suspects WHERE group_name = $1 AND partition = $2";

const NOT_ON_DISK: &str = "SET LOCAL synchronous_commit = off";

#[async_trait]
impl Suspects for PostgresStore {
    async fn take_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
        by_force: bool,
    ) -> Result<Taken, StoreError> {
        let params: Params<'_> = &[&group.as_str(), &partition.0, &member.0, &by_force];
        let rows = self.unsynced(TAKE, params).await?;
        let row = rows.first().ok_or_else(|| StoreError::Internal("no answer".to_owned()))?;
        Ok(match (row.get(0), row.get(1)) {
            (true, false) => Taken::Released,
            (true, true) => Taken::Unreleased,
            (false, _) => Taken::Held,
        })
    }

    async fn release_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
    ) -> Result<(), StoreError> {
        self.unsynced(RELEASE, &[&group.as_str(), &partition.0, &member.0]).await?;
        Ok(())
    }

    async fn begin_suspect(
        &self,
        group: &GroupName,
        partition: Partition,
        offset: Offset,
    ) -> Result<i32, StoreError> {
        let rows = self.unsynced(BEGIN, &[&group.as_str(), &partition.0, &offset.0]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Internal("no answer".to_owned()))?;
        Ok(row.get(0))
    }

    async fn end_suspects(
        &self,
        group: &GroupName,
        partition: Partition,
    ) -> Result<(), StoreError> {
        self.unsynced(END, &[&group.as_str(), &partition.0]).await?;
        Ok(())
    }
}

impl PostgresStore {
    /// A transaction of one statement whose COMMIT does not wait for the disk.
    pub(super) async fn unsynced(
        &self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let transaction = self.transaction().await?;
        let set = transaction.prepare(NOT_ON_DISK).await?;
        let statement = transaction.prepare(sql).await?;
        let mut answers = transaction.run_with_all(&[(&set, &[]), (&statement, params)]).await?;
        Ok(answers.pop().unwrap_or_default())
    }
}
