//! Loading streams: snapshots and the events after them, many streams in one round trip.

use std::collections::HashMap;

use futures_util::future::join;
use tokio_postgres::{Row, types::ToSql};

use super::{PostgresStore, errors, pool};
use crate::{
    message::{RawJson, StreamId, Version},
    store::{LoadedStream, Snapshot, StoreError, StreamEvent},
};

/// Served by snapshots_pkey.
pub(super) const SNAPSHOTS: &str = "
    SELECT n.i, s.version, s.state_version, s.state
      FROM unnest($1::smallint[], $2::text[], $3::smallint[])
           WITH ORDINALITY AS n(partition, stream, state_version, i)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.snapshots f
                          WHERE f.partition = n.partition AND f.stream = n.stream
                            AND f.state_version = n.state_version OFFSET 0) AS s";

/// Served by events_partition_stream_version_key. The snapshot is joined again, so that both
/// queries travel in one flight; a snapshot written between the two only makes a gap that is seen.
pub(super) const EVENTS: &str = "
    SELECT n.i, e.version, e.type, e.schema_version, e.data::text
      FROM unnest($1::smallint[], $2::text[], $3::smallint[])
           WITH ORDINALITY AS n(partition, stream, state_version, i)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.events f
                          WHERE f.partition = n.partition AND f.stream = n.stream
                            AND f.version > COALESCE((
                                SELECT s.version FROM adjutant.snapshots s
                                 WHERE s.partition = n.partition AND s.stream = n.stream
                                   AND s.state_version = n.state_version), 0)
                         OFFSET 0) AS e
     ORDER BY n.i, e.version";

/// The parameters of both queries.
pub(super) struct StreamKeys {
    partitions: Vec<i16>,
    streams: Vec<String>,
    state_versions: Vec<i16>,
}

impl StreamKeys {
    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.partitions, &self.streams, &self.state_versions]
    }
}

impl PostgresStore {
    pub(super) fn stream_keys(&self, streams: &[(StreamId, i16)]) -> StreamKeys {
        StreamKeys {
            partitions: streams.iter().map(|(s, _)| self.partitions().of(s).0).collect(),
            streams: streams.iter().map(|(s, _)| s.as_str().to_owned()).collect(),
            state_versions: streams.iter().map(|(_, version)| *version).collect(),
        }
    }

    pub(super) async fn read_streams(
        &self,
        streams: &[(StreamId, i16)],
    ) -> Result<Vec<LoadedStream>, StoreError> {
        let client = self.hot().await?;
        let keys = self.stream_keys(streams);
        let snapshots = pool::prepare(&client, SNAPSHOTS).await?;
        let events = pool::prepare(&client, EVENTS).await?;
        let params = keys.params();
        // Polled together: one flight.
        let (snapshots, events) =
            join(client.query(&snapshots, &params), client.query(&events, &params)).await;
        let snapshots = snapshots.map_err(errors::before_commit)?;
        let events = events.map_err(errors::before_commit)?;
        Ok(loaded(streams, &snapshots, &events))
    }
}

/// Puts the rows of both queries together. Whether a version is missing is for the fold to judge.
pub(super) fn loaded(
    streams: &[(StreamId, i16)],
    snapshots: &[Row],
    events: &[Row],
) -> Vec<LoadedStream> {
    let mut snapshots: HashMap<i64, Snapshot> = snapshots
        .iter()
        .map(|row| {
            let snapshot = Snapshot {
                version: Version(row.get(1)),
                state_version: row.get(2),
                state: row.get(3),
            };
            (row.get(0), snapshot)
        })
        .collect();
    let mut loaded: Vec<LoadedStream> = streams
        .iter()
        .zip(1_i64..)
        .map(|((stream, _), i)| LoadedStream {
            stream: stream.clone(),
            snapshot: snapshots.remove(&i),
            events: Vec::new(),
        })
        .collect();
    for row in events {
        let i: i64 = row.get(0);
        let Some(stream) = usize::try_from(i - 1).ok().and_then(|i| loaded.get_mut(i)) else {
            continue;
        };
        let last = stream.events.last().map(|event| event.version);
        let after = last.or(stream.snapshot.as_ref().map(|s| s.version)).unwrap_or_default();
        let version = Version(row.get(1));
        if version <= after {
            continue; // covered by a snapshot that was younger than the other query
        }
        stream.events.push(StreamEvent {
            version,
            event_type: row.get(2),
            schema_version: row.get(3),
            data: RawJson::from_trusted(row.get(4)),
        });
    }
    loaded
}
