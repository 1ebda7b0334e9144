-- Events that a person decided are never applied to a key.
SELECT group_name, key, partition, "offset"
  FROM adjutant.dead_letters WHERE kind = 2 AND state = 4
UNION
SELECT group_name, key, partition, failed_offset
  FROM adjutant.parked_keys WHERE state = 3
