//! Loading streams: the snapshot, if it may be used, and the events after it.

use rusqlite::params;

use super::transaction::{Transaction, column};
use crate::{
    message::{Partition, RawJson, StreamId, Version},
    store::{LoadedStream, NewSnapshot, Snapshot, StoreError, StreamEvent},
};

/// Served by the primary key.
const SNAPSHOT: &str = "
    SELECT version, state_version, state FROM snapshots
     WHERE partition = ?1 AND stream = ?2 AND state_version = ?3";

/// Served by UNIQUE (partition, stream, version).
const EVENTS: &str = "
    SELECT version, type, schema_version, data FROM events
     WHERE partition = ?1 AND stream = ?2 AND version > ?3 ORDER BY version";

/// Served by UNIQUE (partition, stream, version), read backwards.
const VERSION: &str = "
    SELECT version FROM events WHERE partition = ?1 AND stream = ?2
     ORDER BY version DESC LIMIT 1";

const WRITE_SNAPSHOT: &str = "
    INSERT INTO snapshots AS s (partition, stream, version, state_version, state)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (partition, stream) DO UPDATE
       SET version = excluded.version, state_version = excluded.state_version,
           state = excluded.state
     WHERE s.version < excluded.version OR s.state_version <> excluded.state_version";

impl Transaction<'_> {
    /// Streams in the order in which they are asked for.
    pub(super) fn load_streams(
        &self,
        streams: &[(StreamId, i16)],
    ) -> Result<Vec<LoadedStream>, StoreError> {
        streams.iter().map(|(stream, state_version)| self.load(stream, *state_version)).collect()
    }

    fn load(&self, stream: &StreamId, state_version: i16) -> Result<LoadedStream, StoreError> {
        let partition = self.partitions.of(stream).0;
        let key = params![partition, stream.as_str(), state_version];
        let snapshot = self.first(SNAPSHOT, key, |row| {
            Ok(Snapshot {
                version: Version(column(row, 0)?),
                state_version: column(row, 1)?,
                state: column(row, 2)?,
            })
        })?;
        let after = snapshot.as_ref().map(|snapshot| snapshot.version).unwrap_or_default();
        let events = self.all(EVENTS, params![partition, stream.as_str(), after.0], |row| {
            Ok(StreamEvent {
                version: Version(column(row, 0)?),
                event_type: column(row, 1)?,
                schema_version: column(row, 2)?,
                data: RawJson::from_trusted(column(row, 3)?),
            })
        })?;
        Ok(LoadedStream { stream: stream.clone(), snapshot, events })
    }

    /// The version of a stream (0: no event yet).
    pub(super) fn stream_version(
        &self,
        partition: Partition,
        stream: &StreamId,
    ) -> Result<Version, StoreError> {
        self.number(VERSION, params![partition.0, stream.as_str()]).map(Version)
    }

    pub(super) fn write_snapshot(&self, snapshot: &NewSnapshot) -> Result<(), StoreError> {
        self.execute(
            WRITE_SNAPSHOT,
            params![
                snapshot.partition.0,
                snapshot.stream.as_str(),
                snapshot.version.0,
                snapshot.state_version,
                snapshot.state,
            ],
        )?;
        Ok(())
    }
}
