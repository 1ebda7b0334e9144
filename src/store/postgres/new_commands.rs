//! Rows of `adjutant.commands`: their columns, and the way in.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    PostgresStore,
    columns::{Jsonb, OwnedJsonb, json_text, lane_code, metadata_json},
};
use crate::{
    message::Timestamp,
    store::{NewCommand, StoreError},
};

/// Ids are sorted, so that two batches with common ids wait for each other in one order. Served by
/// commands_pkey. The function `adjutant.enter` writes the same columns.
pub(super) const INSERT_UNLESS_THERE: &str = "
    WITH clock AS (SELECT clock_timestamp() AS now)
    INSERT INTO adjutant.commands (bucket, id, partition, stream, type, lane, payload, metadata,
                                   expected_version, not_before, reply_to, content_hash, not_after,
                                   callback_url, accepted_at)
    SELECT n.*, clock.now
      FROM clock, unnest($1::smallint[], $2::uuid[], $3::smallint[], $4::text[], $5::text[],
                         $6::smallint[], $7::jsonb[], $8::jsonb[], $9::bigint[],
                         $10::timestamptz[], $11::jsonb[], $12::bytea[], $13::timestamptz[],
                         $14::text[]) AS n
    ON CONFLICT (bucket, id) DO NOTHING
    RETURNING id, accepted_at, COALESCE(not_before > accepted_at, false)";

/// Commands as columns, sorted by their key, each id once.
#[derive(Default)]
pub(super) struct NewColumns<'a> {
    buckets: Vec<i16>,
    ids: Vec<Uuid>,
    partitions: Vec<i16>,
    streams: Vec<&'a str>,
    types: Vec<&'a str>,
    lanes: Vec<i16>,
    payloads: Vec<Jsonb<'a>>,
    metadata: Vec<Option<OwnedJsonb>>,
    expected_versions: Vec<Option<i64>>,
    not_before: Vec<Option<Timestamp>>,
    reply_to: Vec<Option<OwnedJsonb>>,
    content_hashes: Vec<&'a [u8]>,
    not_after: Vec<Option<Timestamp>>,
    callback_urls: Vec<Option<&'a str>>,
}

impl<'a> NewColumns<'a> {
    pub(super) fn of(store: &PostgresStore, batch: &'a [NewCommand]) -> Result<Self, StoreError> {
        let mut sorted: Vec<&NewCommand> = batch.iter().collect();
        sorted.sort_by_key(|command| (store.bucket(command.id), command.id));
        sorted.dedup_by_key(|command| command.id);
        let mut columns = Self::default();
        for command in sorted {
            let reply_to = command.reply_to.as_ref().map(json_text).transpose()?;
            columns.buckets.push(store.bucket(command.id));
            columns.ids.push(command.id.0);
            columns.partitions.push(store.partitions().of(&command.stream).0);
            columns.streams.push(command.stream.as_str());
            columns.types.push(&command.command_type);
            columns.lanes.push(lane_code(command.lane));
            columns.payloads.push(Jsonb(command.payload.as_str()));
            columns.metadata.push(metadata_json(&command.metadata)?.map(OwnedJsonb));
            columns.expected_versions.push(command.expected_version.map(|version| version.0));
            columns.not_before.push(command.not_before);
            columns.reply_to.push(reply_to.map(OwnedJsonb));
            columns.content_hashes.push(&command.content_hash.0);
            columns.not_after.push(command.not_after);
            columns.callback_urls.push(command.callback_url.as_deref());
        }
        Ok(columns)
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 14] {
        [
            &self.buckets,
            &self.ids,
            &self.partitions,
            &self.streams,
            &self.types,
            &self.lanes,
            &self.payloads,
            &self.metadata,
            &self.expected_versions,
            &self.not_before,
            &self.reply_to,
            &self.content_hashes,
            &self.not_after,
            &self.callback_urls,
        ]
    }
}
