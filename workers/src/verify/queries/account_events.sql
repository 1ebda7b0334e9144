-- Every event of the accounts, stream by stream ('0' is the character behind '/').
SELECT partition, "offset", stream, version, type, schema_version, data, recorded_at
  FROM adjutant.events
 WHERE stream >= 'account/' AND stream < 'account0'
 ORDER BY stream, version, partition, "offset"
