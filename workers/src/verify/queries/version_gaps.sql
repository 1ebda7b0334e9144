-- Versions of a stream between two events that are not neighbours (first > last: one twice), with
-- the place of the later event. Reads the key (partition, stream, version) in order.
SELECT partition, "offset", stream, previous + 1 AS first_missing, version - 1 AS last_missing
  FROM (SELECT partition, "offset", stream, version,
               lag(version, 1, CAST(0 AS bigint))
                   OVER (PARTITION BY partition, stream ORDER BY version) AS previous
          FROM adjutant.events) AS entries
 WHERE version <> previous + 1
