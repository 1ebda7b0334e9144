-- Places of the event logs between two entries that are not neighbours (first > last: one offset
-- twice). Reads the primary key in order.
SELECT partition, previous + 1 AS first_missing, "offset" - 1 AS last_missing
  FROM (SELECT partition, "offset",
               lag("offset", 1, CAST(0 AS bigint))
                   OVER (PARTITION BY partition ORDER BY "offset") AS previous
          FROM adjutant.events) AS entries
 WHERE "offset" <> previous + 1
