//! What every operation runs in: a connection inside a transaction, with the time at which the
//! operation began. The same functions serve the writer's thread, the readers and the store that
//! runs inline.

use rusqlite::{Connection, Params, Row, types::FromSql};
use uuid::Uuid;

use super::{clock::from_micros, errors};
use crate::{
    message::{Partition, PartitionCount, Timestamp},
    store::StoreError,
};

/// A connection inside a transaction (or a savepoint of one).
pub(super) struct Transaction<'c> {
    pub(super) connection: &'c Connection,
    /// The store's time, in microseconds since 1970.
    pub(super) now: i64,
    pub(super) partitions: PartitionCount,
}

impl Transaction<'_> {
    /// Runs a statement; answers how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(errors::statement)?;
        statement.execute(params).map_err(errors::statement)
    }

    /// Every row.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.within(usize::MAX, sql, params, |_| 0, read)
    }

    /// The rows up to and including the one with which their bytes pass `limit`.
    pub(super) fn within<T>(
        &self,
        limit: usize,
        sql: &str,
        params: impl Params,
        bytes: impl Fn(&T) -> usize,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(errors::statement)?;
        let mut rows = statement.query(params).map_err(errors::statement)?;
        let (mut found, mut taken) = (Vec::new(), 0_usize);
        while let Some(row) = rows.next().map_err(errors::statement)? {
            let item = read(row)?;
            taken = taken.saturating_add(bytes(&item));
            found.push(item);
            if taken > limit {
                break;
            }
        }
        Ok(found)
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(errors::statement)?;
        let mut rows = statement.query(params).map_err(errors::statement)?;
        rows.next().map_err(errors::statement)?.map(read).transpose()
    }

    /// Whether there is a row.
    pub(super) fn exists(&self, sql: &str, params: impl Params) -> Result<bool, StoreError> {
        Ok(self.first(sql, params, |_| Ok(()))?.is_some())
    }

    /// A number of the first row; 0 if there is none.
    pub(super) fn number(&self, sql: &str, params: impl Params) -> Result<i64, StoreError> {
        Ok(self.first(sql, params, |row| column(row, 0))?.unwrap_or_default())
    }

    /// The store's time.
    pub(super) fn time(&self) -> Result<Timestamp, StoreError> {
        from_micros(self.now)
    }
}

pub(super) fn column<T: FromSql>(row: &Row<'_>, i: usize) -> Result<T, StoreError> {
    row.get(i).map_err(errors::statement)
}

pub(super) fn id(row: &Row<'_>, i: usize) -> Result<Uuid, StoreError> {
    column(row, i).map(Uuid::from_bytes)
}

pub(super) fn partition(row: &Row<'_>, i: usize) -> Result<Partition, StoreError> {
    column(row, i).map(Partition)
}

pub(super) fn time(row: &Row<'_>, i: usize) -> Result<Timestamp, StoreError> {
    from_micros(column(row, i)?)
}

pub(super) fn maybe_time(row: &Row<'_>, i: usize) -> Result<Option<Timestamp>, StoreError> {
    column::<Option<i64>>(row, i)?.map(from_micros).transpose()
}

/// Numbers as a JSON array, for `IN (SELECT value FROM json_each(?))`.
pub(super) fn numbers(numbers: impl IntoIterator<Item = i64>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

pub(super) fn partition_numbers(partitions: &[Partition]) -> String {
    numbers(partitions.iter().map(|partition| i64::from(partition.0)))
}
