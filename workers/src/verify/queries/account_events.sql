-- Every event of the accounts, stream by stream.
SELECT partition, "offset", stream, version, type, schema_version, data, recorded_at
  FROM adjutant.events
 WHERE stream LIKE 'account/%'
 ORDER BY stream, version, partition, "offset"
