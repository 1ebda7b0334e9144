//! Loading streams: snapshots and the events after them, many streams in one round trip.

use tokio_postgres::{Row, types::ToSql};

use super::{PostgresStore, errors, pool};
use crate::{
    message::{RawJson, StreamId, Version},
    store::{LoadedStream, Snapshot, StoreError, StreamEvent},
};

/// Each stream's snapshot, if it may be used, and then the events after it. One statement, so that
/// both are of one moment: with a snapshot written between two, events would be missing, and a
/// sound stream would look like one that this release cannot read. Served by snapshots_pkey and
/// events_partition_stream_version_key.
pub(super) const LOAD: &str = "
    SELECT n.i, s.version, s.state_version, s.state, NULL::text, NULL::text
      FROM unnest($1::smallint[], $2::text[], $3::smallint[])
           WITH ORDINALITY AS n(partition, stream, state_version, i)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.snapshots f
                          WHERE f.partition = n.partition AND f.stream = n.stream
                            AND f.state_version = n.state_version OFFSET 0) AS s
    UNION ALL
    SELECT n.i, e.version, e.schema_version, NULL, e.type, e.data::text
      FROM unnest($1::smallint[], $2::text[], $3::smallint[])
           WITH ORDINALITY AS n(partition, stream, state_version, i)
     CROSS JOIN LATERAL (SELECT * FROM adjutant.events f
                          WHERE f.partition = n.partition AND f.stream = n.stream
                            AND f.version > COALESCE((
                                SELECT s.version FROM adjutant.snapshots s
                                 WHERE s.partition = n.partition AND s.stream = n.stream
                                   AND s.state_version = n.state_version), 0)
                         OFFSET 0) AS e
     ORDER BY 1, 2";

/// The parameters of [`LOAD`].
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
        let load = pool::prepare(&client, LOAD).await?;
        let rows = client.query(&load, &keys.params()).await.map_err(errors::before_commit)?;
        Ok(loaded(streams, &rows))
    }
}

/// Puts the rows together. Whether a version is missing is for the fold to judge.
pub(super) fn loaded(streams: &[(StreamId, i16)], rows: &[Row]) -> Vec<LoadedStream> {
    let unread = |(stream, _): &(StreamId, i16)| LoadedStream {
        stream: stream.clone(),
        snapshot: None,
        events: Vec::new(),
    };
    let mut loaded: Vec<LoadedStream> = streams.iter().map(unread).collect();
    for row in rows {
        let i: i64 = row.get(0);
        let Some(stream) = usize::try_from(i - 1).ok().and_then(|i| loaded.get_mut(i)) else {
            continue;
        };
        let version = Version(row.get(1));
        match row.get::<_, Option<Vec<u8>>>(3) {
            Some(state) => {
                stream.snapshot = Some(Snapshot { version, state_version: row.get(2), state });
            }
            None => stream.events.push(StreamEvent {
                version,
                event_type: row.get(4),
                schema_version: row.get(2),
                data: RawJson::from_trusted(row.get(5)),
            }),
        }
    }
    loaded
}
